"""How sure a metric of a classifier is, and whether one classifier is better than another.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13: percentile intervals. Whole groups are
drawn again, because images of one part or batch are alike and would make an interval too narrow. McNemar, "Note on
the sampling error of the difference between correlated proportions" (1947), in its exact binomial form.

No image is drawn or looped over: a resample is a number of copies per group, and a metric is made of weighted counts
and weighted ranks.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tocsin.metrics.classification import (
    check_classes,
    class_f1,
    confusion,
    count_metrics,
    defect_probability,
    mean_of_defined,
    ratio,
)

LEVEL = 95.0  # percent of the resamples that lie within an interval
RESAMPLES = 2000
_AT_ONCE = 2_000_000  # copies held in memory


class Difference(NamedTuple):
    """How much better the second of two classifiers is.

    Attributes:
        value: Its metric minus that of the first.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """Two classifiers on the same images.

    Attributes:
        metrics: For `accuracy macro_f1 balanced_accuracy auroc` the second minus the first.
        only_first_right: Images that only the first one got right.
        only_second_right: Images that only the second one got right.
        p_value: Of the exact two-sided McNemar test that both are equally often right. It takes images as
            independent; where they are not, trust the intervals.
    """

    metrics: dict[str, Difference]
    only_first_right: int
    only_second_right: int
    p_value: float


def bootstrap_intervals(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray | None = None,
    n: int = RESAMPLES,
    seed: int = 0,
    ok_class_index: int | None = None,
) -> dict[str, list[float]]:
    """95 % percentile intervals of `accuracy macro_f1 balanced_accuracy auroc`.

    Args:
        labels: (N,) int, in [0, K).
        probabilities: (N, K) in [0, 1], rows sum to 1.
        groups: (N,) int: images of the same group, such as those of one part, are drawn together; None for single
            images.
        n: Number of resamples.
        seed: Of the draws.
        ok_class_index: Of two classes, the one that is not defective, as for `auroc`.

    Returns:
        Lower and upper end of each interval. NaN where nothing can be drawn again: with one group only.

    Raises:
        ValueError: If the arrays do not fit each other.
    """
    labels, probabilities = check_classes(labels, probabilities)
    drawn = _resampled(labels, [probabilities], group_numbers(groups, len(labels)), n, seed, ok_class_index)
    return {name: list(percentile_interval(values[0])) for name, values in drawn.items()}


def class_f1_intervals(
    labels: np.ndarray,
    predicted: np.ndarray,
    n_classes: int,
    groups: np.ndarray | None = None,
    n: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """95 % percentile intervals of the F1 of each class: (K, 2) lower and upper ends; arguments as above."""
    group = group_numbers(groups, len(labels))
    cells = _cells(labels, predicted, n_classes, group)
    f1 = [class_f1(_weighted(copies, cells)) for copies in resample_counts(group.max() + 1, n, seed)]
    return np.array([percentile_interval(values) for values in np.concatenate(f1).T])


def paired_difference(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    groups: np.ndarray | None = None,
    n: int = RESAMPLES,
    seed: int = 0,
    ok_class_index: int | None = None,
) -> PairedDifference:
    """Compare two classifiers image by image: the same resamples for both.

    Args:
        labels: (N,) int, in [0, K).
        first: (N, K) probabilities.
        second: (N, K) probabilities of the other classifier for the same images.
        groups: As for `bootstrap_intervals`.
        n: Number of resamples.
        seed: Of the draws.
        ok_class_index: As for `bootstrap_intervals`.

    Raises:
        ValueError: If the arrays do not fit each other.
    """
    from scipy.stats import binomtest

    labels, first = check_classes(labels, first)
    _, second = check_classes(labels, second)
    if first.shape != second.shape:
        raise ValueError(f"probabilities of shape {first.shape} and {second.shape}: classes must be the same")
    group = group_numbers(groups, len(labels))
    drawn = _resampled(labels, [first, second], group, n, seed, ok_class_index)
    once = np.ones((1, group.max() + 1))  # each group as it is
    whole = _metrics_of(labels, [first, second], group, [once], ok_class_index)
    metrics = {
        name: Difference(
            float(whole[name][1, 0] - whole[name][0, 0]),
            *percentile_interval(drawn[name][1] - drawn[name][0]),
        )
        for name in drawn
    }
    right = [probabilities.argmax(1) == labels for probabilities in (first, second)]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return PairedDifference(metrics, only_first, only_second, p_value)


def group_numbers(groups: np.ndarray | None, n_images: int) -> np.ndarray:
    """(N,) int64 numbers from 0 without gaps; each image a group of its own if there are none.

    Raises:
        ValueError: There is not one group per image.
    """
    if groups is None:
        return np.arange(n_images)
    if np.shape(groups) != (n_images,):
        raise ValueError(f"groups has shape {np.shape(groups)} for {n_images} images: give one number each")
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _resampled(
    labels: np.ndarray,
    predictions: list[np.ndarray],
    group: np.ndarray,
    n: int,
    seed: int,
    ok_class_index: int | None,
) -> dict[str, np.ndarray]:
    """Metrics of every resample: (R, n) for R classifiers, by name."""
    G = int(group.max()) + 1
    if G == 1:  # all resamples would be equal, and the interval have no width
        names = ("accuracy", "macro_f1", "balanced_accuracy", "auroc")
        return {name: np.full((len(predictions), n), np.nan) for name in names}
    # Blocks by the number of images, not of groups: ranks are made of images.
    return _metrics_of(labels, predictions, group, resample_counts(G, n, seed, len(labels)), ok_class_index)


def _metrics_of(
    labels: np.ndarray,
    predictions: list[np.ndarray],
    group: np.ndarray,
    blocks: Iterator[np.ndarray] | list[np.ndarray],
    ok_class_index: int | None,
) -> dict[str, np.ndarray]:
    """Metrics (R, n) of R classifiers, by name, of blocks of copies (n_b, G)."""
    K = predictions[0].shape[1]
    cells = [_cells(labels, probabilities.argmax(1), K, group) for probabilities in predictions]
    parts: dict[str, list[list[np.ndarray]]] = {}
    for copies in blocks:
        images = copies[:, group]  # (n_b, N)
        for classifier, probabilities in enumerate(predictions):
            found = count_metrics(_weighted(copies, cells[classifier]))
            found["auroc"] = _weighted_auroc(labels, probabilities, images, ok_class_index)
            for name, values in found.items():
                parts.setdefault(name, [[] for _ in predictions])[classifier].append(values)
    return {name: np.array([np.concatenate(row) for row in rows]) for name, rows in parts.items()}


def resample_counts(n_groups: int, n: int, seed: int, width: int = 0) -> Iterator[np.ndarray]:
    """Blocks (n_b, G) float64 of resamples: how often each group was drawn; as many at once as memory should hold."""
    rng = np.random.default_rng(seed)
    block = max(1, _AT_ONCE // max(n_groups, width))
    for begin in range(0, n, block):
        rows = min(block, n - begin)
        drawn = rng.integers(0, n_groups, (rows, n_groups)) + n_groups * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n_groups)
        yield counts.reshape(rows, n_groups).astype(np.float64)


def _cells(labels: np.ndarray, predicted: np.ndarray, n_classes: int, group: np.ndarray) -> np.ndarray:
    """(G, K, K) float64: the confusion matrix of each group."""
    confusion(labels, predicted, n_classes)  # refuses what are no classes
    place = (group * n_classes + labels) * n_classes + predicted
    G = int(group.max()) + 1
    counts = np.bincount(place, minlength=G * n_classes**2)
    return counts.reshape(G, n_classes, n_classes).astype(np.float64)


def _weighted(copies: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Confusion matrices (n_b, K, K) of resamples (n_b, G) of the groups' own (G, K, K)."""
    G, K, _ = cells.shape
    counts: np.ndarray = copies @ cells.reshape(G, K * K)
    return counts.reshape(-1, K, K)


def _weighted_auroc(
    labels: np.ndarray, probabilities: np.ndarray, images: np.ndarray, ok_class_index: int | None
) -> np.ndarray:
    """As `classification.auroc`, (n_b,), for images (n_b, N) that count several times or not at all."""
    if probabilities.shape[1] == 2:
        ok = 0 if ok_class_index is None else ok_class_index
        return _weighted_auc(defect_probability(probabilities, ok), labels != ok, images)
    areas = np.array([_weighted_auc(probabilities[:, k], labels == k, images) for k in np.unique(labels)])
    return mean_of_defined(areas.T)  # (n_b,)


def _weighted_auc(scores: np.ndarray, positive: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Chance (n_b,) that a positive image scores above another one; ties count one half; NaN without both."""
    others = np.flatnonzero(~positive)
    others = others[np.argsort(scores[others], kind="stable")]
    below = np.zeros((len(images), len(others) + 1))  # weight of the others with a lower score, by rank
    np.cumsum(images[:, others], axis=1, out=below[:, 1:])
    first, last = (np.searchsorted(scores[others], scores[positive], side) for side in ("left", "right"))
    weight = images[:, positive]
    passed = ((below[:, first] + below[:, last]) * weight).sum(1)
    return ratio(passed, 2 * weight.sum(1) * below[:, -1])


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """Ends of the interval of resampled values (n,); those that a resample could not define are left out."""
    defined = values[np.isfinite(values)]
    if not defined.size:
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)
