import numpy as np
import pytest
from reference import random_runs, vus_by_definition

from tocsin.metrics.functional import auc_roc
from tocsin.metrics.vus import vus


def mask(n, *ranges):
    values = np.zeros(n, dtype=bool)
    for start, end in ranges:
        values[start:end] = True
    return values


LABELS = mask(1000, (400, 450), (700, 710))
EVERY_TENTH = np.arange(1000) % 10 == 0
# Spec 7.4: values of the original TSB-AD code for W = 20 and 250 thresholds.
TSB_AD = {
    "exact": (LABELS, 1.0000, 0.9992),
    "shifted": (mask(1000, (405, 455), (705, 715)), 0.9576, 0.7930),
    "two_points": (mask(1000, (420, 421), (705, 706)), 0.5213, 0.0836),
    "one_event": (mask(1000, (395, 455)), 0.8279, 0.5004),
    "every_tenth": (EVERY_TENTH, 0.5189, 0.0718),
}


@pytest.mark.parametrize("name", TSB_AD)
def test_reference_vectors_of_tsb_ad(name):
    predicted, roc, pr = TSB_AD[name]
    scores = predicted + 1e-9 * np.arange(1000)
    assert vus(scores, LABELS, buffer=20) == pytest.approx((pr, roc), abs=5e-5)


@pytest.mark.parametrize("seed", range(30))
def test_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 90))
    labels = random_runs(rng, n)
    scores = rng.normal(size=n) + rng.integers(0, 2) * labels
    if seed % 3 == 0:
        scores = np.round(scores)  # ties
    buffer, n_thresholds = int(rng.integers(0, 30)), int(rng.choice([2, 7, 60]))
    expected = vus_by_definition(scores, labels, buffer, n_thresholds)
    assert vus(scores, labels, buffer=buffer, n_thresholds=n_thresholds) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "labels",
    [
        mask(60, (0, 5)),
        mask(60, (55, 60)),
        mask(60, (0, 3), (57, 60)),
        mask(60, (30, 31)),
        mask(60, (20, 22), (23, 24), (25, 30)),
        mask(60, (10, 15), (20, 21), (26, 27)),
        mask(60, (0, 29), (30, 60)),
    ],
    ids=["start", "end", "both", "one_point", "one_apart", "gaps_within_buffer", "almost_all"],
)
def test_equals_the_definition_at_borders_and_merged_regions(labels):
    scores = np.random.default_rng(1).normal(size=60)
    for buffer in (0, 1, 2, 9, 10, 100):
        expected = vus_by_definition(scores, labels, buffer, 25)
        assert vus(scores, labels, buffer=buffer, n_thresholds=25) == pytest.approx(expected, abs=1e-9)


def test_shift_of_scores_changes_nothing():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=500), random_runs(rng, 500, share=0.02)
    assert vus(scores + 100, labels) == vus(scores, labels)


def test_random_scores_have_a_roc_floor_above_one_half():
    draws = [vus(np.random.default_rng(i).random(1000), LABELS, buffer=20) for i in range(60)]
    pr, roc = np.mean(draws, axis=0)
    assert roc == pytest.approx(0.58, abs=0.02)
    assert pr == pytest.approx(0.084, abs=0.008)


def test_without_buffer_and_with_every_threshold_one_event_is_the_plain_auc():
    rng = np.random.default_rng(2)
    labels = mask(200, (50, 80))
    scores = rng.normal(size=200) + labels
    scores[50] = 10  # the event is found from the first threshold on
    ours = vus(scores, labels, buffer=0, n_thresholds=200).roc
    assert ours == pytest.approx(auc_roc(scores, labels), abs=1e-12)


def test_buffers_and_events_end_at_series_borders():
    rng = np.random.default_rng(3)
    first, second = mask(40, (30, 40)), mask(50, (0, 4), (20, 25))
    scores, labels = rng.normal(size=90), np.concatenate([first, second])
    ours = vus(scores, labels, buffer=20, n_thresholds=90, lengths=(40, 50))
    # The same points with normal points of the lowest score between the series. With a threshold at every
    # rank these add only thresholds at which the recall has stopped growing, so VUS-PR is the same.
    room = 200
    apart = np.concatenate([first, np.zeros(room, bool), second])
    lowest = np.concatenate([scores[:40], np.full(room, scores.min() - 1), scores[40:]])
    assert ours.pr == pytest.approx(vus_by_definition(lowest, apart, 20, 90 + room)[0], abs=1e-9)
    assert abs(ours.pr - vus(scores, labels, buffer=20, n_thresholds=90).pr) > 1e-4


def test_one_class_is_undefined_not_zero():
    scores = np.arange(30.0)
    assert np.isnan(vus(scores, np.zeros(30))).all()
    every = vus(scores, np.ones(30))
    assert every.pr == pytest.approx(1.0)
    assert np.isnan(every.roc)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"buffer": -1}, "buffer must be at least 0, got -1"),
        ({"n_thresholds": 1}, "n_thresholds must be at least 2, got 1"),
        ({"lengths": (5, 6)}, "lengths sum to 11, but there are 10 points"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        vus(np.arange(10.0), np.arange(10) == 3, **arguments)
