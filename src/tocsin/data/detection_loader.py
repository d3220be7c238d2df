"""Batches of square images with boxes: boxes brought to the square, and those chosen that may wear a patch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tocsin.batch import DetectionBatch
from tocsin.data.detection_data import DetectionSet
from tocsin.data.letterbox import SquareReader, placement, to_square


@dataclass(frozen=True, kw_only=True, eq=False)
class SquareBoxes:
    """Boxes of N square images, one image after another, the smallest box of each first.

    Nearer people are mostly larger: patches drawn in this order cover each other as people do.

    Attributes:
        boxes: (M, 4) float32, left, top, right, bottom in pixels of the square.
        target: (M,) bool, whether it may wear a patch.
        crowd: (M,) bool, whether it holds a group.
        counts: (N,) int64, boxes of each image.
    """

    boxes: np.ndarray
    target: np.ndarray
    crowd: np.ndarray
    counts: np.ndarray

    @property
    def owner(self) -> np.ndarray:
        """(M,) int64 image of each box, ascending."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def n_targets(self) -> np.ndarray:
        """(N,) int64 targets of each image."""
        return np.bincount(self.owner[self.target], minlength=len(self.counts))


def square_boxes(images: DetectionSet, *, size: int, min_height: float, max_boxes: int) -> SquareBoxes:
    """Bring the boxes of a set to squares and choose the targets.

    Args:
        images: N images.
        size: S, pixels of a side of the square.
        min_height: Least height of a target, in pixels of the square.
        max_boxes: Most targets of an image, the largest; no group is one.
    """
    boxes = to_square(images.boxes, images.owner, placement(images.sizes, size))
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    order = np.lexsort((width * height, images.owner))  # the owners are sorted already, and stay so
    eligible = (~images.crowd & (height >= min_height))[order]
    later = eligible[::-1].cumsum()[::-1]  # eligible boxes from each on, to the end of the set
    after_image = np.append(later, 0)[np.cumsum(images.counts)][
        images.owner
    ]  # of these, those of later images
    return SquareBoxes(
        boxes=boxes[order].astype(np.float32),
        target=eligible & (later - after_image <= max_boxes),
        crowd=images.crowd[order],
        counts=images.counts,
    )


class DetectionDataset(Dataset[DetectionBatch]):
    """Square images of a set with their boxes; `__getitems__` makes a whole batch at once.

    Args:
        images: N images.
        squares: Their boxes.
        reader: Reads those that are not in memory.
        stored: (N, 3, S, S) uint8 in memory; None to read from files.
    """

    def __init__(
        self, *, images: DetectionSet, squares: SquareBoxes, reader: SquareReader, stored: np.ndarray | None
    ) -> None:
        self.images = images
        self.squares = squares
        self.reader = reader
        self._stored = stored
        self._first = np.cumsum(squares.counts) - squares.counts  # (N,) index of the first box of each image

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> DetectionBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> DetectionBatch:
        """Gather B images, by their places in the set."""
        chosen = np.asarray(indices)
        counts = self.squares.counts[chosen]  # (B,)
        owner = np.repeat(np.arange(len(chosen)), counts)  # (n,)
        within = (
            np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
        )  # place among the boxes of its image
        boxes = self._first[chosen][owner] + within
        return DetectionBatch(
            image=self.pixels(chosen).float().div_(255),
            position=torch.from_numpy(chosen),
            boxes=torch.from_numpy(self.squares.boxes[boxes]),
            owner=torch.from_numpy(owner),
            target=torch.from_numpy(self.squares.target[boxes]),
            crowd=torch.from_numpy(self.squares.crowd[boxes]),
        )

    def pixels(self, chosen: np.ndarray) -> Tensor:
        """(B, 3, S, S) uint8 images."""
        if self._stored is not None:
            return torch.from_numpy(self._stored[chosen])
        paths = (self.images.paths[index] for index in chosen.tolist())
        return torch.from_numpy(np.stack([self.reader.pixels(path) for path in paths]))
