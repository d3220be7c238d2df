"""Exact point metrics of anomaly scores: ranking quality and F1, each from sorted scores.

Sources: Davis and Goadrich, "The Relationship Between Precision-Recall and ROC Curves" (ICML 2006);
average precision is the step sum of scikit-learn, without interpolation. Unlike torchmetrics, scores are
never squashed: only their order counts, so `auc_roc(s, y) == auc_roc(s + 100, y)`.

Everywhere: scores are finite, higher = more anomalous; labels are true where anomalous; a point is
predicted anomalous when `score >= threshold`. A value that the data cannot define is NaN, never 0.
"""

from typing import NamedTuple

import numpy as np


class PrecisionRecallF1(NamedTuple):
    """Precision, recall and their harmonic mean, each in [0, 1] or NaN where undefined."""

    precision: float
    recall: float
    f1: float


class BestF1(NamedTuple):
    """The best cut of a score: predict `score >= threshold`."""

    f1: float
    threshold: float
    precision: float
    recall: float


class PrecisionRecallCurve(NamedTuple):
    """One entry per cut, thresholds falling and recall therefore rising."""

    precision: np.ndarray
    recall: np.ndarray
    threshold: np.ndarray


class RocCurve(NamedTuple):
    """One entry per cut, thresholds falling and both rates therefore rising."""

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    threshold: np.ndarray


class _Cuts(NamedTuple):
    """Counts of alarms at falling thresholds."""

    threshold: np.ndarray
    true_alarms: np.ndarray
    alarms: np.ndarray


def auc_roc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve: the chance that an anomalous point scores above a normal one.

    Args:
        scores: (N,) finite, any range, higher = more anomalous. Ties count one half.
        labels: (N,) bool or 0/1, true = anomalous.

    Returns:
        A number in [0, 1]; 0.5 for a constant score; NaN if the labels hold one class only.

    Raises:
        ValueError: If the arrays do not fit each other, or hold NaN or labels other than 0 and 1.
    """
    scores, labels = check_scores(scores, labels)
    rising, anomalous = np.sort(scores), np.sort(scores[labels])
    n_true, n_normal = len(anomalous), len(scores) - len(anomalous)
    if n_true == 0 or n_normal == 0:
        return float("nan")
    # Twice the normal points below each anomalous one: those strictly below, and those not above.
    below = sum(
        np.searchsorted(rising, anomalous, side).sum() - np.searchsorted(anomalous, anomalous, side).sum()
        for side in ("left", "right")
    )
    return float(below / (2 * n_true * n_normal))


def auc_pr(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision: the mean precision over the recalls that the score can reach.

    Args:
        scores: (N,) finite, any range, higher = more anomalous.
        labels: (N,) bool or 0/1, true = anomalous.

    Returns:
        A number in (0, 1]; the anomaly rate for a constant score; NaN if no point is anomalous.

    Raises:
        ValueError: If the arrays do not fit each other, or hold NaN or labels other than 0 and 1.
    """
    scores, labels = check_scores(scores, labels)
    if not labels.any():
        return float("nan")
    cuts = _cuts_at_anomalies(scores, labels)
    return float(np.mean(cuts.true_alarms / cuts.alarms))


def best_f1(scores: np.ndarray, labels: np.ndarray) -> BestF1:
    """The largest F1 over every cut of the score, not over a grid of thresholds.

    Of several cuts with the same F1 the highest threshold, that is the fewest alarms, is taken.

    Args:
        scores: (N,) finite, any range, higher = more anomalous.
        labels: (N,) bool or 0/1, true = anomalous.

    Returns:
        F1, precision and recall in [0, 1] of `score >= threshold`, and that threshold, which is one of
        the scores. All four are NaN if no point is anomalous.

    Raises:
        ValueError: If the arrays do not fit each other, or hold NaN or labels other than 0 and 1.
    """
    scores, labels = check_scores(scores, labels)
    if not labels.any():
        return BestF1(*[float("nan")] * 4)
    cuts = _cuts_at_anomalies(scores, labels)
    n_true = len(cuts.threshold)
    f1 = 2 * cuts.true_alarms / (cuts.alarms + n_true)
    best = int(np.argmax(f1))
    hits = cuts.true_alarms[best]
    return BestF1(
        f1=float(f1[best]),
        threshold=float(cuts.threshold[best]),
        precision=float(hits / cuts.alarms[best]),
        recall=float(hits / n_true),
    )


def precision_recall_f1(predicted: np.ndarray, labels: np.ndarray) -> PrecisionRecallF1:
    """Point-wise precision, recall and F1 of binary predictions.

    Args:
        predicted: (N,) bool or 0/1, true = alarm.
        labels: (N,) bool or 0/1, true = anomalous.

    Returns:
        Values in [0, 1]. All NaN if no point is anomalous; without any alarm the precision is NaN,
        recall and F1 are 0.

    Raises:
        ValueError: If the arrays do not fit each other, or hold values other than 0 and 1.
    """
    predicted, labels = check_masks(predicted, labels)
    hits = np.count_nonzero(predicted & labels)
    n_alarms, n_true = np.count_nonzero(predicted), np.count_nonzero(labels)
    if n_true == 0:
        return PrecisionRecallF1(*[float("nan")] * 3)
    precision = hits / n_alarms if n_alarms else float("nan")
    return PrecisionRecallF1(precision, hits / n_true, 2 * hits / (n_alarms + n_true))


def precision_recall_curve(
    scores: np.ndarray, labels: np.ndarray, *, max_points: int | None = None
) -> PrecisionRecallCurve:
    """Precision and recall at every distinct score, or at few of them for a plot.

    Args:
        scores: (N,) finite, any range, higher = more anomalous.
        labels: (N,) bool or 0/1, true = anomalous.
        max_points: Keep at most this many cuts, evenly spread over recall; at least 2. None keeps all.

    Returns:
        Arrays of one length, float64, from the highest threshold to the lowest; the last recall is 1.
        Recalls are NaN if no point is anomalous.

    Raises:
        ValueError: If the arrays do not fit each other, or `max_points` is below 2.
    """
    if max_points is not None and max_points < 2:
        raise ValueError(f"max_points must be at least 2, got {max_points}")
    scores, labels = check_scores(scores, labels)
    cuts = _cuts(scores, labels)
    precision = cuts.true_alarms / cuts.alarms
    recall = cuts.true_alarms / (cuts.true_alarms[-1] or np.nan)
    if max_points is not None and len(recall) > max_points:
        wanted = np.linspace(0, cuts.true_alarms[-1], max_points - 1)
        kept = np.append(np.searchsorted(cuts.true_alarms, wanted), len(recall) - 1)
        kept = np.unique(kept)
        return PrecisionRecallCurve(precision[kept], recall[kept], cuts.threshold[kept])
    return PrecisionRecallCurve(precision, recall, cuts.threshold)


def roc_curve(scores: np.ndarray, labels: np.ndarray, *, max_points: int | None = None) -> RocCurve:
    """False and true positive rate at every distinct score, or at few of them for a plot.

    Args:
        scores: (N,) finite, any range, higher = more anomalous.
        labels: (N,) bool or 0/1, true = anomalous.
        max_points: Keep at most about this many cuts, evenly spread over both rates; at least 4. None keeps all.

    Returns:
        Arrays of one length, float64, from (0, 0) at an infinite threshold to (1, 1) at the lowest score. The rate of
        a class that is absent is NaN.

    Raises:
        ValueError: If the arrays do not fit each other, or `max_points` is below 4.
    """
    if max_points is not None and max_points < 4:
        raise ValueError(f"max_points must be at least 4, got {max_points}")
    scores, labels = check_scores(scores, labels)
    rates, cuts = [], []
    classes = np.sort(scores[~labels]), np.sort(scores[labels])
    for rising in classes:
        chosen = np.arange(len(rising))
        if max_points is not None and len(rising) > max_points // 2:
            chosen = np.linspace(0, len(rising) - 1, max_points // 2).astype(np.int64)
        cuts.append(rising[chosen])
    threshold = np.append(np.unique(np.concatenate(cuts)), np.inf)[::-1]
    for rising in classes:
        alarms = len(rising) - np.searchsorted(rising, threshold)
        rates.append(alarms / (len(rising) or np.nan))
    return RocCurve(rates[0], rates[1], threshold)


def harmonic_mean(precision: float, recall: float) -> float:
    """F1 of a precision and a recall: 0 if either is 0, even if the other is undefined (NaN)."""
    if precision == 0 or recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def check_scores(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores as finite float64 and labels as bool, both (N,).

    Raises:
        ValueError: If the arrays do not fit each other, or hold NaN or labels other than 0 and 1.
    """
    scores, labels = finite_scores(scores), _mask(labels, "labels")
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} scores, but {len(labels)} labels: one of each per point is needed")
    return scores, labels


def check_masks(predicted: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels as bool, both (N,).

    Raises:
        ValueError: If the arrays do not fit each other, or hold values other than 0 and 1.
    """
    predicted, labels = _mask(predicted, "predicted"), _mask(labels, "labels")
    if len(predicted) != len(labels):
        raise ValueError(
            f"{len(predicted)} predictions, but {len(labels)} labels: one of each per point is needed"
        )
    return predicted, labels


def finite_scores(scores: np.ndarray) -> np.ndarray:
    """Scores as (N,) float64, N > 0.

    Raises:
        ValueError: If they are empty, not one-dimensional, or not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"scores must be one-dimensional and not empty, got shape {scores.shape}")
    finite = np.isfinite(scores)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise ValueError(
            f"{len(bad)} of {len(scores)} scores are NaN or infinite, the first at index {bad[0]}: "
            "check the detector for non-finite outputs"
        )
    return scores


def _mask(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {values.shape}")
    if values.dtype == bool:
        return values
    mask: np.ndarray = values == 1
    other = ~mask & (values != 0)
    if other.any():
        raise ValueError(f"{name} must be bool or 0 and 1, got {values[other][0]!s}")
    return mask


def _cuts_at_anomalies(scores: np.ndarray, labels: np.ndarray) -> _Cuts:
    """Cuts at the score of each anomalous point, equal ones repeated.

    Between two of them only false alarms are added, so they hold the best F1 and every step of recall. Two
    sorts of values are several times faster than ordering labels by score.
    """
    anomalous = np.sort(scores[labels])
    true_alarms = len(anomalous) - np.searchsorted(anomalous, anomalous)
    alarms = len(scores) - np.searchsorted(np.sort(scores), anomalous)
    return _Cuts(anomalous[::-1], true_alarms[::-1], alarms[::-1])


def _cuts(scores: np.ndarray, labels: np.ndarray) -> _Cuts:
    """Cuts at every distinct score."""
    order = np.argsort(scores)[::-1]
    falling = scores[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # last point of each tie
    return _Cuts(falling[last], np.cumsum(labels[order])[last], last + 1)
