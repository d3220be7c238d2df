"""The queue of patch jobs in the database, which several servers may work on.

Every step is one statement, so that none can come between: SQLite lets one writer in at a time, PostgreSQL locks the
row that is claimed and lets others skip it. Who has claimed a job holds it by a word of its own (`worker`) as long as
it is heard of (`beat`). One that has lost a job, because it was silent too long or the job was cancelled, changes
nothing any more, and learns it from what these functions return.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, ColumnElement, Engine, and_, func, insert, literal, null, or_, select, update

from tocsin.service.job_table import OPEN, JobState, PatchJob, now

MAX_DEATHS = 5  # of workers in a row that left no new checkpoint, before a job is given up


@dataclass(frozen=True, kw_only=True)
class Job:
    """A row of the table; see `PatchJob`."""

    number: int
    id: str
    request: Mapping[str, Any]
    dataset: str
    state: JobState
    worker: str | None
    heartbeat: float | None
    device: str | None
    deaths: int
    checkpoint: float | None
    error: str | None
    created: float
    started: float | None
    finished: float | None


# --- for those who ask for patches --------------------------------------------------------------------------------


def add(engine: Engine, request: Mapping[str, Any], *, limit: int) -> Job | None:
    """Put a job at the end of the queue.

    Args:
        engine: Of the database.
        request: Plain data, with the name of a `dataset`.
        limit: Most jobs that may wait or run.

    Returns:
        None if there are so many already.
    """
    n_open = select(func.count()).where(PatchJob.state.in_(OPEN)).scalar_subquery()
    row = select(
        literal(secrets.token_hex(8)),
        literal(dict(request), JSON),
        literal(str(request["dataset"])),
        literal(JobState.QUEUED.value),
        literal(0),
        now(),
    ).where(n_open < limit)
    columns = ["id", "request", "dataset", "state", "deaths", "created"]
    statement = insert(PatchJob).from_select(columns, row).returning(*_COLUMNS)
    with engine.begin() as connection:
        return _job(connection.execute(statement).all())


def find(engine: Engine, id: str) -> Job | None:
    """A job by its id."""
    with engine.connect() as connection:
        return _job(connection.execute(select(*_COLUMNS).where(PatchJob.id == id)).all())


def recent(engine: Engine, *, limit: int) -> list[Job]:
    """The latest jobs, the newest first."""
    query = select(*_COLUMNS).order_by(PatchJob.number.desc()).limit(limit)
    with engine.connect() as connection:
        return [_of_row(row) for row in connection.execute(query)]


def datasets_in_use(engine: Engine) -> set[str]:
    """Names of the data sets that jobs which wait or run read."""
    query = select(PatchJob.dataset).where(PatchJob.state.in_(OPEN)).distinct()
    with engine.connect() as connection:
        return set(connection.execute(query).scalars())


def cancel(engine: Engine, id: str) -> bool:
    """End a job that waits or runs; its worker learns it from its next beat.

    Returns:
        Whether it was still open.
    """
    return _change(
        engine,
        and_(PatchJob.id == id, PatchJob.state.in_(OPEN)),
        state=JobState.CANCELLED.value,
        finished=now(),
    )


def waiting(engine: Engine) -> bool:
    """Whether any job waits: to look takes no lock, to claim does."""
    query = select(PatchJob.number).where(PatchJob.state == JobState.QUEUED).limit(1)
    with engine.connect() as connection:
        return connection.execute(query).first() is not None


# --- for workers ----------------------------------------------------------------------------------------------------


def claim(engine: Engine, *, device: str) -> Job | None:
    """Take the job that has waited longest.

    Args:
        engine: Of the database.
        device: On which it will run.

    Returns:
        The job, running, with a `worker` that no other has; None if none waits.
    """
    first = (
        select(PatchJob.number)
        .where(PatchJob.state == JobState.QUEUED)
        .order_by(PatchJob.number)
        .limit(1)
        .with_for_update(skip_locked=True)  # left out on SQLite, where only one can write
        .scalar_subquery()
    )
    statement = (
        update(PatchJob)
        .where(PatchJob.number == first, PatchJob.state == JobState.QUEUED)
        .values(
            state=JobState.RUNNING.value,
            worker=secrets.token_hex(16),
            heartbeat=now(),
            started=func.coalesce(PatchJob.started, now()),
            device=device,
        )
        .returning(*_COLUMNS)
    )
    with engine.begin() as connection:
        return _job(connection.execute(statement).all())


def beat(engine: Engine, job: Job) -> bool:
    """Say that the worker of a job is there.

    Returns:
        Whether the job is still its own; if not, the worker must stop.
    """
    return _change(engine, _held(job), heartbeat=now())


def begin(engine: Engine, job: Job, *, checkpoint: float | None) -> bool:
    """Say which checkpoint a job goes on from: a new one forgets the deaths before it.

    Args:
        engine: Of the database.
        job: As claimed.
        checkpoint: Time of the file; None where there is none.

    Returns:
        Whether the job is still its own.
    """
    moved_on = checkpoint != job.checkpoint
    return _change(engine, _held(job), checkpoint=checkpoint, **({"deaths": 0} if moved_on else {}))


def finish(engine: Engine, job: Job) -> bool:
    """Record that a job was done."""
    return _end(engine, job, JobState.FINISHED, error=None)


def fail(engine: Engine, job: Job, error: str) -> bool:
    """Record that a job cannot be done.

    Args:
        engine: Of the database.
        job: As claimed.
        error: One line on why.
    """
    return _end(engine, job, JobState.FAILED, error=error)


def give_back(engine: Engine, job: Job) -> bool:
    """Let a job wait again whose worker stops in good order; it goes on from its last checkpoint."""
    return _change(engine, _held(job), **_WAITING)


def put_back(engine: Engine, job: Job, error: str) -> bool:
    """Let a job wait again whose worker died, or give it up after too many deaths without a new checkpoint.

    Args:
        engine: Of the database.
        job: As claimed.
        error: One line on how the worker died.
    """
    deaths = PatchJob.deaths + 1
    reason = f"given up after {MAX_DEATHS} attempts without a new checkpoint; the last: {error}"
    given_up = {"state": JobState.FAILED.value, "error": reason, "finished": now(), "heartbeat": null()}
    return _change(engine, and_(_held(job), deaths >= MAX_DEATHS), deaths=deaths, **given_up) or _change(
        engine, _held(job), deaths=deaths, **_WAITING
    )


def put_back_lost(engine: Engine, *, silent_s: float) -> bool:
    """Let all jobs wait again whose server has not been heard of for so many seconds, by the database's clock.

    That a server ended is not the fault of its jobs, and is not counted as a death.

    Returns:
        Whether there were any.
    """
    silent = or_(PatchJob.heartbeat.is_(None), PatchJob.heartbeat < now() - silent_s)
    return _change(engine, and_(PatchJob.state == JobState.RUNNING, silent), **_WAITING)


# --- statements -----------------------------------------------------------------------------------------------------

_COLUMNS = tuple(PatchJob.__table__.columns)
_WAITING: Mapping[str, Any] = {
    "state": JobState.QUEUED.value,
    "worker": null(),
    "heartbeat": null(),
    "device": null(),
}


def _held(job: Job) -> ColumnElement[bool]:
    """The row of a job, as long as its worker holds it."""
    return and_(
        PatchJob.number == job.number, PatchJob.worker == job.worker, PatchJob.state == JobState.RUNNING
    )


def _end(engine: Engine, job: Job, state: JobState, *, error: str | None) -> bool:
    return _change(engine, _held(job), state=state.value, error=error, finished=now(), heartbeat=null())


def _change(engine: Engine, which: ColumnElement[bool], **values: Any) -> bool:
    with engine.begin() as connection:
        return connection.execute(update(PatchJob).where(which).values(**values)).rowcount > 0


def _job(rows: Sequence[Any]) -> Job | None:
    return _of_row(rows[0]) if rows else None


def _of_row(row: Any) -> Job:
    return Job(**{**row._mapping, "state": JobState(row.state)})
