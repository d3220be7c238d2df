"""One line per epoch where there is no terminal to draw a progress bar on."""

import logging
import time

import lightning.pytorch as L

from tocsin.tasks.base import Task

log = logging.getLogger(__name__)


class EpochLine(L.Callback):
    """Logs stage, epoch, losses, learning rate and seconds at the end of each epoch."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        metrics = trainer.callback_metrics
        shown = dict.fromkeys(("train_loss", "val_loss", pl_module.monitor))
        values = [f"{name} {float(metrics[name]):.4g}" for name in shown if name in metrics]
        if pl_module.learning_rate is not None:
            values.append(f"lr {pl_module.learning_rate:.2g}")
        log.info(
            "epoch %d/%s %s: %s (%.1f s)",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            pl_module.stage,
            ", ".join(values),
            time.monotonic() - self._started,
        )
