"""Ends a job of a sweep early when it does worse than the median of the others: the median rule on files.

The rule is that of Google Vizier (Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017,
section 3.4.2), as Optuna's `MedianPruner` has it. It is written on files so that it works under any sweeper and
launcher: each job keeps what it measured in `progress.json` of its folder and reads those of the finished jobs beside
it, wherever they ran. Epochs are compared within a stage of the training, because losses of different stages cannot
be compared. Who is pruned depends on which jobs have finished, so jobs that run side by side may be pruned otherwise
in another sweep; jobs one after the other are not.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np

from tocsin.errors import ConfigError, Pruned, TocsinError
from tocsin.results import write_files
from tocsin.tasks.base import Task

FILE = "progress.json"
FINISHED = "metrics.json"  # what a job has written when it is through

History = Mapping[int, float]  # epoch of a stage, from 0, and value


class Pruning(L.Callback):
    """Raises `Pruned` when the best value so far is worse than the median of finished jobs at the same epoch.

    Args:
        monitor: The logged value that decides.
        mode: `min` or `max`.
        n_startup_jobs: Jobs of the sweep that must have finished this stage before any is pruned.
        n_warmup_epochs: First epochs of a stage in which none is pruned.
    """

    def __init__(
        self,
        *,
        monitor: str = "val_loss",
        mode: str = "min",
        n_startup_jobs: int = 5,
        n_warmup_epochs: int = 0,
    ) -> None:
        if mode not in ("min", "max"):
            raise ConfigError(f"callbacks.pruning.mode={mode} is neither min nor max")
        if n_startup_jobs < 1 or n_warmup_epochs < 0:
            raise ConfigError(
                f"callbacks.pruning: n_startup_jobs={n_startup_jobs} must be at least 1, and "
                f"n_warmup_epochs={n_warmup_epochs} not negative"
            )
        self.monitor = monitor
        self.mode = mode
        self.n_startup_jobs = n_startup_jobs
        self.n_warmup_epochs = n_warmup_epochs
        self.progress: dict[str, dict[int, float]] = {}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        run_dir = Path(trainer.default_root_dir)
        stage, epoch = pl_module.stage, pl_module.stage_epoch
        own = self.progress.setdefault(stage, {})
        own[epoch] = float(trainer.callback_metrics.get(self.monitor, math.nan))
        worse = False
        if trainer.is_global_zero:
            write_progress(run_dir, self.progress)
            worse = worse_than_median(
                own,
                [job[stage] for job in finished_beside(run_dir) if stage in job],
                mode=self.mode,
                n_startup_jobs=self.n_startup_jobs,
                n_warmup_epochs=self.n_warmup_epochs,
            )
        if trainer.strategy.broadcast(worse):  # all processes of a job end together
            best = best_of(own, self.mode)
            raise Pruned(
                f"pruned in epoch {epoch + 1} of stage {stage}: {self.monitor} {best:.6g} is worse than the median "
                "of the finished jobs",
                value=best
                if pl_module.in_last_stage
                else math.nan,  # only that one is what a finished job returns
            )

    def state_dict(self) -> dict[str, Any]:
        return {"progress": self.progress}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.progress = state_dict["progress"]


def worse_than_median(
    own: History, others: Sequence[History], *, mode: str, n_startup_jobs: int, n_warmup_epochs: int
) -> bool:
    """Whether a job is to be pruned.

    Args:
        own: Values of this job's epochs so far; the last epoch is the one that is compared.
        others: The same for each finished job.
        mode: `min` or `max`.
        n_startup_jobs: Fewest finished jobs.
        n_warmup_epochs: First epochs in which none is pruned.

    Returns:
        True if the best own value is worse than the median of the others' values at the last epoch, or if no own
        value is a number.
    """
    epoch = max(own)
    if len(others) < n_startup_jobs or epoch < n_warmup_epochs:
        return False
    best = best_of(own, mode)
    if math.isnan(best):
        return True
    values = np.array([job[epoch] for job in others if epoch in job], dtype=np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        return False
    median = float(np.median(values))
    return best > median if mode == "min" else best < median


def best_of(history: History, mode: str) -> float:
    """The best value of some epochs; NaN if none is a number."""
    values = [value for value in history.values() if not math.isnan(value)]
    if not values:
        return math.nan
    return min(values) if mode == "min" else max(values)


def write_progress(run_dir: Path, progress: Mapping[str, History]) -> None:
    """Write what a job measured so far, by stage and epoch, whole or not at all."""
    plain = {
        stage: {str(epoch): None if math.isnan(value) else value for epoch, value in history.items()}
        for stage, history in progress.items()
    }
    write_files(run_dir, {FILE: json.dumps(plain).encode()})


def finished_beside(run_dir: Path) -> list[dict[str, dict[int, float]]]:
    """What the finished jobs in the folders beside that of a job measured, by stage and epoch.

    Raises:
        TocsinError: A file cannot be read.
    """
    found = []
    for path in sorted(run_dir.parent.glob(f"*/{FILE}")):
        if path.parent.resolve() == run_dir.resolve() or not (path.parent / FINISHED).is_file():
            continue
        try:
            stages = json.loads(path.read_text())
            found.append(
                {
                    stage: {
                        int(epoch): math.nan if value is None else float(value)
                        for epoch, value in rows.items()
                    }
                    for stage, rows in stages.items()
                }
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise TocsinError(f"{path} is not the progress of a job: {error}; delete it") from error
    return found
