import itertools

import numpy as np
import pytest
from reference import affiliation_by_sampling, pa_k_by_loop, random_runs, range_precision_recall, runs

from tocsin.metrics.affiliation import affiliation
from tocsin.metrics.events import (
    detection_delay,
    drop_short,
    event_f1,
    event_recall,
    false_alarms_per_1000,
    pa_k_area,
    pa_k_f1,
    point_adjust_f1,
    range_precision_recall_f1,
    segments,
)
from tocsin.metrics.functional import precision_recall_f1


def mask(n, *ranges):
    values = np.zeros(n, dtype=bool)
    for start, end in ranges:
        values[start:end] = True
    return values


LABELS = mask(1000, (400, 450), (700, 710))
# Spec 7.4: F1, PA-F1, PA%20, range P/R/F and affiliation P/R/F of the original TSB-AD and affiliation code.
PUBLISHED = {
    "exact": (LABELS, (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "shifted": (
        mask(1000, (405, 455), (705, 715)),
        (0.8333, 0.9231, 0.9231),
        (0.7, 0.76, 0.7288),
        (0.9864, 0.9966, 0.9915),
    ),
    "two_points": (
        mask(1000, (420, 421), (705, 706)),
        (0.0645, 1.0, 0.0645),
        (1, 0.248, 0.3974),
        (1, 0.9736, 0.9866),
    ),
    "one_event": (
        mask(1000, (395, 455)),
        (0.8333, 0.8333, 0.8333),
        (0.8333, 0.5, 0.625),
        (0.9841, 0.5, 0.6631),
    ),
    "every_tenth": (
        np.arange(1000) % 10 == 0,
        (0.0750, 0.5607, 0.0750),
        (0.06, 0.248, 0.0966),
        (0.5029, 0.9917, 0.6674),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_reference_vectors(name):
    predicted, f1, range_based, affiliated = PUBLISHED[name]
    ours = (
        precision_recall_f1(predicted, LABELS).f1,
        point_adjust_f1(predicted, LABELS),
        pa_k_f1(predicted, LABELS, 20),
    )
    assert ours == pytest.approx(f1, abs=5e-5)
    assert range_precision_recall_f1(predicted, LABELS) == pytest.approx(range_based, abs=5e-5)
    assert affiliation(predicted, LABELS) == pytest.approx(affiliated, abs=5e-5)


def test_all_ones_reach_the_affiliation_floor():
    rng = np.random.default_rng(0)
    labels = np.zeros(25000, dtype=bool)
    for start in np.sort(rng.choice(24, size=9, replace=False)) * 1000 + rng.integers(0, 800, size=9):
        labels[start : start + 100] = True
    assert affiliation(np.ones(25000), labels).f1 == pytest.approx(0.667, abs=0.02)


def test_random_scores_look_good_when_point_adjusted():
    """9 events of 103 in 25 000 points (3.7 %): random scores, tenfold F1 by point adjustment.

    One hit fills an event, so with q the alarm rate the best F1 is about 2h / (h + 24073 q + 927) with
    h = 927 (1 - (1 - q)^103): 0.68 at q = 0.012.
    """
    labels = mask(25000, *[(1000 + 2600 * i, 1103 + 2600 * i) for i in range(9)])
    scores = np.random.default_rng(0).random(25000)
    cuts = np.quantile(scores, np.linspace(0.9, 0.9995, 200))
    assert max(point_adjust_f1(scores >= cut, labels) for cut in cuts) == pytest.approx(0.68, abs=0.06)
    assert max(precision_recall_f1(scores >= cut, labels).f1 for cut in cuts) < 0.08


@pytest.mark.parametrize("seed", range(12))
def test_equal_the_definitions(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(12, 60))
    labels, predicted = random_runs(rng, n), random_runs(rng, n, share=0.5)
    precision, recall = range_precision_recall(predicted, labels)
    assert range_precision_recall_f1(predicted, labels)[:2] == pytest.approx((precision, recall))
    for k in (0, 10, 35, 50, 100):
        assert pa_k_f1(predicted, labels, k) == pytest.approx(pa_k_by_loop(predicted, labels, k))
    found = [predicted[s : e + 1].any() for s, e in runs(labels)]
    assert event_recall(predicted, labels) == pytest.approx(np.mean(found))
    delays = [
        int(np.argmax(predicted[s : e + 1])) for s, e in runs(labels) if predicted[s : e + 1].any()
    ] or [np.nan]
    assert detection_delay(predicted, labels) == pytest.approx(np.mean(delays), nan_ok=True)
    false = [not labels[s : e + 1].any() for s, e in runs(predicted)]
    assert false_alarms_per_1000(predicted, labels) == pytest.approx(1000 * sum(false) / n)


@pytest.mark.parametrize("seed", range(12))
def test_affiliation_equals_its_definition_sampled(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(12, 60))
    labels, predicted = random_runs(rng, n), random_runs(rng, n, share=0.5)
    sampled = affiliation_by_sampling(predicted, labels)
    assert affiliation(predicted, labels)[:2] == pytest.approx(sampled, abs=4e-3, nan_ok=True)


@pytest.mark.parametrize(
    ("labels", "predicted"),
    [
        (mask(30, (0, 30)), mask(30, (4, 6))),
        (mask(30, (0, 1), (29, 30)), mask(30, (0, 30))),
        (mask(30, (5, 6), (8, 9)), mask(30, (6, 8))),
        (mask(30, (10, 20)), mask(30, (0, 1), (29, 30))),
        (mask(30, (10, 20)), mask(30, (12, 13), (15, 16), (20, 22))),
        (mask(30, (3, 5), (10, 12), (20, 21)), mask(30, (2, 25))),
    ],
    ids=["all_true", "all_predicted", "between", "far_ends", "several", "across_zones"],
)
def test_affiliation_at_edges(labels, predicted):
    sampled = affiliation_by_sampling(predicted, labels)
    assert affiliation(predicted, labels)[:2] == pytest.approx(sampled, abs=4e-3)


def test_affiliation_of_several_series_is_the_mean_over_their_events():
    parts = [
        (mask(40, (30, 40)), mask(40, (2, 5), (33, 40))),
        (mask(50, (0, 4), (20, 25)), mask(50, (0, 2), (5, 18), (24, 30))),
    ]
    quiet = (mask(20), mask(20, (0, 20)))  # no event, so no zone: its alarms do not count
    labels, predicted = (np.concatenate(part) for part in zip(parts[0], quiet, parts[1], strict=True))
    alone = [affiliation(p, y) for y, p in parts]
    ours = affiliation(predicted, labels, lengths=(40, 20, 50))
    assert ours.recall == pytest.approx((alone[0].recall + 2 * alone[1].recall) / 3)
    assert ours.precision == pytest.approx((alone[0].precision + 2 * alone[1].precision) / 3)


def test_segments_split_at_series_borders():
    values = mask(10, (0, 2), (3, 7), (9, 10))
    assert segments(values).tolist() == [[0, 2], [3, 7], [9, 10]]
    assert segments(values, (5, 5)).tolist() == [[0, 2], [3, 5], [5, 7], [9, 10]]
    assert segments(values, (7, 3)).tolist() == segments(values).tolist()
    assert segments(mask(4)).shape == (0, 2)


def test_short_runs_are_dropped_within_their_series():
    values = mask(12, (0, 1), (3, 7), (9, 12))
    assert drop_short(values, 1).tolist() == values.tolist()
    assert drop_short(values, 3).tolist() == mask(12, (3, 7), (9, 12)).tolist()
    assert drop_short(values, 4).tolist() == mask(12, (3, 7)).tolist()
    assert drop_short(values, 3, (6, 6)).tolist() == mask(12, (3, 6), (9, 12)).tolist()
    assert not drop_short(values, 5).any()


def test_events_of_two_series_are_two():
    labels, predicted = mask(10, (3, 7)), mask(10, (3, 4), (8, 9))
    assert event_recall(predicted, labels) == 1
    assert event_recall(predicted, labels, lengths=(5, 5)) == 0.5
    assert event_f1(predicted, labels, lengths=(5, 5)) == 0.5  # point precision 1/2, event recall 1/2
    assert event_f1(predicted, labels) == pytest.approx(2 / 3)
    assert point_adjust_f1(predicted, labels) == pytest.approx(8 / 9)
    assert point_adjust_f1(predicted, labels, lengths=(5, 5)) == pytest.approx(4 / 7)


def test_false_alarms_count_runs_that_touch_no_event():
    labels, predicted = mask(500, (100, 110)), mask(500, (95, 101), (200, 250), (300, 301))
    assert false_alarms_per_1000(predicted, labels) == 4


def test_pa_k_area_lies_between_its_ends():
    predicted = mask(100, (10, 15), (60, 61))
    labels = mask(100, (10, 20), (60, 70))
    # 50 % and 10 % of the events are hit: both are filled at K = 0, the first up to K = 40.
    values = [pa_k_f1(predicted, labels, k) for k in range(0, 101, 10)]
    assert values[0] == 1
    assert values[1:5] == pytest.approx([22 / 31] * 4)
    assert values[5:] == pytest.approx([12 / 26] * 6)
    expected = sum((a + b) / 2 for a, b in itertools.pairwise(values)) / 10
    assert pa_k_area(predicted, labels) == pytest.approx(expected)


def test_without_events_or_alarms():
    none, some = mask(20), mask(20, (3, 6))
    assert np.isnan(range_precision_recall_f1(some, none)).all()
    assert np.isnan(affiliation(some, none)).all()
    assert np.isnan([event_recall(some, none), event_f1(some, none), pa_k_area(some, none)]).all()
    assert false_alarms_per_1000(some, none) == 50
    for precision, recall, f1 in (range_precision_recall_f1(none, some), affiliation(none, some)):
        assert np.isnan(precision)
        assert (recall, f1) == (0, 0)
    assert (event_recall(none, some), event_f1(none, some), pa_k_f1(none, some, 0)) == (0, 0, 0)
    assert np.isnan(detection_delay(none, some))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"k is a percentage in \[0, 100\], got 101"):
        pa_k_f1(mask(4), mask(4), 101)
    with pytest.raises(ValueError, match="lengths sum to 3, but there are 4 points"):
        event_recall(mask(4), mask(4), lengths=(1, 2))
    with pytest.raises(ValueError, match="4 predictions, but 5 labels"):
        affiliation(mask(4), mask(5))
    with pytest.raises(ValueError, match="false_alarms_per_1000 needs at least one point"):
        false_alarms_per_1000(mask(0), mask(0))
