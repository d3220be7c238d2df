"""What the baselines on windows share: short windows inside the long ones, collected once."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from tocsin.batch import SeriesBatch
from tocsin.models.base import FitOnceDetector, SeriesDetector


class WindowBaseline(FitOnceDetector, SeriesDetector):
    """Cuts the windows of a batch into shorter ones, which the method sees as vectors.

    Args:
        window: Steps T of the windows of a batch.
        n_channels: Channels C.
        length: Steps L of the short windows; cut to T.
        step: Steps between short windows when scoring.
        max_rows: Most short windows that are kept for fitting, evenly over the batches.
        seed: Seed of the method.
    """

    def __init__(
        self, *, window: int, n_channels: int, length: int, step: int, max_rows: int, seed: int
    ) -> None:
        super().__init__()
        self.length = min(length, window)
        self.n_channels = n_channels
        self.step = min(step, self.length)
        self.max_rows = max_rows
        self.seed = seed
        self._rows: list[Tensor] = []
        # Mean error of the training rows: the unit of the loss.
        self.register_buffer("unit", torch.ones(()))
        self.unit: Tensor

    @property
    def width(self) -> int:
        """Numbers L * C in a short window."""
        return self.length * self.n_channels

    def collect(self, batch: SeriesBatch) -> None:
        starts = range(0, batch.x.shape[1] - self.length + 1, self.length)
        self._rows.append(self._cut(self.share.whole(batch.x), starts).cpu())

    def finish(self) -> None:
        rows = torch.cat(self._rows)
        self._rows = []
        if len(rows) > self.max_rows:
            rows = rows[torch.linspace(0, len(rows) - 1, self.max_rows).long()]
        self.fit(rows)
        self.unit.fill_(self.deviations_of(rows.to(self.unit.device)).mean().clamp(min=1e-12))

    @abstractmethod
    def fit(self, rows: Tensor) -> None:
        """Fit on (R, L * C) short windows."""

    @abstractmethod
    def deviations_of(self, rows: Tensor) -> Tensor:
        """Error (R, L * C) >= 0 of each number of (R, L * C) short windows, or (R, L) one for each step."""

    def loss(self, batch: SeriesBatch) -> dict[str, Tensor]:
        """Mean error, in units of that of the training rows."""
        return {"loss": self.deviations(batch.x).mean() / self.unit}

    def deviations(self, x: Tensor) -> Tensor:
        """Errors in the short windows, averaged where they overlap; without a sign."""
        B, T, _ = x.shape
        starts = self._starts(T)
        found = self.deviations_of(self._cut(x, starts))
        found = found.reshape(B, len(starts), self.length, -1)  # (B, S, L, K)
        total = found.new_zeros(B, T, found.shape[-1])
        count = found.new_zeros(T, 1)
        for index, start in enumerate(starts):
            total[:, start : start + self.length] += found[:, index]
            count[start : start + self.length] += 1
        return total / count

    def _starts(self, n_steps: int) -> list[int]:
        last = n_steps - self.length
        return sorted({*range(0, last + 1, self.step), last})

    def _cut(self, x: Tensor, starts: Sequence[int]) -> Tensor:
        """(B * S, L * C) short windows of (B, T, C)."""
        rows = torch.stack([x[:, start : start + self.length] for start in starts], dim=1)  # (B, S, L, C)
        return rows.reshape(-1, self.width)
