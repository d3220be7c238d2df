"""Scores rows as they arrive over a WebSocket: one row in, one score out, in constant memory per connection.

Rows that arrive while others are being scored are scored together, with those of other streams and requests of the
model. A client that sends faster than that is held back by its own connection: no more than `ROWS` rows wait.
"""

import asyncio
import csv
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.status import (
    WS_1001_GOING_AWAY,
    WS_1007_INVALID_FRAME_PAYLOAD_DATA,
    WS_1008_POLICY_VIOLATION,
    WS_1013_TRY_AGAIN_LATER,
)

from tocsin.errors import DataError, TocsinError
from tocsin.service.loaded_models import LoadedModel, LoadedModels
from tocsin.service.series_scores import SeriesModel, StreamWork
from tocsin.service.settings import Settings
from tocsin.streaming import RowScorer

router = APIRouter(prefix="/v1/models", tags=["models"])

ROWS = 64  # of a stream that wait, and that are scored together
LONGEST = 1 << 16  # characters of a row


class _End(Exception):
    """A stream ends: with a reason for the client, or without one because it has gone."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@router.websocket("/{name}/stream")
async def stream(socket: WebSocket, name: str) -> None:
    """One row in, one `{"score": ..., "alarm": ...}` out; the score is null until the first window is full."""
    models: LoadedModels = socket.app.state.models
    settings: Settings = socket.app.state.settings
    await socket.accept()
    try:
        if models.streams >= settings.limits.streams:
            raise _End(
                WS_1013_TRY_AGAIN_LATER,
                f"{models.streams} streams are open, as many as limits.streams allows",
            )
        models.streams += 1
        try:
            await _serve(socket, await _series_model(models, name), settings.limits.idle_s)
        finally:
            models.streams -= 1
    except _End as end:
        if end.reason:
            await socket.send_text(json.dumps({"error": end.reason}))
            await socket.close(end.code, end.reason[:100])
    except WebSocketDisconnect:
        return


async def _series_model(models: LoadedModels, name: str) -> LoadedModel:
    try:
        loaded = await models.get(name)
    except TocsinError as error:
        raise _End(WS_1008_POLICY_VIOLATION, str(error)) from error
    if not isinstance(loaded.model, SeriesModel):
        raise _End(
            WS_1008_POLICY_VIOLATION, f"model {name} reads images, and no rows; POST them to its /score"
        )
    return loaded


async def _serve(socket: WebSocket, loaded: LoadedModel, idle_s: float) -> None:
    """Receive in one task, score and answer in this one."""
    waiting: asyncio.Queue[str | _End] = asyncio.Queue(ROWS)
    receiving = asyncio.create_task(_receive(socket, waiting, idle_s))
    assert isinstance(loaded.model, SeriesModel)
    scorer = RowScorer(loaded.model.trained, where="the stream")
    try:
        while True:
            arrived = [await waiting.get()]
            while not waiting.empty() and len(arrived) < ROWS:
                arrived.append(waiting.get_nowait())
            await _answer(socket, loaded, scorer, arrived, idle_s)
    finally:
        receiving.cancel()


async def _receive(socket: WebSocket, waiting: "asyncio.Queue[str | _End]", idle_s: float) -> None:
    """Put what arrives into the queue, and wait while that is full."""
    while True:
        try:
            message = await asyncio.wait_for(socket.receive(), idle_s)
        except TimeoutError:
            end = _End(WS_1001_GOING_AWAY, f"no row came for {idle_s:g} s (limits.idle_s)")
            await waiting.put(end)
            return
        if message["type"] == "websocket.disconnect":
            await waiting.put(_End(WS_1001_GOING_AWAY))
            return
        text = message.get("text")
        await waiting.put(
            _End(WS_1007_INVALID_FRAME_PAYLOAD_DATA, "send rows as text") if text is None else text
        )


async def _answer(
    socket: WebSocket,
    loaded: LoadedModel,
    scorer: RowScorer,
    arrived: Sequence[str | _End],
    idle_s: float,
) -> None:
    """Answer the rows that have arrived, in order; those before a bad one are answered, too."""
    names = scorer.trained.channel_names
    rows: list[np.ndarray] = []
    end: _End | None = None
    for one in arrived:
        if isinstance(one, _End):
            end = one
            break
        try:
            rows.append(scorer.fill(row_of(one, names)))
        except DataError as error:
            end = _End(WS_1007_INVALID_FRAME_PAYLOAD_DATA, str(error))
            break
    if rows:
        work = StreamWork(np.stack(rows), scorer)
        if work.remaining:
            await loaded.batcher.run(work)
        empty = len(rows) - len(work.scores)
        scores: list[Any] = [None] * empty + work.scores
        try:
            async with asyncio.timeout(idle_s):
                for score, alarm in zip(scores, [False] * empty + work.alarms, strict=True):
                    await socket.send_text(json.dumps({"score": score, "alarm": alarm}))
        except TimeoutError as error:  # nobody reads them; nor would anyone read a reason
            raise _End(WS_1001_GOING_AWAY) from error
    if end is not None:
        raise end


def row_of(text: str, channels: Sequence[str]) -> np.ndarray:
    """One row of a stream.

    Args:
        text: A JSON list in the order of the channels, a JSON object by channel, or a line of CSV. null or nothing
            between two commas: missing.
        channels: C names.

    Returns:
        (C,) float32, NaN = missing.

    Raises:
        DataError: It is none of these, or holds other channels, or what is no number.
    """
    if len(text) > LONGEST:
        raise DataError(f"the stream: a row has {len(text)} characters, more than {LONGEST}")
    fields = _fields(text.strip(), channels)
    if len(fields) != len(channels):
        raise DataError(
            f"the stream: a row has {len(fields)} values, but there are {len(channels)} channels: "
            f"{', '.join(channels)}"
        )
    values = np.empty(len(channels), dtype=np.float32)
    with np.errstate(over="ignore"):
        for index, (name, field) in enumerate(zip(channels, fields, strict=True)):
            values[index] = _number(name, field)
    if np.isinf(values).any():
        raise DataError(f"the stream: channel {channels[int(np.isinf(values).argmax())]} is infinite")
    return values


def _fields(text: str, channels: Sequence[str]) -> list[Any]:
    if not text.startswith(("[", "{")):
        try:
            return next(csv.reader([text]), [])
        except csv.Error as error:
            raise DataError(f"the stream: a row is no line of CSV: {error}") from error
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError('the stream: a row is no JSON; send [1, 2], {"name": 1} or 1,2') from error
    if isinstance(given, list):
        return given
    if unknown := [name for name in given if name not in channels]:
        raise DataError(
            f"the stream: the model has no channel {unknown[0][:100]!r}; it has {', '.join(channels)}"
        )
    if missing := [name for name in channels if name not in given]:
        raise DataError(f"the stream: a row lacks the channels {', '.join(missing)}")
    return [given[name] for name in channels]


def _number(name: str, field: Any) -> float:
    if field is None or (isinstance(field, str) and not field.strip()):
        return float("nan")
    if isinstance(field, bool) or not isinstance(field, int | float | str):
        raise DataError(f"the stream: channel {name}: {str(field)[:100]!r} is no number")
    try:
        return float(field)
    except (ValueError, OverflowError) as error:
        raise DataError(f"the stream: channel {name}: {str(field)[:100]!r} is no number") from error
