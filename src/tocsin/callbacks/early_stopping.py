"""Early stopping that starts afresh with each stage of a training."""

import torch
from lightning.pytorch import callbacks


class EarlyStopping(callbacks.EarlyStopping):
    """Ends a stage when the monitored value no longer improves.

    Args:
        monitor: The logged value that decides.
        mode: `min` or `max`.
        patience: Epochs without improvement.
        min_delta: Smallest improvement that counts.
    """

    def __init__(
        self, *, monitor: str = "val_loss", mode: str = "min", patience: int = 15, min_delta: float = 1e-6
    ) -> None:
        # After validation, before the epoch ends: the task then decides whether a stage or the run is over.
        super().__init__(
            monitor=monitor, mode=mode, patience=patience, min_delta=min_delta, check_on_train_epoch_end=False
        )

    def on_stage_start(self) -> None:
        self.wait_count = 0
        self.best_score = torch.tensor(torch.inf if self.monitor_op == torch.lt else -torch.inf)
