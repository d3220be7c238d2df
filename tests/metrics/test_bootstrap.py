"""Intervals and paired differences against resampling by hand, and against what theory says."""

import math
import time

import numpy as np
import pytest
from reference import draw_classes
from scipy.stats import binom

from tocsin.metrics.bootstrap import (
    _metrics_of,
    bootstrap_intervals,
    class_f1_intervals,
    group_numbers,
    paired_difference,
    resample_counts,
)
from tocsin.metrics.classification import classification_metrics, per_class

NAMES = ["accuracy", "macro_f1", "balanced_accuracy", "auroc"]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("K", "ok"), [(2, 0), (2, 1), (5, None)])
def test_metrics_of_a_resample_are_those_of_the_images_copied(K, ok, ties):
    labels, p = draw_classes(K, N=60, K=K, ties=ties)
    p[:, 0] = p[:, 0].round(2)  # so that with two classes it matters which one ranks
    group = group_numbers(np.arange(60) // 3 * 7, 60)
    (copies,) = resample_counts(20, 30, seed=0)
    found = _metrics_of(labels, [p], group, [copies], ok)
    assert list(found) == NAMES
    for row in range(30):
        images = np.repeat(np.arange(60), copies[row, group].astype(int))
        expected = classification_metrics(labels[images], p[images], ok)
        assert [found[name][0, row] for name in NAMES] == pytest.approx([expected[name] for name in NAMES])


def test_each_resample_draws_as_many_groups_as_there_are_and_blocks_do_not_matter(monkeypatch):
    (whole,) = resample_counts(50, 300, seed=1)
    assert (whole.sum(1) == 50).all()
    assert whole.mean(0) == pytest.approx(np.ones(50), abs=0.3)
    assert whole.var() == pytest.approx(0.98, abs=0.05)  # binomial, not all once
    monkeypatch.setattr("tocsin.metrics.bootstrap._AT_ONCE", 50 * 7)
    np.testing.assert_array_equal(np.concatenate(list(resample_counts(50, 300, seed=1))), whole)


def test_interval_of_accuracy_is_that_of_a_binomial():
    labels, p = draw_classes(1, N=400)
    right = (p.argmax(1) == labels).sum()
    low, high = bootstrap_intervals(labels, p)["accuracy"]
    assert [low, high] == pytest.approx(
        [binom.ppf(q, 400, right / 400) / 400 for q in (0.025, 0.975)], abs=0.006
    )


def test_groups_are_drawn_whole():
    """Four copies of each image tell no more than one: the interval must stay as wide as without copies."""
    labels, p = draw_classes(2, N=150)
    four = np.repeat(labels, 4), np.repeat(p, 4, axis=0)
    parts = np.repeat(np.arange(150), 4)
    width = {
        name: np.ptp(bootstrap_intervals(*arrays, groups)["macro_f1"])
        for name, arrays, groups in (
            ("once", (labels, p), None),
            ("grouped", four, parts),
            ("naive", four, None),
        )
    }
    assert width["grouped"] == pytest.approx(width["once"], rel=0.01)
    assert width["naive"] == pytest.approx(width["once"] / 2, rel=0.15)


def test_intervals_hold_the_metrics_are_seeded():
    labels, p = draw_classes(3, K=2)
    found, metrics = bootstrap_intervals(labels, p, seed=5), classification_metrics(labels, p)
    assert list(found) == NAMES
    for name, (low, high) in found.items():
        assert 0 < low < metrics[name] < high < 1
    assert found == bootstrap_intervals(labels, p, seed=5) != bootstrap_intervals(labels, p, seed=6)


def test_one_group_has_no_interval_and_resamples_without_a_class_are_left_out():
    labels, p = draw_classes(4, N=20, K=2)
    one = bootstrap_intervals(labels, p, np.zeros(20, int))
    assert all(math.isnan(end) for ends in one.values() for end in ends)
    labels = np.array([0] * 9 + [1])  # a third of the resamples has no image of class 1
    low, high = bootstrap_intervals(labels, p[:10])["auroc"]
    assert 0 <= low <= high <= 1


def test_class_intervals_hold_the_f1_of_their_class():
    labels, p = draw_classes(5, K=3)
    rows = class_f1_intervals(labels, p.argmax(1), 4)
    assert rows.shape == (4, 2)
    for (low, high), name in zip(rows[:3], "abc", strict=True):
        assert low < per_class(labels, p.argmax(1), "abcd")[name]["f1"] < high
    assert np.isnan(rows[3]).all()


def test_two_thousand_resamples_take_no_loop_over_images():
    labels, p = draw_classes(6, N=1000, K=6)
    begin = time.perf_counter()
    bootstrap_intervals(labels, p, n=2000)
    assert time.perf_counter() - begin < 2  # 0.15 s on an idle core; a loop takes a minute


# --- two classifiers ----------------------------------------------------------------------------------------


def test_difference_of_a_classifier_to_itself_is_none():
    labels, p = draw_classes(7)
    found = paired_difference(labels, p, p)
    assert {tuple(difference) for difference in found.metrics.values()} == {(0.0, 0.0, 0.0)}
    assert (found.only_first_right, found.only_second_right, found.p_value) == (0, 0, 1.0)


def test_differences_are_second_minus_first_on_the_same_resamples():
    labels, first = draw_classes(8, N=400)
    second = first.copy()
    mended = np.flatnonzero(first.argmax(1) != labels)[:20]
    second[mended] = np.eye(4)[labels[mended]]
    found = paired_difference(labels, first, second)
    assert list(found.metrics) == NAMES
    accuracy = found.metrics["accuracy"]
    assert accuracy.value == pytest.approx(0.05)
    # The difference of 20 in 400 is known far better than either accuracy: its resamples are binomial.
    assert [accuracy.low, accuracy.high] == pytest.approx([12 / 400, 29 / 400], abs=0.003)
    assert np.ptp(bootstrap_intervals(labels, first)["accuracy"]) > 1.5 * (accuracy.high - accuracy.low)
    gain = (
        classification_metrics(labels, second)["macro_f1"] - classification_metrics(labels, first)["macro_f1"]
    )
    assert found.metrics["macro_f1"].value == pytest.approx(gain)


def test_mcnemar_by_hand():
    labels = np.zeros(30, int)
    first, second = np.zeros(30, int), np.zeros(30, int)
    first[:9], second[9:11], second[11:15], first[11:15] = 1, 1, 1, 1  # 9 against 2; both are wrong on four
    found = paired_difference(labels, np.eye(2)[first], np.eye(2)[second])
    assert (found.only_first_right, found.only_second_right) == (2, 9)
    assert found.p_value == pytest.approx(2 * (1 + 11 + 55) / 2**11)


def test_wrong_arrays_are_named():
    labels, p = draw_classes(9)
    with pytest.raises(ValueError, match=r"groups has shape \(2,\) for 300 images"):
        bootstrap_intervals(labels, p, np.zeros(2))
    with pytest.raises(ValueError, match=r"shape \(300, 4\) and \(300, 5\)"):
        paired_difference(labels, p, np.full((300, 5), 0.2))
