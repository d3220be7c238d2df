"""After a sweep: which of its jobs failed, and an exit code that tells. A callback of Hydra, not of Lightning."""

import logging
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from tocsin.jobs import Job, State, read_jobs

log = logging.getLogger(__name__)


class SweepEnd(Callback):
    """Ends the command of a sweep: the others of its jobs are complete, whatever became of one."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the failed jobs.

        Raises:
            SystemExit: With exit code 1, if there are any.
        """
        sweep_dir = Path(config.hydra.sweep.dir)
        jobs = read_jobs(sweep_dir)
        failed = [job for job in jobs if job.state == State.FAILED]
        if failed:
            log.error("%d of %d jobs failed:\n%s", len(failed), len(jobs), "\n".join(map(_line, failed)))
            log.error("to run them again: the same command with hydra.sweep.dir=%s %s", sweep_dir, RETRY)
            sys.exit(1)


RETRY = "hydra.launcher.retry_failed=true"


def _line(job: Job) -> str:
    return f"  #{job.number} {' '.join(job.overrides)}: {job.error}"
