"""The table of patch jobs, and the time as the database knows it.

Its metadata are its own: a catalogue is complete without it. Times are seconds since 1970 by the clock of the
database, which all servers on it share.
"""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Double, Integer, MetaData, String, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement


class JobState(StrEnum):
    """How far a patch job has come."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = (JobState.QUEUED, JobState.RUNNING)


class JobBase(DeclarativeBase):
    """Base of the tables of the service; `JobBase.metadata` holds them."""

    metadata = MetaData()


class PatchJob(JobBase):
    """A patch job."""

    __tablename__ = "patch_jobs"

    number: Mapped[int] = mapped_column(primary_key=True)  # of the order in which they came
    id: Mapped[str] = mapped_column(String(32), unique=True)  # what its address and folder are named by
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    dataset: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16), index=True)
    worker: Mapped[str | None] = mapped_column(String(64))  # who runs it: a word of the one start it has now
    heartbeat: Mapped[float | None] = mapped_column(Double)  # when that worker was last heard of
    device: Mapped[str | None] = mapped_column(Text)
    deaths: Mapped[int] = mapped_column(Integer)  # of workers in a row, without a new checkpoint between them
    checkpoint: Mapped[float | None] = mapped_column(
        Double
    )  # time of the checkpoint that the last start found
    error: Mapped[str | None] = mapped_column(Text)
    created: Mapped[float] = mapped_column(Double)
    started: Mapped[float | None] = mapped_column(Double)
    finished: Mapped[float | None] = mapped_column(Double)


class now(FunctionElement[float]):  # reads as the function of SQL that it is
    """Seconds since 1970 by the database's clock, with fractions; not of the start of a transaction."""

    type = Double()
    inherit_cache = True


@compiles(now)
def _now(element: now, compiler: Any, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


@compiles(now, "sqlite")
def _now_of_sqlite(element: now, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"  # julianday of 1970; subsec needs SQLite 3.42
