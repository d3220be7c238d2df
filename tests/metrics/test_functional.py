import numpy as np
import pytest
from reference import best_f1_by_search
from sklearn import metrics as sk

from tocsin.metrics.functional import (
    auc_pr,
    auc_roc,
    best_f1,
    harmonic_mean,
    precision_recall_curve,
    precision_recall_f1,
    roc_curve,
)


def draw(seed, n=300, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.1
    labels[0] = True
    scores = rng.normal(size=n) + labels
    return (np.round(scores, 1) if ties else scores), labels


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_areas_equal_sklearn(seed, ties):
    scores, labels = draw(seed, ties=ties)
    assert auc_roc(scores, labels) == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    assert auc_pr(scores, labels) == pytest.approx(sk.average_precision_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_best_f1_equals_a_search_over_every_score(seed, ties):
    scores, labels = draw(seed, ties=ties)
    f1, threshold = best_f1_by_search(scores, labels)
    best = best_f1(scores, labels)
    assert best.f1 == pytest.approx(f1, abs=1e-12)
    assert best.threshold == threshold
    at_threshold = precision_recall_f1(scores >= best.threshold, labels)
    assert at_threshold == pytest.approx((best.precision, best.recall, best.f1), abs=1e-12)


def test_best_f1_takes_the_fewest_alarms_of_equal_cuts():
    # Cuts at 3 and at 1 both have F1 = 2/3; the higher one raises fewer alarms.
    best = best_f1(np.array([3.0, 2.0, 1.0, 1.0]), np.array([1, 0, 1, 0]))
    assert best == (pytest.approx(2 / 3), 3.0, 1.0, 0.5)


@pytest.mark.parametrize(
    "metric", [auc_roc, auc_pr, lambda s, y: best_f1(s, y).f1], ids=["auc_roc", "auc_pr", "best_f1"]
)
@pytest.mark.parametrize(
    "change", [lambda s: s + 100, lambda s: s * 1e6, lambda s: s - 1e3], ids=["shift", "scale", "negative"]
)
def test_scores_are_never_squashed(metric, change):
    scores, labels = draw(7)
    assert metric(change(scores), labels) == metric(scores, labels)


def test_half_precision_scores_of_one_value_are_chance():
    scores = np.full(50, 2.5, dtype=np.float16)
    labels = np.arange(50) % 5 == 0
    assert auc_roc(scores, labels) == 0.5
    assert auc_pr(scores, labels) == pytest.approx(0.2)


def test_point_scores_equal_sklearn():
    scores, labels = draw(3)
    expected = sk.precision_recall_fscore_support(labels, scores > 1, average="binary")[:3]
    assert precision_recall_f1(scores > 1, labels) == pytest.approx(expected)


def test_curve_equals_sklearn():
    scores, labels = draw(4, ties=True)
    curve = precision_recall_curve(scores, labels)
    precision, recall, threshold = sk.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(curve.precision[::-1], precision[:-1])
    np.testing.assert_allclose(curve.recall[::-1], recall[:-1])
    np.testing.assert_allclose(curve.threshold[::-1], threshold)


def test_thinned_curve_is_a_spread_subset():
    scores, labels = draw(5, n=5000)
    full, thin = precision_recall_curve(scores, labels), precision_recall_curve(scores, labels, max_points=40)
    kept = np.searchsorted(-full.threshold, -thin.threshold)
    np.testing.assert_array_equal(full.recall[kept], thin.recall)
    np.testing.assert_array_equal(full.precision[kept], thin.precision)
    assert 30 <= len(thin.recall) <= 40
    assert thin.recall[-1] == 1
    assert np.diff(thin.recall).max() < 0.05


def test_roc_curve_equals_sklearn():
    scores, labels = draw(4, ties=True)
    curve = roc_curve(scores, labels)
    for ours, expected in zip(curve, sk.roc_curve(labels, scores, drop_intermediate=False), strict=True):
        np.testing.assert_allclose(ours, expected)


def test_thinned_roc_curve_is_a_spread_subset_over_both_rates():
    scores, labels = draw(5, n=5000)
    full, thin = roc_curve(scores, labels), roc_curve(scores, labels, max_points=80)
    kept = np.searchsorted(-full.threshold, -thin.threshold)
    np.testing.assert_array_equal(np.array(full)[:, kept], np.array(thin))
    assert 60 <= len(kept) <= 81
    assert (thin.false_positive_rate[0], thin.true_positive_rate[0]) == (0, 0)
    assert (thin.false_positive_rate[-1], thin.true_positive_rate[-1]) == (1, 1)
    assert np.diff(thin.false_positive_rate).max() < 0.03
    assert np.diff(thin.true_positive_rate).max() < 0.03


def test_one_class_is_undefined_not_zero():
    scores, none, every = np.arange(4.0), np.zeros(4, bool), np.ones(4, bool)
    assert np.isnan(auc_roc(scores, none))
    assert np.isnan(auc_roc(scores, every))
    assert np.isnan(auc_pr(scores, none))
    assert auc_pr(scores, every) == 1
    assert np.isnan(best_f1(scores, none)).all()
    assert np.isnan(precision_recall_f1(every, none)).all()
    assert np.isnan(precision_recall_curve(scores, none).recall).all()
    assert np.isnan(roc_curve(scores, none).true_positive_rate).all()
    assert np.isnan(roc_curve(scores, every).false_positive_rate).all()


def test_no_alarm_has_no_precision_but_recall_zero():
    precision, recall, f1 = precision_recall_f1(np.zeros(4), np.array([0, 1, 1, 0]))
    assert np.isnan(precision)
    assert (recall, f1) == (0, 0)


def test_harmonic_mean():
    assert harmonic_mean(0.5, 1.0) == pytest.approx(2 / 3)
    assert harmonic_mean(float("nan"), 0.0) == 0
    assert np.isnan(harmonic_mean(float("nan"), 0.5))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0, np.nan, np.inf], [0, 1, 0], "2 of 3 scores are NaN or infinite, the first at index 1"),
        ([], [], "scores must be one-dimensional and not empty"),
        ([[1.0], [2.0]], [0, 1], r"not empty, got shape \(2, 1\)"),
        ([1.0, 2.0], [0, 1, 1], "2 scores, but 3 labels"),
        ([1.0, 2.0], [0, 2], "labels must be bool or 0 and 1, got 2"),
        ([1.0, 2.0], [[0, 1]], "labels must be one-dimensional"),
    ],
)
@pytest.mark.parametrize("metric", [auc_roc, auc_pr, best_f1, precision_recall_curve, roc_curve])
def test_bad_input_is_named(metric, scores, labels, message):
    with pytest.raises(ValueError, match=message):
        metric(np.array(scores), np.array(labels))


def test_bad_predictions_are_named():
    with pytest.raises(ValueError, match="3 predictions, but 2 labels"):
        precision_recall_f1(np.array([0, 1, 1]), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"predicted must be bool or 0 and 1, got 0\.5"):
        precision_recall_f1(np.array([0.5, 1]), np.array([0, 1]))
    with pytest.raises(ValueError, match="max_points must be at least 2, got 1"):
        precision_recall_curve(np.arange(3.0), np.array([0, 1, 0]), max_points=1)
    with pytest.raises(ValueError, match="max_points must be at least 4, got 3"):
        roc_curve(np.arange(3.0), np.array([0, 1, 0]), max_points=3)
