"""From scores per time step to the numbers of a report.

A *sample* is what gets one label as a whole. Short series (less than `SAMPLE_WINDOWS` windows) are samples
themselves; a long series is cut into consecutive windows. The score of a sample is the mean of its highest
point scores (`topk_mean`), because a plain mean dilutes spikes and a plain maximum follows the noise.

Every function here is pure. Labels of the test split enter in `evaluate` alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from tocsin.errors import ConfigError
from tocsin.metrics.events import drop_short
from tocsin.metrics.functional import auc_roc, best_f1, precision_recall_f1
from tocsin.metrics.series import threshold_free_metrics, thresholded_metrics
from tocsin.metrics.thresholds import Threshold

SAMPLE_WINDOWS = 10  # a series shorter than so many windows is one sample
TOP_SHARE = 0.05  # share of the points of a sample that topk_mean averages

AGGREGATIONS = ("topk_mean", "mean", "max")


@dataclass(frozen=True)
class Calibration:
    """What validation scores say: where an alarm begins.

    Attributes:
        method: Name of the threshold method that was used.
        point: Alarm for a point where score >= point.
        sample: Alarm for a sample where its score >= sample.
        min_duration: Steps that a score must stay there for an alarm.
    """

    method: str
    point: float
    sample: float
    min_duration: int = 1

    def alarms(self, scores: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
        """(N,) bool: the points of alarms, from (N,) scores of series of some lengths laid end to end."""
        return drop_short(np.asarray(scores >= self.point), self.min_duration, lengths)


@dataclass(frozen=True)
class Samples:
    """Layout of samples on a time axis.

    Attributes:
        begin: (S,) first step of each sample.
        end: (S,) step after its last.
    """

    begin: np.ndarray
    end: np.ndarray

    @classmethod
    def of(cls, lengths: Sequence[int], window: int) -> "Samples":
        """Samples of series laid end to end; the rest of a long series that fills no window is left out."""
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        if max(lengths) < SAMPLE_WINDOWS * window:
            return cls(offsets[:-1], offsets[1:])
        begin = np.concatenate([np.arange(a, b - window + 1, window) for a, b in pairwise(offsets)])
        return cls(begin, begin + window)

    def scores(self, scores: np.ndarray, aggregation: str = "topk_mean") -> np.ndarray:
        """(S,) score of each sample from (N,) point scores."""
        if aggregation not in AGGREGATIONS:
            raise ConfigError(f"series_agg={aggregation!r} is not one of {', '.join(AGGREGATIONS)}")
        result = np.empty(len(self.begin))
        sizes = self.end - self.begin
        for size in np.unique(sizes):  # all samples of one size at once
            at = np.flatnonzero(sizes == size)
            points = scores[self.begin[at][:, None] + np.arange(size)]  # (samples of this size, size)
            result[at] = _aggregate(points, aggregation)
        return result

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """(S,) bool: whether any point of a sample is anomalous."""
        count = np.concatenate([[0], np.cumsum(labels)])
        return np.asarray(count[self.end] > count[self.begin])


def _aggregate(points: np.ndarray, aggregation: str) -> np.ndarray:
    if aggregation == "mean":
        return np.asarray(points.mean(axis=1))
    if aggregation == "max":
        return np.asarray(points.max(axis=1))
    k = max(1, round(TOP_SHARE * points.shape[1]))
    return np.asarray(np.partition(points, -k, axis=1)[:, -k:].mean(axis=1))


def calibrate(
    scores: np.ndarray,
    labels: np.ndarray | None,
    *,
    lengths: Sequence[int],
    window: int,
    threshold: Threshold,
    aggregation: str = "topk_mean",
    min_duration: int = 1,
) -> Calibration:
    """Thresholds for points and samples from validation scores.

    Args:
        scores: (N,) of the validation split, higher = more anomalous.
        labels: (N,) bool or None.
        lengths: Steps of each series.
        window: Steps of a window.
        threshold: The method.
        aggregation: How point scores become the score of a sample.
        min_duration: Steps that a score must stay above the threshold for an alarm.
    """
    samples = Samples.of(lengths, window)
    sample_labels = None if labels is None else samples.labels(labels)
    sample = threshold.fit_samples(samples.scores(scores, aggregation), sample_labels)
    point = threshold.fit(scores, labels)  # last, so that `chosen` tells the method used for points
    return Calibration(method=threshold.chosen, point=point, sample=sample, min_duration=min_duration)


def evaluate(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    lengths: Sequence[int],
    window: int,
    calibration: Calibration,
    aggregation: str = "topk_mean",
    buffer: int = 100,
) -> dict[str, float]:
    """All metrics of a split, with thresholds that were found elsewhere.

    Threshold-free metrics of several long series are averaged over the series that hold an anomaly: their
    scores need not be comparable. Short series are samples of one population and are ranked together.

    Args:
        scores: (N,) higher = more anomalous.
        labels: (N,) bool.
        lengths: Steps of each series.
        window: Steps of a window.
        calibration: Thresholds from validation data.
        aggregation: How point scores become the score of a sample.
        buffer: Widest buffer of VUS, in steps.

    Returns:
        Metric by name; NaN where the labels do not define one.
    """
    samples = Samples.of(lengths, window)
    sample_scores, sample_labels = samples.scores(scores, aggregation), samples.labels(labels)
    series = precision_recall_f1(sample_scores >= calibration.sample, sample_labels)
    return {
        **_ranking(scores, labels, lengths, window, buffer),
        **thresholded_metrics(calibration.alarms(scores, lengths), labels, lengths=lengths),
        "series_f1": series.f1,
        "series_precision": series.precision,
        "series_recall": series.recall,
        "series_auroc": auc_roc(sample_scores, sample_labels),
    }


def _ranking(
    scores: np.ndarray, labels: np.ndarray, lengths: Sequence[int], window: int, buffer: int
) -> dict[str, float]:
    if len(lengths) == 1 or max(lengths) < SAMPLE_WINDOWS * window:
        return threshold_free_metrics(scores, labels, buffer=buffer, lengths=lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = [
        threshold_free_metrics(scores[a:b], labels[a:b], buffer=buffer)
        for a, b in pairwise(offsets)
        if labels[a:b].any()
    ]
    if not rows:  # undefined, by name
        return threshold_free_metrics(scores, labels, buffer=buffer, lengths=lengths)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def oracle(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    lengths: Sequence[int],
    window: int,
    aggregation: str = "topk_mean",
) -> dict[str, float]:
    """Best F1 any threshold could reach on these labels: an upper bound, never a result."""
    if not labels.any():
        return {}
    samples = Samples.of(lengths, window)
    point = best_f1(scores, labels)
    series = best_f1(samples.scores(scores, aggregation), samples.labels(labels))
    return {
        "point_f1": point.f1,
        "point_threshold": point.threshold,
        "series_f1": series.f1,
        "series_threshold": series.threshold,
    }


def event_recall_by_type(predicted: np.ndarray, events: pd.DataFrame) -> dict[str, float]:
    """Share of the events of each type with at least one alarm.

    Args:
        predicted: (N,) bool.
        events: Table with `start`, `end` (exclusive) and `type`.
    """
    count = np.concatenate([[0], np.cumsum(predicted)])
    found = count[events["end"].to_numpy()] > count[events["start"].to_numpy()]
    return {
        str(kind): float(found[(events["type"] == kind).to_numpy()].mean())
        for kind in events["type"].unique()
    }
