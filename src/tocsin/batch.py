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


class DetectionBatch(NamedTuple):
    """Square images with the objects of one class in them; boxes of all images stand one after another.

    Attributes:
        image: (B, 3, S, S) float32 in [0, 1], scaled to fit and padded with gray.
        position: (B,) int64, place of each image in its split.
        boxes: (N, 4) float32, left, top, right, bottom in pixels of the square image.
        owner: (N,) int64, index in this batch of the image a box belongs to, ascending.
        target: (N,) bool, whether an object is large and distinct enough to wear a patch.
        crowd: (N,) bool, whether a box holds a group: it never wears a patch, and detections in it count for nothing.
    """

    image: Tensor
    position: Tensor
    boxes: Tensor
    owner: Tensor
    target: Tensor
    crowd: Tensor
