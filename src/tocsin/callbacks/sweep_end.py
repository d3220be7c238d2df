"""After a sweep: leaderboard, TensorBoard, and which jobs failed. A callback of Hydra, not of Lightning."""

import logging
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from tocsin import board_links
from tocsin.errors import TocsinError
from tocsin.jobs import Job, State, read_jobs
from tocsin.leaderboard.files import after_sweep

log = logging.getLogger(__name__)

RETRY = "hydra.launcher.retry_failed=true"


class SweepEnd(Callback):
    """Ends the command of a sweep: the others of its jobs are complete, whatever became of one."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Rank what has finished, and name what has not.

        Raises:
            SystemExit: With exit code 1, if a job failed.
        """
        sweep_dir = Path(config.hydra.sweep.dir)
        try:
            log.info("\n%s", after_sweep(sweep_dir))
            log.info("leaderboard: %s", sweep_dir / "leaderboard.html")
            board_links.after_sweep(sweep_dir)
        except TocsinError as error:  # the runs are done and saved; only the tables are missing
            log.warning("no leaderboard: %s", error)
        _name_failed(read_jobs(sweep_dir), sweep_dir)


def _name_failed(jobs: list[Job], sweep_dir: Path) -> None:
    failed = [job for job in jobs if job.state == State.FAILED]
    if failed:
        lines = "\n".join(f"  #{job.number} {' '.join(job.overrides)}: {job.error}" for job in failed)
        log.error("%d of %d jobs failed:\n%s", len(failed), len(jobs), lines)
        log.error("to run them again: the same command with hydra.sweep.dir=%s %s", sweep_dir, RETRY)
        sys.exit(1)
