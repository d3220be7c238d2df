"""Learning-rate schedules with warm-up, stepped by the task: once per epoch, or with each optimizer step.

The task steps them itself, before the checkpoint of the epoch is written, so that a resumed run continues
with exactly the learning rate an uninterrupted one would have had.
"""

import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR, OneCycleLR, ReduceLROnPlateau


class WarmupPlateau(ReduceLROnPlateau):
    """Linear warm-up, then `ReduceLROnPlateau` on the monitored value.

    Args:
        optimizer: Its learning rates are those reached at the end of the warm-up.
        warmup_epochs: Epochs of warm-up; epoch i (from 0) runs at (i + 1) / (warmup_epochs + 1) of the rate.
        factor: What the rate is multiplied by when the monitored value stands still.
        patience: Epochs without improvement before that.
        threshold: Relative change of the monitored value that counts as improvement.
        min_lr: Lower bound of the rate.
        mode: `min` or `max`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        warmup_epochs: int = 5,
        factor: float = 0.7,
        patience: int = 8,
        threshold: float = 1e-4,
        min_lr: float = 1e-7,
        mode: str = "min",
    ) -> None:
        self.warmup_epochs = warmup_epochs
        self.peak_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        super().__init__(
            optimizer,
            mode=mode,  # type: ignore[arg-type]  # torch checks it, with a clear message
            factor=factor,
            patience=patience,
            threshold=threshold,
            min_lr=min_lr,
        )
        self._set_warmup_lr()

    def _set_warmup_lr(self) -> None:
        scale = min(1.0, (self.last_epoch + 1) / (self.warmup_epochs + 1))
        for group, peak in zip(self.optimizer.param_groups, self.peak_lrs, strict=True):
            group["lr"] = peak * scale

    def step(self, metrics: float, epoch: int | None = None) -> None:  # type: ignore[override]
        """Advance by one epoch.

        Args:
            metrics: The monitored value of the epoch that ended.
            epoch: Kept for the signature of the parent.
        """
        if self.last_epoch < self.warmup_epochs:
            self.last_epoch += 1
            self._set_warmup_lr()
        else:
            super().step(metrics, epoch)


class WarmupCosine(LambdaLR):
    """Linear warm-up, then half a cosine down to a fraction of the rate.

    Args:
        optimizer: Its learning rates are those reached at the end of the warm-up.
        epochs: Epochs of the whole schedule; the task fills in those of the current stage.
        warmup_epochs: Epochs of warm-up.
        min_fraction: Rate of the last epoch, as a fraction of the peak.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        epochs: int,
        warmup_epochs: int = 5,
        min_fraction: float = 0.01,
    ) -> None:
        def scale(epoch: int) -> float:
            if epoch < warmup_epochs:
                return (epoch + 1) / (warmup_epochs + 1)
            done = min(1.0, (epoch - warmup_epochs) / max(1, epochs - 1 - warmup_epochs))
            return min_fraction + (1 - min_fraction) * 0.5 * (1 + math.cos(math.pi * done))

        super().__init__(optimizer, scale)


class WarmupCosineSteps(LambdaLR):
    """Linear warm-up from 0, then half a cosine down to a fraction of the rate, step by step.

    For recipes that are given in optimizer steps, such as that of Dinomaly.

    Args:
        optimizer: Its learning rates are those reached at the end of the warm-up.
        steps: Optimizer steps of the whole schedule; the task fills in those of the current stage. In a shorter
            run than the warm-up, the peak is not reached.
        warmup_steps: Steps of warm-up; step i (from 0) runs at i / (warmup_steps - 1) of the rate.
        min_fraction: Rate of the last step, as a fraction of the peak.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        steps: int,
        warmup_steps: int = 100,
        min_fraction: float = 0.1,
    ) -> None:
        def scale(step: int) -> float:
            if step < warmup_steps:
                return step / max(1, warmup_steps - 1)
            done = min(1.0, (step - warmup_steps) / max(1, steps - 1 - warmup_steps))
            return min_fraction + (1 - min_fraction) * 0.5 * (1 + math.cos(math.pi * done))

        super().__init__(optimizer, scale)


class OneCycle(OneCycleLR):
    """Up along half a cosine, then down to almost nothing along another, step by step.

    Args:
        optimizer: The rates of its groups are the peaks.
        steps: Optimizer steps of the whole schedule; the task fills in those of the current stage. The last of them
            runs at the lowest rate.
        pct_start: Share of the steps on the way up.
        div_factor: Peak over the first rate.
        final_div_factor: First rate over the last one.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        super().__init__(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=steps,
            pct_start=pct_start,
            div_factor=div_factor,
            final_div_factor=final_div_factor,
        )

    def step(self, epoch: int | None = None) -> None:
        """Move on to the rate of the next step; after the last one there is none."""
        if self.last_epoch + 1 < self.total_steps:
            super().step(epoch)


class MultiStep(MultiStepLR):
    """A constant rate that falls at some points of the training.

    Args:
        optimizer: Its learning rates are those of the start.
        epochs: Epochs of the whole schedule; the task fills in those of the current stage.
        milestones: Where the rate falls, as shares of the epochs.
        gamma: What the rate is multiplied by there.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        epochs: int,
        milestones: Sequence[float] = (0.8, 0.9),
        gamma: float = 0.2,
    ) -> None:
        super().__init__(optimizer, [round(share * epochs) for share in milestones], gamma)
