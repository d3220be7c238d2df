"""Keeps the best and the last checkpoint of a run.

Both are written at the very end of an epoch, when scheduler, early stopping and stage have moved on, so that a
run killed at any moment resumes at an epoch border with nothing to redo. A stage before the last one keeps its
best weights in a file of its own, `best_<stage>.ckpt`, because losses of different stages cannot be compared.
"""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Checkpoint

from tocsin.checkpoints import replace_with_copy
from tocsin.tasks.base import Task


class BestAndLast(Checkpoint):
    """Writes `checkpoints/best.ckpt` and `checkpoints/last.ckpt` below the run folder.

    Args:
        monitor: The logged value that decides.
        mode: `min` or `max`.
        min_delta: Smallest improvement that counts.
    """

    def __init__(self, *, monitor: str = "val_loss", mode: str = "min", min_delta: float = 0.0) -> None:
        super().__init__()
        self.monitor = monitor
        self.sign = 1.0 if mode == "min" else -1.0
        self.min_delta = min_delta
        self.best = math.inf  # sign * monitored value
        self.best_epoch = -1

    def on_stage_start(self) -> None:
        self.best = math.inf

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        value = self.sign * float(trainer.callback_metrics.get(self.monitor, math.nan))
        improved = value <= self.best - self.min_delta  # of equals the later: a small split has many
        if improved:
            self.best, self.best_epoch = value, trainer.current_epoch
        run_dir = Path(trainer.default_root_dir)
        last = run_dir / "checkpoints" / "last.ckpt"
        fresh = last.with_name("last.tmp")
        trainer.save_checkpoint(fresh)
        if trainer.is_global_zero:
            if improved:
                replace_with_copy(fresh, pl_module.best_path(run_dir))
            fresh.replace(last)
        trainer.strategy.barrier("checkpoints")  # other processes read them

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
