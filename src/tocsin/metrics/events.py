"""Metrics of binary predictions that count events instead of points.

Sources: range-based precision and recall, Tatbul et al. (NeurIPS 2018), with the constants of TSB-AD (Liu and
Paparrizos, NeurIPS 2024); event F1 as in TSB-AD; point adjustment and PA%K, Kim et al., "Towards a Rigorous
Evaluation of Time-Series Anomaly Detection" (AAAI 2022). Affiliation has its own file.

Everywhere: `predicted` and `labels` are (N,) bool or 0/1 in time order; an event is a run of anomalous
points, an alarm a run of predicted points; `lengths` gives the steps of each series where several lie end to
end, and runs end at their borders. Point-adjusted F1 flatters: a random score can reach 0.8. Show it only
beside the plain F1.
"""

from collections.abc import Sequence

import numpy as np

from tocsin.metrics.functional import (
    PrecisionRecallF1,
    check_masks,
    harmonic_mean,
    precision_recall_f1,
)

EXISTENCE_WEIGHT = 0.2  # alpha of Tatbul's recall, the value of TSB-AD
PA_K_GRID = tuple(range(0, 101, 10))


def segments(mask: np.ndarray, lengths: Sequence[int] | None = None) -> np.ndarray:
    """Runs of true points.

    Args:
        mask: (N,) bool.
        lengths: Steps of each series; a run that crosses a border becomes two. None is one series.

    Returns:
        (S, 2) int64, one row [start, end) per run, in order.

    Raises:
        ValueError: If `lengths` do not sum to N.
    """
    change = np.diff(np.asarray(mask, dtype=np.int8), prepend=0, append=0)
    start, end = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    if lengths is not None:
        if sum(lengths) != len(mask):
            raise ValueError(f"lengths sum to {sum(lengths)}, but there are {len(mask)} points")
        border = np.unique(np.cumsum(lengths)[:-1])
        border = border[(border > 0) & (border < len(mask))]
        crossed = border[mask[border - 1] & mask[border]]
        start, end = np.sort(np.append(start, crossed)), np.sort(np.append(end, crossed))
    return np.stack([start, end], axis=1)


def drop_short(mask: np.ndarray, shortest: int, lengths: Sequence[int] | None = None) -> np.ndarray:
    """Without the runs of fewer than `shortest` points.

    Args:
        mask: (N,) bool.
        shortest: Fewest points of a run that stays.
        lengths: Steps of each series; a run ends at a border.

    Returns:
        (N,) bool.
    """
    if shortest <= 1:
        return mask
    runs = segments(mask, lengths)
    kept = runs[runs[:, 1] - runs[:, 0] >= shortest]
    change = np.zeros(len(mask) + 1, dtype=np.int64)
    np.add.at(change, kept[:, 0], 1)
    np.add.at(change, kept[:, 1], -1)
    return np.asarray(change.cumsum()[:-1] > 0)


def range_precision_recall_f1(
    predicted: np.ndarray, labels: np.ndarray, *, lengths: Sequence[int] | None = None
) -> PrecisionRecallF1:
    """Range-based precision, recall and F1: flat bias, cardinality 1 / number of overlapping runs.

    Recall rewards finding an event at all with weight 0.2, precision has no such reward.

    Returns:
        Values in [0, 1]. All NaN without an event; without an alarm precision is NaN, recall and F1 are 0.

    Raises:
        ValueError: If the arrays or `lengths` do not fit each other.
    """
    predicted, labels = check_masks(predicted, labels)
    events, alarms = segments(labels, lengths), segments(predicted, lengths)
    if len(events) == 0:
        return PrecisionRecallF1(*[float("nan")] * 3)
    found = _overlap(events, predicted) > 0
    recall = EXISTENCE_WEIGHT * found + (1 - EXISTENCE_WEIGHT) * _overlap_reward(events, alarms, predicted)
    precision = float(_overlap_reward(alarms, events, labels).mean()) if len(alarms) else float("nan")
    return PrecisionRecallF1(precision, float(recall.mean()), harmonic_mean(precision, recall.mean()))


def event_recall(predicted: np.ndarray, labels: np.ndarray, *, lengths: Sequence[int] | None = None) -> float:
    """Share of events with at least one predicted point, in [0, 1]; NaN without an event.

    Raises:
        ValueError: If the arrays or `lengths` do not fit each other.
    """
    predicted, labels = check_masks(predicted, labels)
    events = segments(labels, lengths)
    return float(np.mean(_overlap(events, predicted) > 0)) if len(events) else float("nan")


def event_f1(predicted: np.ndarray, labels: np.ndarray, *, lengths: Sequence[int] | None = None) -> float:
    """Harmonic mean of event recall and point precision, in [0, 1]; NaN without an event.

    Raises:
        ValueError: If the arrays or `lengths` do not fit each other.
    """
    precision = precision_recall_f1(predicted, labels).precision
    return harmonic_mean(precision, event_recall(predicted, labels, lengths=lengths))


def false_alarms_per_1000(
    predicted: np.ndarray, labels: np.ndarray, *, lengths: Sequence[int] | None = None
) -> float:
    """Alarms (runs of predicted points) that touch no event, per 1000 points of the series.

    Returns:
        A number >= 0, lower is better; defined without events too.

    Raises:
        ValueError: If the arrays or `lengths` do not fit each other, or are empty.
    """
    predicted, labels = check_masks(predicted, labels)
    if len(labels) == 0:
        raise ValueError("false_alarms_per_1000 needs at least one point")
    alarms = segments(predicted, lengths)
    return float(1000 * np.count_nonzero(_overlap(alarms, labels) == 0) / len(labels))


def detection_delay(
    predicted: np.ndarray, labels: np.ndarray, *, lengths: Sequence[int] | None = None
) -> float:
    """Mean number of steps from the start of an event to its first predicted point.

    Missed events do not count: read it beside `event_recall`.

    Returns:
        Steps >= 0, lower is better; NaN if no event is found.

    Raises:
        ValueError: If the arrays or `lengths` do not fit each other.
    """
    predicted, labels = check_masks(predicted, labels)
    events = segments(labels, lengths)
    hits = np.append(np.flatnonzero(predicted), len(predicted))
    first = hits[np.searchsorted(hits, events[:, 0])]
    found = first < events[:, 1]
    return float((first - events[:, 0])[found].mean()) if found.any() else float("nan")


def point_adjust_f1(
    predicted: np.ndarray, labels: np.ndarray, *, lengths: Sequence[int] | None = None
) -> float:
    """F1 after one hit has marked its whole event. Never a headline: see the module docstring.

    Raises:
        ValueError: If the arrays or `lengths` do not fit each other.
    """
    return pa_k_f1(predicted, labels, 0, lengths=lengths)


def pa_k_f1(
    predicted: np.ndarray, labels: np.ndarray, k: float, *, lengths: Sequence[int] | None = None
) -> float:
    """F1 after marking whole those events of which more than `k` percent were predicted.

    Args:
        predicted: (N,) bool or 0/1, true = alarm.
        labels: (N,) bool or 0/1, true = anomalous.
        k: Percent in [0, 100]; 0 is point adjustment, 100 the plain F1.
        lengths: Steps of each series.

    Returns:
        A number in [0, 1]; NaN without an event.

    Raises:
        ValueError: If the arrays or `lengths` do not fit each other, or `k` is out of range.
    """
    if not 0 <= k <= 100:
        raise ValueError(f"k is a percentage in [0, 100], got {k}")
    predicted, labels = check_masks(predicted, labels)
    events = segments(labels, lengths)
    length = events[:, 1] - events[:, 0]
    adjusted = 100 * _overlap(events, predicted) > k * length
    gained = (length - _overlap(events, predicted))[adjusted].sum()
    n_true, n_alarms = np.count_nonzero(labels), np.count_nonzero(predicted)
    if n_true == 0:
        return float("nan")
    hits = np.count_nonzero(predicted & labels)
    return float(2 * (hits + gained) / (n_alarms + gained + n_true))


def pa_k_area(predicted: np.ndarray, labels: np.ndarray, *, lengths: Sequence[int] | None = None) -> float:
    """Area under `pa_k_f1` over K in {0, 10, ..., 100} percent, in [0, 1]; NaN without an event.

    Raises:
        ValueError: If the arrays or `lengths` do not fit each other.
    """
    curve = [pa_k_f1(predicted, labels, k, lengths=lengths) for k in PA_K_GRID]
    return float(np.trapezoid(curve, PA_K_GRID) / 100)


def _overlap(runs: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Number of true points of `mask` in each run. (S,) int64."""
    total = np.concatenate([[0], np.cumsum(mask)])
    return np.asarray(total[runs[:, 1]] - total[runs[:, 0]])


def _overlap_reward(runs: np.ndarray, others: np.ndarray, other_mask: np.ndarray) -> np.ndarray:
    """Covered share of each run, divided by the number of other runs that cover it. (S,) in [0, 1]."""
    begun = np.searchsorted(others[:, 0], runs[:, 1], side="left")
    ended = np.searchsorted(others[:, 1], runs[:, 0], side="right")
    share = _overlap(runs, other_mask) / (runs[:, 1] - runs[:, 0])
    return np.asarray(share / np.maximum(begun - ended, 1))
