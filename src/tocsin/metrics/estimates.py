"""A number with its interval, from drawing images again.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13: percentile intervals. A detection or a
person is never drawn by itself: those of one image are alike, and an interval over them would be too narrow. Two
numbers of the same images with the same seed are drawn together, so that their resamples may be subtracted.
"""

from typing import NamedTuple

import numpy as np

from tocsin.metrics.bootstrap import RESAMPLES, percentile_interval, resample_counts
from tocsin.metrics.classification import ratio


class Estimate(NamedTuple):
    """A measured number.

    Attributes:
        value: Of the images as they are.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def estimate(value: float, resampled: np.ndarray) -> Estimate:
    """A value with the interval of what (n,) resamples made of it; NaN ends where none is defined."""
    return Estimate(value, *percentile_interval(resampled))


def ratio_estimate(part: np.ndarray, whole: np.ndarray, *, n: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The sum of `part` over the sum of `whole`, such as persons lost over persons found.

    Args:
        part: (I,) what each image adds above the line.
        whole: (I,) what it adds below.
        n: Number of resamples; 0 for no interval, as for the many points of a sweep.
        seed: Of the draws.

    Returns:
        All NaN where the sum of `whole` is 0; no interval for a single image, of which nothing can be drawn again.

    Raises:
        ValueError: There is no image, or the arrays are of different lengths.
    """
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    if part.ndim != 1 or part.shape != whole.shape or not len(part):
        raise ValueError(
            f"part has shape {part.shape} and whole {whole.shape}: give one number of each per image"
        )
    value = ratio(part.sum(), whole.sum())
    if len(part) == 1 or n == 0:
        return Estimate(float(value), float("nan"), float("nan"))
    both = np.stack([part, whole], axis=1)  # (I, 2)
    drawn = np.concatenate([counts @ both for counts in resample_counts(len(part), n, seed)])  # (n, 2)
    return estimate(float(value), ratio(drawn[:, 0], drawn[:, 1]))
