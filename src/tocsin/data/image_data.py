"""A set of images as paths, labels and masks, and its shares."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Image files in a fixed order.

    Attributes:
        paths: N files.
        labels: (N,) bool, true = anomalous; None if not known.
        mask_paths: N mask files; None where there is none.
        classes: N names, such as good or scratch.
        metadata: N rows of what else is known of an image (condition, severity); a column `group` names images that
            show one object, which stay on one side of every split.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray | None
    mask_paths: tuple[Path | None, ...]
    classes: tuple[str, ...]
    metadata: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if value is not None and len(value) != len(self.paths):
                raise ValueError(f"{part.name} has {len(value)} entries for {len(self.paths)} paths")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def normal(self) -> np.ndarray:
        """(N,) bool, true where no anomaly is known."""
        return np.ones(len(self), dtype=bool) if self.labels is None else ~self.labels

    @property
    def groups(self) -> np.ndarray:
        """(N,) group of each image; each is its own where groups are not known."""
        if self.metadata is not None and "group" in self.metadata:
            return self.metadata["group"].to_numpy()
        return np.arange(len(self))

    def subset(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """The images at (M,) indices, in that order; a (N,) bool array picks where it is true."""
        chosen = np.asarray(indices)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        return ImageSet(
            paths=tuple(self.paths[index] for index in chosen),
            labels=None if self.labels is None else self.labels[chosen],
            mask_paths=tuple(self.mask_paths[index] for index in chosen),
            classes=tuple(self.classes[index] for index in chosen),
            metadata=None if self.metadata is None else self.metadata.iloc[chosen].reset_index(drop=True),
        )


@dataclass(frozen=True, kw_only=True)
class ImageSplits:
    """Train, validation and test images."""

    train: ImageSet
    val: ImageSet
    test: ImageSet


def join_sets(*parts: ImageSet) -> ImageSet:
    """Sets one after the other; labels and metadata stay where all have them. No set at all is an empty one."""
    labels = [part.labels for part in parts if part.labels is not None]
    frames = [part.metadata for part in parts if part.metadata is not None]
    return ImageSet(
        paths=tuple(path for part in parts for path in part.paths),
        labels=np.concatenate([np.zeros(0, dtype=bool), *labels]) if len(labels) == len(parts) else None,
        mask_paths=tuple(path for part in parts for path in part.mask_paths),
        classes=tuple(name for part in parts for name in part.classes),
        metadata=pd.concat(frames, ignore_index=True) if frames and len(frames) == len(parts) else None,
    )


def draw_share(images: ImageSet, fraction: float, seed: int) -> np.ndarray:
    """Draw a share of the images: about `fraction` of every class, whole groups at a time.

    A class of two groups or more gives at least one and keeps at least one; a class of one group keeps it.

    Args:
        images: N images. A group counts as of the class of its first image.
        fraction: In [0, 1).
        seed: The same one draws the same share.

    Returns:
        (N,) bool, true where drawn.
    """
    if fraction == 0:
        return np.zeros(len(images), dtype=bool)
    rng = np.random.default_rng(seed)
    _, first, group = np.unique(images.groups, return_index=True, return_inverse=True)
    class_of_group = np.asarray(images.classes)[first]
    drawn = np.zeros(len(first), dtype=bool)
    for name in np.unique(class_of_group):
        own = rng.permutation(np.flatnonzero(class_of_group == name))
        count = min(max(1, round(fraction * len(own))), len(own) - 1)
        drawn[own[:count]] = True
    return drawn[group]
