"""What travels between datamodules, tasks and detectors: shapes, dtypes and ranges in one place."""

from typing import NamedTuple

from torch import Tensor


class SeriesBatch(NamedTuple):
    """Windows of one or several time series.

    Attributes:
        x: (B, T, C) float32, standardised per channel with statistics of the train split.
        start: (B,) int64, step of each window's first point on the time axis of its split.
        labels: (B, T) bool, true = anomalous; None where the split has no labels. Only the
            semi-supervised options may read it in training.
    """

    x: Tensor
    start: Tensor
    labels: Tensor | None = None
