"""Affiliation precision and recall: how near predictions and events are, against a random point.

Source: Huet, Navarro and Rossi, "Local Evaluation of Time Series Anomaly Detection Algorithms" (KDD 2022).
Every integral is taken in closed form, for all events at once. A point t of the discrete axis is the
interval [t, t + 1). The axis is split into one zone E_j per event A_j, halfway between events.

The known flaw: predictions that ignore the data reach an F1 near 0.67. Compare with that floor, not
with 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tocsin.metrics.events import segments
from tocsin.metrics.functional import PrecisionRecallF1, check_masks, harmonic_mean


class _Zones(NamedTuple):
    """One zone [low, high) around each event [start, end); all (S,) float64."""

    low: np.ndarray
    start: np.ndarray
    end: np.ndarray
    high: np.ndarray


def affiliation(
    predicted: np.ndarray, labels: np.ndarray, *, lengths: Sequence[int] | None = None
) -> PrecisionRecallF1:
    """Affiliation precision, recall and F1, macro-averaged over events.

    Precision of a zone is the mean, over its predicted points, of the chance that a random point of the
    zone is at least as far from the event; zones without prediction are left out. Recall of a zone is
    the mean, over the event, of the chance that a random point is at least as far as the nearest prediction;
    it is 0 without prediction.

    Args:
        predicted: (N,) bool or 0/1 in time order, true = alarm.
        labels: (N,) bool or 0/1 in time order, true = anomalous.
        lengths: Steps of each series if several lie end to end. Zones end at series borders; a series
            without an event has no zone, and predictions in it do not count.

    Returns:
        Values in [0, 1]. All NaN without an event; if no zone holds a prediction, precision is NaN, recall
        and F1 are 0.

    Raises:
        ValueError: If the arrays or `lengths` do not fit each other.
    """
    predicted, labels = check_masks(predicted, labels)
    events = segments(labels, lengths)
    if len(events) == 0:
        return PrecisionRecallF1(*[float("nan")] * 3)
    zones = _zones(events, lengths or [len(labels)])
    zone, begin, stop = _pieces(zones, segments(predicted, lengths))
    if len(zone) == 0:
        return PrecisionRecallF1(float("nan"), 0.0, 0.0)
    precision = _precision(zones, zone, begin, stop)
    recall = _recall(zones, zone, begin, stop)
    mean_precision, mean_recall = float(np.nanmean(precision)), float(recall.mean())
    return PrecisionRecallF1(mean_precision, mean_recall, harmonic_mean(mean_precision, mean_recall))


def _zones(events: np.ndarray, lengths: Sequence[int]) -> _Zones:
    start, end = events[:, 0].astype(np.float64), events[:, 1].astype(np.float64)
    borders = np.concatenate([[0], np.cumsum(lengths)])
    series = np.searchsorted(borders, events[:, 0], side="right") - 1
    low, high = borders[series].astype(np.float64), borders[series + 1].astype(np.float64)
    shared = series[1:] == series[:-1]
    middle = (end[:-1] + start[1:]) / 2
    low[1:] = np.where(shared, middle, low[1:])
    high[:-1] = np.where(shared, middle, high[:-1])
    return _Zones(low, start, end, high)


def _pieces(zones: _Zones, alarms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Alarms cut at zone borders: zone index, begin and stop of each piece, in order. (Q,) each."""
    cuts = np.unique(np.concatenate([zones.low, zones.high]))
    first = np.searchsorted(cuts, alarms[:, 0], side="right")
    n_cuts = np.searchsorted(cuts, alarms[:, 1], side="left") - first  # strictly inside the alarm
    owner = np.repeat(np.arange(len(alarms)), n_cuts)
    inner = cuts[np.arange(len(owner)) + np.repeat(first - np.cumsum(n_cuts) + n_cuts, n_cuts)]
    begin = np.sort(np.concatenate([alarms[:, 0], inner]))
    stop = np.sort(np.concatenate([alarms[:, 1], inner]))
    zone = np.searchsorted(zones.low, begin, side="right") - 1
    kept = (zone >= 0) & (begin < zones.high[zone])
    return np.asarray(zone[kept]), begin[kept], stop[kept]


def _precision(zones: _Zones, zone: np.ndarray, begin: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Precision of each zone, NaN where nothing is predicted. (S,) float64."""
    low, start, end, high = (bound[zone] for bound in zones)
    inside = np.maximum(np.minimum(stop, end) - np.maximum(begin, start), 0.0) * (high - low)
    earlier = _farther(np.maximum(start - stop, 0.0), np.maximum(start - begin, 0.0), start - low, high - end)
    later = _farther(np.maximum(begin - end, 0.0), np.maximum(stop - end, 0.0), start - low, high - end)
    total = np.bincount(zone, inside + earlier + later, minlength=len(zones.low))
    length = np.bincount(zone, stop - begin, minlength=len(zones.low))
    length[length == 0] = np.nan
    return np.asarray(total / length / (zones.high - zones.low))


def _farther(near: np.ndarray, far: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Integral over distances d in [near, far] of the length of the zone that is farther than d.

    The zone reaches `before` to the left and `after` to the right of its event.
    """
    return np.asarray(_ramp(before - far, before - near) + _ramp(after - far, after - near))


def _ramp(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Integral of max(0, x) over [low, high]."""
    return np.asarray((np.maximum(high, 0.0) ** 2 - np.maximum(low, 0.0) ** 2) / 2)


def _recall(zones: _Zones, zone: np.ndarray, begin: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Recall of each zone, 0 where nothing is predicted. (S,) float64."""
    low, start, end, high = (bound[zone] for bound in zones)
    # Each piece answers for the part [left, right) of its event that is nearer to it than to other pieces.
    left, right = start.copy(), end.copy()
    neighbours = zone[1:] == zone[:-1]
    middle = (stop[:-1] + begin[1:]) / 2
    left[1:] = np.where(neighbours, np.clip(middle, start[1:], end[1:]), left[1:])
    right[:-1] = np.where(neighbours, np.clip(middle, start[:-1], end[:-1]), right[:-1])

    inside = np.maximum(np.minimum(stop, right) - np.maximum(begin, left), 0.0) * (high - low)
    # Points y before the piece, at distance begin - y: farther are [low, 2y - begin) and [begin, high).
    y1 = np.minimum(begin, right)
    y0 = np.minimum(left, y1)
    before = (y1 - y0) * (high - begin) + _ramp(2 * y0 - begin - low, 2 * y1 - begin - low) / 2
    # Points y after the piece, at distance y - stop: farther are [low, stop) and [2y - stop, high).
    y0 = np.maximum(stop, left)
    y1 = np.maximum(right, y0)
    after = (y1 - y0) * (stop - low) + _ramp(high - 2 * y1 + stop, high - 2 * y0 + stop) / 2
    total = np.bincount(zone, inside + before + after, minlength=len(zones.low))
    return np.asarray(total / (zones.high - zones.low) / (zones.end - zones.start))
