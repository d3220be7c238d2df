"""Volume under the surface: ranking quality that forgives a small shift in time.

Source: Paparrizos et al., "Volume Under the Surface" (PVLDB 15(11), 2022), as computed by TSB-AD (Liu and
Paparrizos, NeurIPS 2024; `RangeAUC_volume_opt`). Around every event a buffer of l // 2 points earns a part of
the credit; VUS is the mean of the range-AUC over l = 0..buffer.

The original evaluates buffer * thresholds * points weights. The same numbers follow from three facts:
- a point is predicted from one threshold rank on, so each point is put in its bucket once;
- buffer weights are at least sqrt(1/2), so a point reached by two events has weight 1, and one reached by
  one event depends on its distance alone: counts by (distance, bucket) are enough for every l;
- a region is found from the smallest bucket in it, which grows by two points as l // 2 grows by one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tocsin.metrics.events import segments
from tocsin.metrics.functional import check_scores


class Vus(NamedTuple):
    """VUS-PR and VUS-ROC. Rank by `pr`: the floor of `roc` for a random score is above 0.5."""

    pr: float
    roc: float


def vus(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    buffer: int = 100,
    n_thresholds: int = 250,
    lengths: Sequence[int] | None = None,
) -> Vus:
    """VUS-PR and VUS-ROC of the points of one or several series, in time order.

    The numbers depend on `buffer`: state it. TSB-AD uses `acf_period` of channel 0.

    Args:
        scores: (N,) finite, any range, higher = more anomalous.
        labels: (N,) bool or 0/1, true = anomalous.
        buffer: Widest buffer W, in points; half of it lies on each side of an event.
        n_thresholds: Number of thresholds, at equally spaced ranks of the sorted score.
        lengths: Steps of each series if several lie end to end. Buffers and events then end at series
            borders, while thresholds are shared. For a macro mean call `vus` per series instead.

    Returns:
        Values from 0 (worst) to 1. Both are NaN if no point is anomalous; `roc` is NaN if all are.

    Raises:
        ValueError: If the arrays do not fit each other, hold NaN, or an argument is out of range.
    """
    scores, labels = check_scores(scores, labels)
    if buffer < 0:
        raise ValueError(f"buffer must be at least 0, got {buffer}")
    if n_thresholds < 2:
        raise ValueError(f"n_thresholds must be at least 2, got {n_thresholds}")
    n, n_true = len(labels), int(np.count_nonzero(labels))
    if n_true == 0:
        return Vus(float("nan"), float("nan"))

    bucket = _bucket(scores, n_thresholds)
    alarms = _cumulative(bucket, n_thresholds)  # N_pred
    hits = _cumulative(bucket[labels], n_thresholds)
    events, bucket = _padded(segments(labels, lengths), bucket, n_thresholds, buffer // 2, lengths or [n])
    credit = _buffer_credit(events, bucket, n_thresholds, buffer)
    existence = _existence(events, bucket, n_thresholds, buffer // 2)

    true_positive = hits + credit  # (W + 1, K) from here on
    positive = n_true + credit / 2  # P_l = (P + N_lab) / 2 with N_lab = P + credit
    recall = np.minimum(true_positive / positive, 1.0)
    tpr = recall * existence[np.arange(buffer + 1) // 2]
    precision = true_positive / alarms
    average_precision = (np.diff(tpr, axis=1, prepend=0.0) * precision).sum(axis=1)
    if n_true == n:
        return Vus(float(average_precision.mean()), float("nan"))
    fpr = (alarms - true_positive) / (n - positive)
    ends = ((0, 0), (1, 1))
    tpr = np.pad(tpr, ends, constant_values=(0.0, 1.0))
    fpr = np.pad(fpr, ends, constant_values=(0.0, 1.0))
    return Vus(float(average_precision.mean()), float(np.trapezoid(tpr, fpr, axis=1).mean()))


def _bucket(scores: np.ndarray, n_thresholds: int) -> np.ndarray:
    """Index of the first threshold, from the highest, that predicts each point. (N,) int64 in [0, K)."""
    ranks = np.linspace(0, len(scores) - 1, n_thresholds).astype(int)
    rising = np.sort(scores)[::-1][ranks][::-1]
    return n_thresholds - np.searchsorted(rising, scores, side="right")


def _cumulative(bucket: np.ndarray, n_thresholds: int) -> np.ndarray:
    """Number of points predicted at each threshold. (K,) int64."""
    return np.cumsum(np.bincount(bucket, minlength=n_thresholds + 1)[:n_thresholds])


def _padded(
    events: np.ndarray, bucket: np.ndarray, n_thresholds: int, half: int, lengths: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Events and buckets on an axis with room around each series, so that no buffer crosses a border.

    Points of the padding get bucket K: no threshold predicts them.
    """
    gap = 2 * half + 1
    series = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(bucket)) + half + gap * series
    padded = np.full(position[-1] + half + 2, n_thresholds)
    padded[position] = bucket
    start, last = position[events[:, 0]], position[events[:, 1] - 1]
    return np.stack([start, last], axis=1), padded


def _buffer_credit(events: np.ndarray, bucket: np.ndarray, n_thresholds: int, buffer: int) -> np.ndarray:
    """Sum of the soft labels of predicted buffer points, per l and threshold. (W + 1, K) float64."""
    distance, second, reached = _reached_points(events, bucket, n_thresholds, buffer // 2)
    flat = np.bincount(distance * n_thresholds + reached, minlength=(buffer // 2 + 1) * n_thresholds)
    once = flat.reshape(buffer // 2 + 1, n_thresholds).astype(np.float64)  # by distance, bucket
    twice = np.zeros(n_thresholds)
    order = np.argsort(second, kind="stable")
    turns = np.searchsorted(second[order], np.arange(buffer // 2 + 2))
    credit = np.zeros((buffer + 1, n_thresholds))
    for half in range(buffer // 2 + 1):
        turned = order[turns[half] : turns[half + 1]]  # a second event reaches them now
        np.subtract.at(once, (distance[turned], reached[turned]), 1.0)
        twice += np.bincount(reached[turned], minlength=n_thresholds)
        for width in range(max(2 * half, 1), min(2 * half + 1, buffer) + 1):
            weight = np.sqrt(1.0 - np.arange(1, half + 1) / width)
            credit[width] = weight @ once[1 : half + 1] + twice
    return np.cumsum(credit, axis=1)


def _reached_points(
    events: np.ndarray, bucket: np.ndarray, n_thresholds: int, half: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normal points within `half` of an event: distances to the nearest two, and buckets. (M,) each."""
    inside = np.zeros(len(bucket) + 1, dtype=np.int64)
    inside[events[:, 0]] += 1
    seen = np.cumsum(inside)[:-1]  # events begun so far
    inside[events[:, 1] + 1] -= 1
    point = np.flatnonzero((np.cumsum(inside)[:-1] == 0) & (bucket < n_thresholds))
    far = 2 * len(bucket)
    last = np.concatenate([[-far, -far], events[:, 1]])
    start = np.concatenate([events[:, 0], [far, far]])
    seen = seen[point]
    left, right = point - last[seen + 1], start[seen] - point
    nearest = np.minimum(left, right)
    beyond = np.minimum(point - last[seen], start[seen + 1] - point)
    second = np.minimum(np.maximum(left, right), beyond)
    near = nearest <= half
    return nearest[near], second[near], bucket[point[near]]


def _existence(events: np.ndarray, bucket: np.ndarray, n_thresholds: int, half: int) -> np.ndarray:
    """Share of regions with a predicted point, per l // 2 and threshold. (half + 1, K) float64."""
    start, last = events.T
    bounds = np.stack([start, last + 1], axis=1).ravel()
    lowest = np.minimum.reduceat(bucket, bounds)[::2]
    existence = np.empty((half + 1, n_thresholds))
    for reach in range(half + 1):
        lowest = np.minimum(lowest, np.minimum(bucket[start - reach], bucket[last + reach]))
        apart = last[:-1] + reach < start[1:] - reach  # else the two regions merge
        first = np.concatenate([[0], np.flatnonzero(apart) + 1])
        regions = np.minimum.reduceat(lowest, first)
        existence[reach] = _cumulative(regions, n_thresholds) / len(first)
    return existence
