"""Patches over HTTP: ask for one, watch it grow, look at what it does, end it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Request, Response, status
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import Engine, select

from tocsin.data.catalog_tables import Category, Dataset
from tocsin.service import queue
from tocsin.service.job_table import OPEN, JobState
from tocsin.service.patch_files import (
    Follower,
    job_folder,
    last_line,
    picture_of_patch,
    pictures_of,
    report_of,
)
from tocsin.service.patch_request import PatchRequest, victim_source
from tocsin.service.queue import Job
from tocsin.service.settings import Settings

router = APIRouter(prefix="/v1/patches", tags=["patches"])

LISTED = 200  # latest jobs that a list shows
POLL_S = 0.25  # between two looks at the progress of a job, for each who watches
QUIET_S = 10.0  # after which a stream says that it is still there
STREAM = "text/event-stream"
PNG = "image/png"


# --- jobs -----------------------------------------------------------------------------------------------------


@router.post("", status_code=status.HTTP_202_ACCEPTED)
def ask(body: PatchRequest, request: Request, response: Response) -> dict[str, Any]:
    """Ask for a patch; it is made as soon as a device is free."""
    settings, engine = _settings(request), _engine(request)
    _check(body, settings, engine)
    job = queue.add(engine, body.model_dump(), limit=settings.limits.queued)
    if job is None:
        raise HTTPException(
            status.HTTP_429_TOO_MANY_REQUESTS,
            f"{settings.limits.queued} patch jobs wait or run already; try again when one has ended",
        )
    _wake(request)
    response.headers["Location"] = f"{router.prefix}/{job.id}"
    return _shown(job, settings)


@router.get("")
def list_jobs(request: Request) -> list[dict[str, Any]]:
    """The latest jobs, the newest first."""
    settings = _settings(request)
    return [_shown(job, settings) for job in queue.recent(_engine(request), limit=LISTED)]


@router.get("/{id}")
def show(id: str, request: Request) -> dict[str, Any]:
    """How far a job has come."""
    return _shown(_found(id, request), _settings(request))


@router.delete("/{id}", status_code=status.HTTP_204_NO_CONTENT)
def cancel(id: str, request: Request) -> Response:
    """End a job: 202 while its process is being ended, 204 if it did not run. One that has ended stays as it is."""
    job = _found(id, request)
    cancelled = queue.cancel(_engine(request), job.id)
    _wake(request)
    ends = cancelled and job.state == JobState.RUNNING
    return Response(status_code=status.HTTP_202_ACCEPTED if ends else status.HTTP_204_NO_CONTENT)


# --- what it makes ----------------------------------------------------------------------------------------------


@router.get("/{id}/patch.png", response_class=Response, responses={200: {"content": {PNG: {}}}})
def picture_of(id: str, request: Request) -> Response:
    """The patch, also while it grows."""
    picture = picture_of_patch(_folder(_found(id, request), request))
    if picture is None:
        raise HTTPException(
            status.HTTP_404_NOT_FOUND, f"job {id} has no patch yet; try again in a few seconds"
        )
    return Response(picture, media_type=PNG, headers={"Cache-Control": "no-store"})


@router.get("/{id}/report")
def report(id: str, request: Request) -> JSONResponse:
    """What the finished patch does: metrics with their controls, and names of pictures."""
    job = _finished(id, request)
    found = report_of(_folder(job, request))
    if found is None:
        raise HTTPException(
            status.HTTP_404_NOT_FOUND, f"job {id} has lost its report; ask for the patch again"
        )
    return JSONResponse(found)


@router.get("/{id}/pictures/{name}", response_class=Response, responses={200: {"content": {PNG: {}}}})
def picture(id: str, name: str, request: Request) -> Response:
    """A picture of the report, by its name there."""
    folder = _folder(_finished(id, request), request)
    names = pictures_of(folder)
    if name not in names:  # never a path: only what the folder of pictures lists
        raise HTTPException(
            status.HTTP_404_NOT_FOUND, f"job {id} has no picture of that name; it has {', '.join(names)}"
        )
    return Response((folder / "plots" / name).read_bytes(), media_type=PNG)


@router.get("/{id}/events", response_class=StreamingResponse, responses={200: {"content": {STREAM: {}}}})
def events(
    id: str, request: Request, last_event_id: Annotated[str | None, Header()] = None
) -> StreamingResponse:
    """Server-sent events: one for each iteration, whose number is its id, and `state` when the job has ended.

    A client that comes back with `Last-Event-ID` gets what it missed.
    """
    job = _found(id, request)
    after = int(last_event_id) if re.fullmatch(r"[0-9]{1,9}", last_event_id or "") else 0  # type: ignore[arg-type]
    streams = _streams(request)
    if streams.open >= streams.limit:
        raise HTTPException(
            status.HTTP_429_TOO_MANY_REQUESTS, f"{streams.limit} streams are open already; try again later"
        )
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # a proxy must not hold events back
    return StreamingResponse(
        _counted(streams, _events(job, request, after)), media_type=STREAM, headers=headers
    )


class Streams:
    """How many streams are open.

    Args:
        limit: Most of them.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0


async def _counted(streams: Streams, content: AsyncIterator[str]) -> AsyncIterator[str]:
    streams.open += 1
    try:
        async for part in content:
            yield part
    finally:
        streams.open -= 1


async def _events(job: Job, request: Request, after: int) -> AsyncIterator[str]:
    engine, folder = _engine(request), _folder(job, request)
    follower = Follower(folder, after=after)
    quiet = 0.0
    yield "retry: 1000\n\n"
    while not await request.is_disconnected():
        now = await asyncio.to_thread(
            queue.find, engine, job.id
        )  # before the lines: none comes after the end
        lines = await asyncio.to_thread(lambda: list(follower.more()))
        for number, line in lines:
            yield f"id: {number}\ndata: {line}\n\n"
        if lines or not await asyncio.to_thread(lambda: follower.at_end):
            quiet = 0.0
            continue
        if now is None or now.state not in OPEN:
            ended = {"state": JobState.CANCELLED if now is None else now.state, "error": now and now.error}
            yield f"event: state\ndata: {json.dumps(ended)}\n\n"
            return
        await asyncio.sleep(POLL_S)
        quiet += POLL_S
        if quiet >= QUIET_S:
            quiet = 0.0
            yield ": still there\n\n"


# --- parts ------------------------------------------------------------------------------------------------------


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _streams(request: Request) -> Streams:
    state = request.app.state
    if not hasattr(state, "patch_streams"):
        state.patch_streams = Streams(_settings(request).limits.streams)
    streams: Streams = state.patch_streams
    return streams


def _wake(request: Request) -> None:
    """Let the workers of this server look at once; those of others look by themselves."""
    workers = getattr(request.app.state, "patch_workers", None)
    if workers is not None:
        workers.wake()


def _folder(job: Job, request: Request) -> Path:
    return job_folder(_settings(request).folder, job.id)


def _found(id: str, request: Request) -> Job:
    job = queue.find(_engine(request), id) if re.fullmatch(r"[0-9a-f]{16}", id) else None
    if job is None:
        raise HTTPException(
            status.HTTP_404_NOT_FOUND, "there is no such patch job; GET /v1/patches lists them"
        )
    return job


def _finished(id: str, request: Request) -> Job:
    job = _found(id, request)
    if job.state != JobState.FINISHED:
        why = f": {job.error}" if job.error else ""
        raise HTTPException(
            status.HTTP_409_CONFLICT, f"job {id} is {job.state}{why}; only finished ones have a report"
        )
    return job


def _check(body: PatchRequest, settings: Settings, engine: Engine) -> None:
    """Refuse what would fail once the job runs: a victim, data set or class that is not there."""
    wrong = status.HTTP_422_UNPROCESSABLE_CONTENT
    if victim_source(body.victim, settings.models) is None:
        raise HTTPException(
            wrong,
            f"victim={body.victim} is no .pt file below the models folder; give its name there, or standin",
        )
    query = (
        select(Category.name)
        .select_from(Dataset)
        .join(Category, Category.dataset_id == Dataset.id, isouter=True)
        .where(Dataset.name == body.dataset)
    )
    with engine.connect() as connection:
        names = list(connection.execute(query).scalars())
    if not names:
        raise HTTPException(wrong, f"there is no dataset {body.dataset}; GET /v1/datasets lists them")
    if body.target_class.lower() not in {str(name).lower() for name in names}:
        known = ", ".join(sorted(filter(None, names))[:20])
        raise HTTPException(
            wrong, f"dataset {body.dataset} has no target_class {body.target_class}; it has {known}"
        )


def _shown(job: Job, settings: Settings) -> dict[str, Any]:
    line = last_line(job_folder(settings.folder, job.id)) or {}
    runs = job.state == JobState.RUNNING
    return {
        "id": job.id,
        "state": job.state,
        "iteration": line.get("iteration", 0),
        "iterations": job.request["iterations"],
        "losses": line.get("losses", {}),
        "images_per_s": line.get("images_per_s"),
        "seconds_left": line.get("seconds_left") if runs else None,
        "device": job.device,
        "error": job.error,
        "request": job.request,
        "created": _time(job.created),
        "started": _time(job.started),
        "finished": _time(job.finished),
    }


def _time(seconds: float | None) -> str | None:
    return (
        None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    )
