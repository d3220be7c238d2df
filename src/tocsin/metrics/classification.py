"""Exact metrics of classifiers, from the class of each image and the probabilities that it was given.

Macro-F1, balanced accuracy and one-vs-rest AUROC follow scikit-learn's definitions. Expected calibration error: Guo
et al., "On Calibration of Modern Neural Networks" (ICML 2017), section 2, but with bins of equal mass, which the
confident images of a good classifier do not leave empty; images of equal confidence share a bin.

Everywhere: K classes; labels are (N,) numbers in [0, K); probabilities are (N, K), rows sum to 1; the prediction is
the most probable class. A value that the data cannot define is NaN, never 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tocsin.metrics.functional import auc_roc, check_scores

ECE_BINS = 15
MIN_PROBABILITY = 1e-12  # keeps the log-likelihood of a class that was ruled out finite
FALSE_ALARM_RATES = {"miss_rate_at_fpr_01": 0.01, "miss_rate_at_fpr_05": 0.05}


class CalibrationBins(NamedTuple):
    """Images grouped by the confidence of their prediction, from the lowest to the highest; no bin is empty.

    Attributes:
        images: (B,) int64, how many.
        confidence: (B,) mean probability of the predicted class.
        accuracy: (B,) share of right predictions.
    """

    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def classification_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    ok_class_index: int | None = None,
    threshold: float | None = None,
) -> dict[str, float]:
    """All metrics of a classifier.

    Args:
        labels: (N,) int, in [0, K).
        probabilities: (N, K) in [0, 1], rows sum to 1.
        ok_class_index: The class of faultless parts; None if there is none or it is not known.
        threshold: An image is an alarm if its `defect_probability >= threshold`; None leaves the rates out.

    Returns:
        `accuracy macro_f1 balanced_accuracy auroc` in [0, 1], higher = better; `ece` in [0, 1], `nll` and `brier`
        (summed over classes, in [0, 2]), lower = better. With an ok class also `miss_rate_at_fpr_01` and
        `miss_rate_at_fpr_05`, and with a threshold `miss_rate` and `false_alarm_rate`, lower = better.

    Raises:
        ValueError: If the arrays do not fit each other, or an argument is out of range.
    """
    labels, probabilities = check_classes(labels, probabilities)
    N, K = probabilities.shape
    counts = confusion(labels, probabilities.argmax(1), K)
    of_truth = probabilities[np.arange(N), labels]
    metrics = {
        **{name: float(value) for name, value in count_metrics(counts).items()},
        "auroc": auroc(labels, probabilities, ok_class_index),
        "ece": expected_calibration_error(labels, probabilities),
        "nll": float(-np.log(of_truth.clip(min=MIN_PROBABILITY)).mean()),
        "brier": float(((probabilities**2).sum(1) - 2 * of_truth + 1).mean()),
    }
    if ok_class_index is None:
        return metrics
    scores, defective = defect_probability(probabilities, ok_class_index), labels != ok_class_index
    if threshold is not None:
        metrics |= alarm_rates(scores, defective, threshold)
    return metrics | {
        name: miss_rate_at_fpr(scores, defective, fpr) for name, fpr in FALSE_ALARM_RATES.items()
    }


def confusion(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """How often each class was taken for which.

    Args:
        labels: (N,) int or bool, in [0, K).
        predicted: (N,) int or bool, in [0, K).
        n_classes: K.

    Returns:
        (K, K) int64; rows are true classes, columns predicted ones.

    Raises:
        ValueError: If the arrays do not fit each other, or hold something else than classes.
    """
    labels, predicted = (
        _class_numbers(labels, n_classes, "labels"),
        _class_numbers(predicted, n_classes, "predicted"),
    )
    if len(labels) != len(predicted):
        raise ValueError(f"{len(labels)} labels, but {len(predicted)} predictions: one of each per image")
    return np.bincount(labels * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def count_metrics(counts: np.ndarray) -> dict[str, np.ndarray]:
    """What confusion matrices tell, for one or for many at once.

    Args:
        counts: (..., K, K) numbers, rows true.

    Returns:
        `accuracy`; `macro_f1`, the mean over the classes that have images or predictions; `balanced_accuracy`, the
        mean recall of the classes that have images. Each (...), in [0, 1], NaN without an image.
    """
    total, right = counts.sum((-2, -1)), np.diagonal(counts, axis1=-2, axis2=-1)
    support = counts.sum(-1)
    return {
        "accuracy": ratio(right.sum(-1), total),
        "macro_f1": mean_of_defined(class_f1(counts)),
        "balanced_accuracy": mean_of_defined(ratio(right, support)),
    }


def class_f1(counts: np.ndarray) -> np.ndarray:
    """F1 of each class, (..., K), from confusion matrices (..., K, K); NaN without images and predictions."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    return ratio(2 * right, counts.sum(-1) + counts.sum(-2))


def per_class(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Quality of each class.

    Args:
        labels: (N,) int, in [0, K).
        predicted: (N,) int, in [0, K).
        names: K names.

    Returns:
        For each name `precision` (NaN if the class was never predicted), `recall` (NaN if it has no image), `f1`
        (NaN if neither), each in [0, 1], and `support`, the number of its images.

    Raises:
        ValueError: If the arrays do not fit each other, or hold something else than classes.
    """
    counts = confusion(labels, predicted, len(names))
    right, support = np.diagonal(counts), counts.sum(1)
    columns = (ratio(right, counts.sum(0)), ratio(right, support), class_f1(counts))
    return {
        name: {
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "support": int(number),
        }
        for name, precision, recall, f1, number in zip(names, *columns, support, strict=True)
    }


def auroc(labels: np.ndarray, probabilities: np.ndarray, ok_class_index: int | None = None) -> float:
    """Area under the ROC curve: of two classes that of the defective one, of more the mean over the classes.

    Args:
        labels: (N,) int, in [0, K).
        probabilities: (N, K) in [0, 1].
        ok_class_index: Of two classes, the one that is not defective; None takes the first.

    Returns:
        A number in [0, 1]. With more than two classes, each that has images against all others, every class with the
        same weight. NaN if the labels hold one class only.

    Raises:
        ValueError: If the arrays do not fit each other.
    """
    labels, probabilities = check_classes(labels, probabilities)
    if probabilities.shape[1] == 2:
        ok = 0 if ok_class_index is None else ok_class_index
        return auc_roc(defect_probability(probabilities, ok), labels != ok)
    areas = [auc_roc(probabilities[:, k], labels == k) for k in np.unique(labels)]
    return float(np.mean(areas))


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = ECE_BINS) -> float:
    """Mean distance between confidence and accuracy over bins of equal mass.

    Noise of small bins counts as error: with few images, well-calibrated probabilities get some 0.05 too.

    Args:
        labels: (N,) int, in [0, K).
        probabilities: (N, K) in [0, 1].
        bins: At most this many, each with about the same number of images.

    Returns:
        A number in [0, 1], lower = better.

    Raises:
        ValueError: If the arrays do not fit each other, or `bins` is not positive.
    """
    count, confidence, accuracy = calibration_bins(labels, probabilities, bins)
    return float(count @ np.abs(confidence - accuracy) / count.sum())


def calibration_bins(labels: np.ndarray, probabilities: np.ndarray, bins: int = ECE_BINS) -> CalibrationBins:
    """Images in bins of about equal mass by the confidence of their prediction; arguments as for the error."""
    if bins < 1:
        raise ValueError(f"bins={bins} is not positive")
    labels, probabilities = check_classes(labels, probabilities)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    starts = np.sort(confidence)[np.arange(1, bins) * len(confidence) // bins]
    place = np.searchsorted(starts, confidence, "right")
    count = np.bincount(place)
    kept = count > 0
    sums = (np.bincount(place, values)[kept] for values in (confidence, right))
    return CalibrationBins(count[kept], *(total / count[kept] for total in sums))


def selective_error(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Errors that remain if only the surest images are decided, and the rest is looked at by a person.

    El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification" (JMLR 2010): risk over coverage.

    Args:
        labels: (N,) int, in [0, K).
        probabilities: (N, K) in [0, 1].

    Returns:
        (P, 2) share of the images decided, rising to 1, and share of errors among them; one point per confidence.

    Raises:
        ValueError: If the arrays do not fit each other.
    """
    labels, probabilities = check_classes(labels, probabilities)
    confidence, wrong = probabilities.max(1), probabilities.argmax(1) != labels
    order = np.argsort(-confidence, kind="stable")
    falling, decided = confidence[order], np.arange(1, len(labels) + 1)
    last = np.append(falling[1:] != falling[:-1], True)  # of each tie
    curve: np.ndarray = np.stack([decided / len(labels), np.cumsum(wrong[order]) / decided], axis=1)[last]
    return curve


def defect_probability(probabilities: np.ndarray, ok_class_index: int) -> np.ndarray:
    """Probability that an image shows any defect: (N,) float64 in [0, 1], higher = more anomalous.

    The sum over the other classes, not one minus that of the ok class, which rounds small ones to 0.

    Raises:
        ValueError: There is no such class.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    K = probabilities.shape[1]
    if not 0 <= ok_class_index < K:
        raise ValueError(f"ok_class_index={ok_class_index} is none of {K} classes: give 0 to {K - 1}")
    summed: np.ndarray = np.delete(probabilities, ok_class_index, axis=1).sum(1)
    return summed


def alarm_rates(scores: np.ndarray, defective: np.ndarray, threshold: float) -> dict[str, float]:
    """Errors of the alarms `score >= threshold`.

    Args:
        scores: (N,) such as `defect_probability`, higher = more anomalous.
        defective: (N,) bool.
        threshold: In units of the scores.

    Returns:
        `miss_rate`, the share of defective images without an alarm, and `false_alarm_rate`, the share of faultless
        ones with one; in [0, 1], NaN where there are no such images.

    Raises:
        ValueError: If the arrays do not fit each other, or the threshold is NaN.
    """
    if np.isnan(threshold):
        raise ValueError("the threshold is NaN: no image could be an alarm")
    scores, defective = check_scores(scores, defective)
    alarms = scores >= threshold
    return {
        "miss_rate": float(ratio((~alarms & defective).sum(), defective.sum())),
        "false_alarm_rate": float(ratio((alarms & ~defective).sum(), (~defective).sum())),
    }


def miss_rate_at_fpr(scores: np.ndarray, defective: np.ndarray, fpr: float) -> float:
    """Share of defective images that even the best threshold misses, if few false alarms are allowed.

    It tells of the order of the scores alone: no threshold from validation data is in it.

    Args:
        scores: (N,) such as `defect_probability`, higher = more anomalous.
        defective: (N,) bool.
        fpr: Largest share of faultless images with an alarm, in [0, 1).

    Returns:
        A number in [0, 1], lower = better; NaN without a defective or without a faultless image.

    Raises:
        ValueError: If the arrays do not fit each other, or `fpr` is out of range.
    """
    if not 0 <= fpr < 1:
        raise ValueError(f"fpr={fpr} is not in [0, 1)")
    scores, defective = check_scores(scores, defective)
    faultless = np.sort(scores[~defective])[::-1]
    if len(faultless) in (0, len(scores)):
        return float("nan")
    allowed = int(fpr * len(faultless) * (1 + 1e-12))
    return float(np.mean(scores[defective] <= faultless[allowed]))


def check_classes(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as (N,) int64 in [0, K), and probabilities as (N, K) float64, N > 0 and K > 1.

    Raises:
        ValueError: If they do not fit each other, or are no classes and probabilities.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or len(probabilities) == 0 or probabilities.shape[1] < 2:
        raise ValueError(f"probabilities must be (images, classes), got shape {probabilities.shape}")
    labels = _class_numbers(labels, probabilities.shape[1], "labels")
    if len(labels) != len(probabilities):
        raise ValueError(f"{len(labels)} labels, but probabilities of {len(probabilities)} images")
    wrong = ~(
        (probabilities >= 0).all(1) & (abs(probabilities.sum(1) - 1) < 1e-2)
    )  # NaN is wrong too; bf16 rounds
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"probabilities of {wrong.sum()} of {len(wrong)} images are negative, NaN or do not sum to 1, "
            f"the first at index {first}: give the softmax of the logits"
        )
    return labels, probabilities


def _class_numbers(values: np.ndarray, n_classes: int, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in "iub":
        raise ValueError(
            f"{name} must be (images,) whole numbers, got {values.dtype} of shape {values.shape}"
        )
    if values.size and not 0 <= values.min() <= values.max() < n_classes:
        raise ValueError(f"{name} holds {values.min()} to {values.max()}: classes are 0 to {n_classes - 1}")
    return values.astype(np.int64)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    shares: np.ndarray = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return shares


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN."""
    return ratio(np.nansum(values, axis=-1), np.isfinite(values).sum(-1))
