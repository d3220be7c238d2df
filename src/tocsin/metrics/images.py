"""Exact metrics of image scores and of anomaly maps.

AUPRO: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 5.1: the area under the per-region
overlap over the false positive rate, up to a limit. What differs: there is a threshold at every distinct score, where
common code takes a few hundred, and the curve is cut exactly at the limit, so that the area never exceeds 1.

No threshold is looped over. A pixel of a region adds its share to the overlap once the threshold falls to its score.
What it adds to an area under a curve depends only on how many normal pixels score higher; that is read from one sort.

Everywhere: maps are finite, any range, higher = more anomalous; only their order counts. A value that the data cannot
define is NaN, never 0.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tocsin.metrics.functional import auc_pr, auc_roc, check_scores, precision_recall_f1

# Pixels that touch by an edge or a corner belong together; images, the first axis, never do.
_NEIGHBOURS = np.stack([np.zeros((3, 3), bool), np.ones((3, 3), bool), np.zeros((3, 3), bool)])


class _RankedPixels(NamedTuple):
    """Each anomalous pixel, from the lowest score to the highest, among the normal ones.

    Attributes:
        score: (A,) rising.
        place: (A,) int64 of each pixel in `masks[masks]`.
        above: (A,) int64, normal pixels with a higher score.
        not_below: (A,) int64, normal pixels with a higher or the same score.
        n_normal: All normal pixels.
    """

    score: np.ndarray
    place: np.ndarray
    above: np.ndarray
    not_below: np.ndarray
    n_normal: int


def aupro(maps: np.ndarray, masks: np.ndarray, *, fpr_limit: float = 0.3) -> float:
    """Area under the per-region overlap up to a false positive rate, divided by that rate.

    A region is a set of anomalous pixels that touch by an edge or a corner. Its overlap is the share of its pixels
    that score at least the threshold; every region weighs the same, whatever its size. The false positive rate is
    the share of the normal pixels of all images that do. Between two thresholds the curve is a straight line.

    Args:
        maps: (N, H, W) finite, any range, higher = more anomalous.
        masks: (N, H, W) bool or 0/1, true = anomalous; all false for a normal image.
        fpr_limit: Highest false positive rate, in (0, 1].

    Returns:
        A number in [0, 1]: 1 if each anomalous pixel scores above each normal one, `fpr_limit / 2` for a constant map
        and about that for a random one. NaN without an anomalous or without a normal pixel.

    Raises:
        ValueError: If the arrays do not fit each other, hold NaN, or `fpr_limit` is out of range.
    """
    maps, masks = _check_maps(maps, masks)
    _check_limit(fpr_limit)
    return _aupro(_rank(maps, masks), masks, fpr_limit)


def pixel_auroc(maps: np.ndarray, masks: np.ndarray) -> float:
    """Area under the ROC curve of all pixels: the chance that an anomalous one scores above a normal one.

    Args:
        maps: (N, H, W) finite, any range, higher = more anomalous. Ties count one half.
        masks: (N, H, W) bool or 0/1, true = anomalous.

    Returns:
        A number in [0, 1]; 0.5 for a constant map; NaN without an anomalous or without a normal pixel.

    Raises:
        ValueError: If the arrays do not fit each other, or hold NaN.
    """
    return _auroc(_rank(*_check_maps(maps, masks)))


def pixel_ap(maps: np.ndarray, masks: np.ndarray) -> float:
    """Average precision of all pixels, the step sum of scikit-learn.

    Args:
        maps: (N, H, W) finite, any range, higher = more anomalous.
        masks: (N, H, W) bool or 0/1, true = anomalous.

    Returns:
        A number in (0, 1]; the share of anomalous pixels for a constant map; NaN without an anomalous pixel.

    Raises:
        ValueError: If the arrays do not fit each other, or hold NaN.
    """
    return _average_precision(_rank(*_check_maps(maps, masks)))


def pixel_metrics(
    maps: np.ndarray, masks: np.ndarray, known: np.ndarray, *, fpr_limit: float = 0.3
) -> dict[str, float]:
    """All metrics of anomaly maps, for less than the price of two.

    Args:
        maps: (N, H, W) finite, any range, higher = more anomalous.
        masks: (N, H, W) bool or 0/1, true = anomalous.
        known: (N,) bool: images whose mask is known, normal ones included. The rest is left out, as an anomalous
            image without a mask would count as normal pixels.
        fpr_limit: Highest false positive rate of `aupro`, in (0, 1].

    Returns:
        `pixel_auroc pixel_ap aupro`, in [0, 1]. NaN where undefined: all without an anomalous pixel, `pixel_auroc`
        and `aupro` without a normal one.

    Raises:
        ValueError: If the arrays do not fit each other, hold NaN, or `fpr_limit` is out of range.
    """
    maps, masks = _check_maps(maps, masks)
    _check_limit(fpr_limit)
    known = np.asarray(known)
    if known.shape != maps.shape[:1] or known.dtype != bool:
        raise ValueError(
            f"known must be bool, one per image, {maps.shape[:1]}, got {known.dtype} {known.shape}"
        )
    if not known.all():
        maps, masks = maps[known], masks[known]
    ranked = _rank(maps, masks)
    return {
        "pixel_auroc": _auroc(ranked),
        "pixel_ap": _average_precision(ranked),
        "aupro": _aupro(ranked, masks, fpr_limit),
    }


def image_metrics(scores: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, float]:
    """Metrics of one score per image: two of the order, and three of the alarms at a threshold.

    Args:
        scores: (N,) finite, any range, higher = more anomalous.
        labels: (N,) bool or 0/1, true = anomalous.
        threshold: In units of the score; an image is an alarm if `score >= threshold`.

    Returns:
        `image_auroc image_ap image_f1 image_precision image_recall`, in [0, 1]. NaN where undefined: all without an
        anomalous image, `image_auroc` without a normal one, `image_precision` without an alarm.

    Raises:
        ValueError: If the arrays do not fit each other, hold NaN, or the threshold is NaN.
    """
    if np.isnan(threshold):
        raise ValueError("the threshold is NaN: no image could be an alarm")
    scores, labels = check_scores(scores, labels)
    alarms = precision_recall_f1(scores >= threshold, labels)
    return {
        "image_auroc": auc_roc(scores, labels),
        "image_ap": auc_pr(scores, labels),
        "image_f1": alarms.f1,
        "image_precision": alarms.precision,
        "image_recall": alarms.recall,
    }


def _check_maps(maps: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps as finite float32 or float64, and masks as bool, both (N, H, W)."""
    maps, masks = np.asarray(maps), np.asarray(masks)
    if maps.dtype not in (np.float32, np.float64):
        maps = maps.astype(np.float64)
    if maps.ndim != 3 or maps.size == 0:
        raise ValueError(f"maps must be (images, height, width) and not empty, got shape {maps.shape}")
    if masks.shape != maps.shape:
        raise ValueError(f"maps have shape {maps.shape}, but masks {masks.shape}: one mask per map is needed")
    if not np.isfinite(maps).all():
        bad = np.flatnonzero(~np.isfinite(maps).all(axis=(1, 2)))
        raise ValueError(
            f"{len(bad)} of {len(maps)} maps hold NaN or infinite scores, the first at index {bad[0]}: "
            "check the detector for non-finite outputs"
        )
    if masks.dtype != bool:
        other = (masks != 0) & (masks != 1)
        if other.any():
            raise ValueError(f"masks must be bool or 0 and 1, got {masks[other][0]!s}")
        masks = masks.astype(bool)
    return maps, masks


def _check_limit(fpr_limit: float) -> None:
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit={fpr_limit} is not in (0, 1]")


def _rank(maps: np.ndarray, masks: np.ndarray) -> _RankedPixels:
    normal, anomalous = np.sort(maps[~masks]), maps[masks]
    place = np.argsort(anomalous)
    score = anomalous[place]
    return _RankedPixels(
        score=score,
        place=place,
        above=len(normal) - np.searchsorted(normal, score, "right"),
        not_below=len(normal) - np.searchsorted(normal, score, "left"),
        n_normal=len(normal),
    )


def _auroc(ranked: _RankedPixels) -> float:
    if ranked.n_normal == 0 or len(ranked.score) == 0:
        return float("nan")
    passed = int(ranked.above.sum()) + int(ranked.not_below.sum())  # twice, so that ties count one half
    return 1 - passed / (2 * ranked.n_normal * len(ranked.score))


def _average_precision(ranked: _RankedPixels) -> float:
    if len(ranked.score) == 0:
        return float("nan")
    found = len(ranked.score) - np.searchsorted(ranked.score, ranked.score)
    return float(np.mean(found / (found + ranked.not_below)))


def _aupro(ranked: _RankedPixels, masks: np.ndarray, fpr_limit: float) -> float:
    if ranked.n_normal == 0 or len(ranked.score) == 0:
        return float("nan")
    # In units of one normal pixel, the curve ends at `limit`. A pixel's part of it rises in a straight line while the
    # normal pixels of the same score pass the threshold, then stays at 1.
    limit = fpr_limit * ranked.n_normal
    start, end = ranked.above.clip(max=limit), ranked.not_below.astype(np.float64)
    risen = np.minimum(limit, end) - start  # how long it rises before the limit
    slope = 1 / np.maximum(end - start, 1)
    area = risen**2 * slope / 2 + np.maximum(limit - end, 0)
    pixels = np.empty(len(area))
    pixels[ranked.place] = area / limit
    return float(_region_means(pixels, masks).mean())


def _region_means(values: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Mean of each region (R,) of values (A,), which belong to the anomalous pixels in order."""
    numbered, _ = ndimage.label(masks, _NEIGHBOURS)  # from 1; 0 is what is normal
    region = numbered[masks] - 1
    return np.bincount(region, values) / np.bincount(region)
