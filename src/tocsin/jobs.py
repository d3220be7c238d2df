"""What is known of a job of a sweep: `job.json` in its folder, beside what the run itself writes.

A sweep is a folder of jobs known by their overrides. The record is written when a job starts and when it ends; that
of a job whose process dies is completed by the launcher that waited for it. So `running` in a sweep that no longer
runs means: interrupted.
"""

import json
import os
import signal
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from tocsin.errors import TocsinError

FILE = "job.json"


class State(StrEnum):
    """How far a job has come."""

    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"  # ended early, because other jobs were clearly better
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of a sweep.

    Attributes:
        folder: Its run folder.
        number: Its number in the sweep.
        overrides: What sets it apart: `key=value`, as on the command line.
        state: How far it has come.
        value: The monitored value, where there is one.
        error: One line on why it failed.
        pid: Process that runs or ran it.
        gpus: CUDA_VISIBLE_DEVICES of that process; None where it was not set.
        started: Time of the last start, ISO 8601.
        seconds: From that start to its end.
    """

    folder: Path
    number: int
    overrides: tuple[str, ...]
    state: State = State.RUNNING
    value: float | None = None
    error: str | None = None
    pid: int | None = None
    gpus: str | None = None
    started: str | None = None
    seconds: float | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two jobs of a sweep the same, whatever the order of their overrides."""
        return job_key(self.overrides)

    def begin(self) -> "Job":
        """The record of a job that starts now, in this process."""
        return replace(
            self,
            state=State.RUNNING,
            value=None,
            error=None,
            pid=os.getpid(),
            gpus=os.environ.get("CUDA_VISIBLE_DEVICES"),
            started=datetime.now().isoformat(),
            seconds=None,
        )

    def end(self, state: State, *, value: float | None = None, error: str | None = None) -> "Job":
        """The record of a job that ends now."""
        begun = datetime.fromisoformat(self.started) if self.started else datetime.now()
        seconds = (datetime.now() - begun).total_seconds()
        return replace(self, state=state, value=value, error=error, seconds=seconds)


def job_key(overrides: Iterable[str]) -> tuple[str, ...]:
    """Overrides in an order of their own, without the signs that add keys, and without those of Hydra itself."""
    return tuple(sorted(text.lstrip("+") for text in overrides if not text.startswith("hydra.")))


def write_job(job: Job) -> None:
    """Write the record of a job into its folder, whole or not at all."""
    fields = {name: value for name, value in asdict(job).items() if name != "folder"}
    job.folder.mkdir(parents=True, exist_ok=True)
    temporary = job.folder / f".{FILE}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(fields, indent=2) + "\n")
    temporary.replace(job.folder / FILE)


def read_job(folder: Path) -> Job | None:
    """The record of a job; None where there is none.

    Raises:
        TocsinError: It cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text())
        state, overrides = State(fields.pop("state")), tuple(fields.pop("overrides"))
        return Job(folder=folder, state=state, overrides=overrides, **fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TocsinError(
            f"{path} is not the record of a job: {error}; delete that folder to run the job anew"
        ) from error


def read_jobs(sweep_dir: Path) -> list[Job]:
    """The jobs in a folder of a sweep and in the folders of its stages, by folder and number."""
    folders = [path.parent for path in sorted(sweep_dir.glob(f"**/{FILE}"))]
    jobs = [job for folder in folders if (job := read_job(folder)) is not None]
    return sorted(jobs, key=lambda job: (str(job.folder.parent), job.number))


def death(exit_code: int) -> str:
    """What the exit code of a process that ended too soon tells."""
    if exit_code == -signal.SIGKILL:
        return "killed (SIGKILL): by hand, or because the machine ran out of memory"
    if exit_code < 0:
        return f"killed by signal {signal.Signals(-exit_code).name}"
    return f"its process ended with exit code {exit_code}"
