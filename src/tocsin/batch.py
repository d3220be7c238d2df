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


class ImageBatch(NamedTuple):
    """Images of one size.

    Attributes:
        image: (B, 3, H, W) float32; integer files in [0, 1], float files as stored. A single channel is repeated.
        position: (B,) int64, place of each image in its split. Draws that must be the same in each epoch, as for a
            synthetic validation set, are seeded with it.
        label: (B,) bool, true = anomalous; None where the split has no labels.
    """

    image: Tensor
    position: Tensor
    label: Tensor | None = None


class ClassBatch(NamedTuple):
    """Images of one size, each of one class.

    Attributes:
        image: (B, 3, H, W) float32; integer files in [0, 1], float files as stored. A single channel is repeated.
        position: (B,) int64, place of each image in its split.
        label: (B,) int64, class of each image in [0, K); None where the classes are not known.
    """

    image: Tensor
    position: Tensor
    label: Tensor | None = None
