"""An exponential moving average of the weights, which validation, checkpoints and the final model use."""

from typing import Any

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class Ema(WeightAveraging):
    """Averages the weights after each optimizer step.

    An average that begins with the weights of the start would hold on to them for 1 / (1 - decay) steps, which a
    short training does not have. So the decay grows with the steps: (1 + n) / (10 + n), up to `decay`.

    Args:
        decay: Share of the old average that a step keeps, in [0, 1).
    """

    def __init__(self, *, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"callbacks.ema.decay={decay} is not in [0, 1)")
        self.decay = decay
        super().__init__(avg_fn=self._averaged)

    def _averaged(self, average: Tensor, current: Tensor, n_averaged: Any) -> Tensor:
        decay = min(self.decay, (1 + float(n_averaged)) / (10 + float(n_averaged)))
        if not average.is_floating_point():
            return current
        return average.lerp(
            current.to(average.dtype), 1 - decay
        )  # they differ with trainer.precision=64-true

    def on_stage_start(self) -> None:
        """Average only what the new stage does: its first step starts the average anew."""
        if self._average_model is not None:
            self._average_model.n_averaged.zero_()
