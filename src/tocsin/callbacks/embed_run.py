"""Writes into every checkpoint what it takes to use it: the configuration and what came from the data."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L


class EmbedRun(L.Callback):
    """Adds `config`, `choices`, `dims`, `data` and the monitored value to checkpoints, as plain data.

    Args:
        config: The run's configuration.
        choices: Names of its model and data options.
        dims: Arguments of the detector that came from the data.
        data: What new data need to be treated like the training data.
        monitor: The logged value that decides which checkpoint is best.
    """

    def __init__(
        self,
        *,
        config: Mapping[str, Any],
        choices: Mapping[str, str],
        dims: Mapping[str, int],
        data: Mapping[str, Any],
        monitor: str = "val_loss",
    ) -> None:
        self.config = dict(config)
        self.choices = dict(choices)
        self.dims = dict(dims)
        self.data = dict(data)
        self.monitor = monitor

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        value = trainer.callback_metrics.get(self.monitor)
        checkpoint |= {
            "config": self.config,
            "choices": self.choices,
            "dims": self.dims,
            "data": self.data,
            "monitored": None if value is None else float(value),
        }
