"""Splits of images with boxes: images with a target and those without are each dealt in their shares."""

from dataclasses import dataclass

import numpy as np

from tocsin.data.detection_data import DetectionSet

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class DetectionSplits:
    """Train, validation and test images; each of the first shows a target."""

    train: DetectionSet
    val: DetectionSet
    test: DetectionSet


def deal(worn: np.ndarray, *, test: float, val: float, seed: int) -> np.ndarray:
    """Deal images into splits, those with a target and those without each in their shares.

    Args:
        worn: (N,) bool, whether an image shows a target.
        test: Share of the images to test on.
        val: Share of the others that validate.
        seed: The same one deals the same.

    Returns:
        (N,) int64, index into `SPLITS`. Of three or more images with a target, every split has one.
    """
    rng = np.random.default_rng(seed)
    dealt = np.zeros(len(worn), dtype=np.int64)
    for kind in (True, False):
        own = rng.permutation(np.flatnonzero(worn == kind))
        n_test = round(test * len(own))
        n_val = round(val * (len(own) - n_test))
        if kind and len(own) >= len(SPLITS):
            n_test = min(max(1, n_test), len(own) - 2)
            n_val = min(max(1, n_val), len(own) - n_test - 1)
        dealt[own[:n_test]] = SPLITS.index("test")
        dealt[own[n_test : n_test + n_val]] = SPLITS.index("val")
    return dealt


def by_name(images: DetectionSet, *, limit: int | None, seed: int) -> DetectionSet:
    """Images in the order of their names, so that how they were stored changes no split.

    Args:
        images: N images.
        limit: How many to draw, if there are more; None keeps all.
        seed: The same one draws the same.
    """
    names = [path.as_posix() for path in images.paths]
    order = np.array(sorted(range(len(images)), key=names.__getitem__), dtype=np.int64)
    if limit is not None and limit < len(images):
        order = order[np.sort(np.random.default_rng(seed).choice(len(images), limit, replace=False))]
    return images.subset(order)
