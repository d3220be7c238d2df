"""Runs one job of a sweep in whatever process a launcher chose, and keeps its record.

What is sent to that process is a `JobCall`: all that the job needs, and nothing that the process must know already.
A job that raises is recorded, and the launcher goes on; one whose process dies cannot write its own record, so that
the launcher, who sees it die, calls `record_death`.
"""

import logging
import math
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from typing import Any

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.core.utils import run_job as run_hydra_job
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from tocsin.composing import explain
from tocsin.errors import Pruned, TocsinError
from tocsin.jobs import Job, State, read_job, write_job

log = logging.getLogger(__name__)

Task = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class JobCall:
    """A job of a sweep and all that it takes to run it.

    Attributes:
        job: Its record before it starts.
        config: Its composed configuration, Hydra's part included.
        context: Hydra's, with the callbacks of the sweep.
        task: The function of the command: train or evaluate.
        singletons: Hydra's state in the process of the sweep.
        folder: Working directory of the command.
    """

    job: Job
    config: DictConfig
    context: HydraContext
    task: Task
    singletons: Any
    folder: str

    @property
    def resumes(self) -> bool:
        """Whether an earlier, interrupted start left a checkpoint to go on from."""
        return "ckpt_path" in self.config and self.config.ckpt_path is None and self._last_exists()

    def _last_exists(self) -> bool:
        return (self.job.folder / "checkpoints" / "last.ckpt").is_file()


def run_job(call: JobCall) -> Job:
    """Run a job in this process.

    Returns:
        Its record, which is written into its folder, too.
    """
    os.chdir(call.folder)
    setup_globals()
    Singleton.set_state(call.singletons)
    HydraConfig.instance().set_config(call.config)
    job = call.job.begin()
    write_job(job)
    returned = run_hydra_job(
        hydra_context=call.context,
        task_function=_resuming(call.task) if call.resumes else call.task,
        config=call.config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    job = _ended(job, returned)
    write_job(job)
    return job


def _resuming(task: Task) -> Task:
    """The task, going on from the last checkpoint of its folder. The saved configuration stays that of the sweep."""

    def resume(cfg: DictConfig) -> Any:
        with open_dict(cfg):
            cfg.ckpt_path = "last"
        return task(cfg)

    return resume


def _ended(job: Job, returned: JobReturn) -> Job:
    """The record of a job of which Hydra tells how it ended."""
    outcome = returned._return_value  # its public property raises what a job raised
    if returned.status == JobStatus.COMPLETED:
        return job.end(State.FINISHED, value=None if outcome is None else float(outcome))
    if isinstance(outcome, Pruned):
        log.info("job %d %s", job.number, outcome)
        return job.end(State.PRUNED, value=None if math.isnan(outcome.value) else outcome.value)
    known = isinstance(
        outcome, TocsinError | MemoryError
    )  # of others the log of the job keeps the stack trace
    log.error("job %d failed: %s", job.number, explain(outcome), exc_info=None if known else outcome)
    return job.end(State.FAILED, error=explain(outcome))


def record_death(job: Job, reason: str) -> Job:
    """Complete the record of a job whose process has ended, whatever it managed to write.

    Args:
        job: As it was sent.
        reason: What is known of the end of its process.
    """
    written = read_job(job.folder)
    if written is not None and written.state != State.RUNNING:
        return written  # it died after its work was done
    died = (written or job).end(State.FAILED, error=reason)
    write_job(died)
    return died


# --- a process of its own ---------------------------------------------------------------------------------------


def run_pickled(pickled: bytes, environment: dict[str, str]) -> None:
    """Run a job that another process of this machine sent, and end with that process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(environment)  # the process this one was forked from may be older
    try:
        run_job(cloudpickle.loads(pickled))
    except KeyboardInterrupt:  # the whole sweep is interrupted, and says so
        sys.exit(130)


def _end_with_parent() -> None:
    """A job that outlives its sweep would be run twice when the sweep is run again."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
