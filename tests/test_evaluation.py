"""Samples, thresholds and metrics against loops over hand-made arrays."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from tocsin.evaluation import (
    AGGREGATIONS,
    Calibration,
    Samples,
    calibrate,
    evaluate,
    event_recall_by_type,
    oracle,
)
from tocsin.metrics.thresholds import Auto, BestF1, Quantile

WINDOW = 20
LENGTHS = (250, 210)  # long series: at least ten windows


def drawn(lengths: Sequence[int] = LENGTHS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, a little higher where a label is set."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(sum(lengths), dtype=bool)
    for start in range(30, len(labels), 90):
        labels[start : start + 12] = True
    return np.round(rng.normal(size=len(labels)) + 1.5 * labels, 1), labels


def test_an_alarm_must_last() -> None:
    scores = np.array([0, 2, 0, 2, 2, 2, 0, 2, 2])
    found = Calibration(method="fixed", point=2.0, sample=2.0, min_duration=2)
    assert found.alarms(scores, (9,)).astype(int).tolist() == [0, 0, 0, 1, 1, 1, 0, 1, 1]
    assert found.alarms(scores, (4, 5)).astype(int).tolist() == [0, 0, 0, 0, 1, 1, 0, 1, 1]
    labels = np.array([0, 1, 0, 1, 1, 1, 0, 1, 1], dtype=bool)
    metrics = evaluate(scores, labels, lengths=(9,), window=3, calibration=found)
    assert metrics["point_precision"] == 1
    assert metrics["point_recall"] == pytest.approx(5 / 6)


def layout(lengths: Sequence[int], window: int) -> list[tuple[int, int]]:
    """Begin and end of each sample, by walking."""
    found, begin = [], 0
    long = max(lengths) >= 10 * window
    for length in lengths:
        if not long:
            found.append((begin, begin + length))
        else:
            at = begin
            while at + window <= begin + length:
                found.append((at, at + window))
                at += window
        begin += length
    return found


def aggregated(points: np.ndarray, aggregation: str) -> float:
    highest = sorted(points.tolist(), reverse=True)
    count = {"mean": len(highest), "max": 1, "topk_mean": max(1, round(0.05 * len(highest)))}[aggregation]
    return sum(highest[:count]) / count


# --- samples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(250,), (250, 210), (199, 64, 7), (200,), (250, 15)])
def test_layout_of_samples(lengths: tuple[int, ...]) -> None:
    samples = Samples.of(lengths, WINDOW)
    assert list(zip(samples.begin.tolist(), samples.end.tolist(), strict=True)) == layout(lengths, WINDOW)


@pytest.mark.parametrize("lengths", [(250, 210), (199, 64, 7)])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_scores_of_samples(lengths: tuple[int, ...], aggregation: str, shift: float) -> None:
    scores, labels = drawn(lengths)
    samples = Samples.of(lengths, WINDOW)
    expected = [aggregated(scores[a:b] + shift, aggregation) for a, b in layout(lengths, WINDOW)]
    np.testing.assert_allclose(samples.scores(scores + shift, aggregation), expected, rtol=1e-12, atol=1e-12)
    marked = [bool(labels[a:b].any()) for a, b in layout(lengths, WINDOW)]
    assert samples.labels(labels).tolist() == marked
    assert 0 < sum(marked) < len(marked)


def test_topk_mean_takes_a_twentieth_of_the_points() -> None:
    samples = Samples.of((100,), 100)
    scores = np.arange(100.0)
    assert samples.scores(scores).tolist() == [pytest.approx((95 + 96 + 97 + 98 + 99) / 5)]


def test_unknown_aggregation_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="series_agg='median' is not one of topk_mean, mean, max"):
        Samples.of((100,), 100).scores(np.zeros(100), "median")


# --- thresholds ---------------------------------------------------------------------------------------------


def test_calibration_is_that_of_the_threshold_on_points_and_on_samples() -> None:
    scores, _ = drawn()
    found = calibrate(scores, None, lengths=LENGTHS, window=WINDOW, threshold=Quantile(level=0.9))
    samples = [aggregated(scores[a:b], "topk_mean") for a, b in layout(LENGTHS, WINDOW)]
    assert found.method == "quantile"
    assert found.point == pytest.approx(np.quantile(scores, 0.9), rel=1e-5)
    assert found.sample == pytest.approx(np.quantile(samples, 0.9), rel=1e-5)
    assert (scores >= found.point).mean() <= 0.1


def test_calibration_with_labels_finds_the_best_cut_of_all() -> None:
    scores, labels = drawn()
    found = calibrate(scores, labels, lengths=LENGTHS, window=WINDOW, threshold=BestF1())
    best = max(f1_score(labels, scores >= cut) for cut in np.unique(scores))
    assert f1_score(labels, scores >= found.point) == pytest.approx(best)


def test_method_is_the_one_that_was_used_for_points() -> None:
    scores, labels = drawn()
    arguments = {"lengths": LENGTHS, "window": WINDOW}
    assert calibrate(scores, labels, threshold=Auto(), **arguments).method == "best_f1"
    assert calibrate(scores, None, threshold=Auto(), **arguments).method == "pot"
    assert calibrate(scores, np.zeros_like(labels), threshold=Auto(), **arguments).method == "pot"


# --- metrics ------------------------------------------------------------------------------------------------


def measured(scores: np.ndarray, labels: np.ndarray, **changes: object) -> dict[str, float]:
    arguments: dict[str, object] = {
        "lengths": LENGTHS,
        "window": WINDOW,
        "calibration": Calibration(method="fixed", point=1.2, sample=2.0),
        "buffer": 10,
    }
    return evaluate(scores, labels, **{**arguments, **changes})  # type: ignore[arg-type]


def test_thresholded_metrics_are_those_of_sklearn() -> None:
    scores, labels = drawn()
    found = measured(scores, labels)
    assert found["point_f1"] == pytest.approx(f1_score(labels, scores >= 1.2))
    spans = layout(LENGTHS, WINDOW)
    on_samples = np.array([aggregated(scores[a:b], "topk_mean") for a, b in spans])
    truth = [labels[a:b].any() for a, b in spans]
    assert found["series_f1"] == pytest.approx(f1_score(truth, on_samples >= 2.0))
    assert found["series_auroc"] == pytest.approx(roc_auc_score(truth, on_samples))
    assert 0 < found["point_f1"] < 1
    assert 0 < found["series_f1"] < 1


def test_long_series_are_averaged_because_their_scores_need_not_compare() -> None:
    scores, labels = drawn()
    shifted = scores + np.repeat([0.0, 1000.0], LENGTHS)
    found, same = measured(shifted, labels), measured(scores, labels)
    first, second = slice(0, 250), slice(250, None)
    for name, metric in (("auc_pr", average_precision_score), ("auc_roc", roc_auc_score)):
        expected = (metric(labels[first], scores[first]) + metric(labels[second], scores[second])) / 2
        assert found[name] == pytest.approx(expected)
    assert (found["vus_pr"], found["vus_roc"]) == (
        pytest.approx(same["vus_pr"]),
        pytest.approx(same["vus_roc"]),
    )


def test_series_without_an_anomaly_does_not_enter_the_average() -> None:
    scores, labels = drawn()
    labels[250:] = False
    alone = measured(scores[:250], labels[:250], lengths=(250,))
    found = measured(scores, labels)
    for name in ("vus_pr", "vus_roc", "auc_pr", "auc_roc"):
        assert found[name] == pytest.approx(alone[name])


def test_short_series_are_ranked_together() -> None:
    lengths = (50,) * 9
    scores, labels = drawn(lengths)
    found = measured(scores, labels, lengths=lengths)
    assert found["auc_pr"] == pytest.approx(average_precision_score(labels, scores))


@pytest.mark.parametrize("lengths", [(460,), (250, 210), (46,) * 10])
def test_metrics_without_any_anomaly_are_undefined_but_named(lengths: tuple[int, ...]) -> None:
    scores, labels = drawn(lengths)
    whole = measured(scores, labels, lengths=lengths)
    found = measured(scores, np.zeros_like(labels), lengths=lengths)
    assert found.keys() == whole.keys()
    assert all(math.isnan(found[name]) for name in ("vus_pr", "vus_roc", "auc_pr", "auc_roc", "point_f1"))


def test_scores_plus_a_hundred_give_the_same_metrics() -> None:
    scores, labels = drawn()
    far = Calibration(method="fixed", point=101.2, sample=102.0)
    # Sums of tenths round differently; no score lies on a cut.
    assert measured(scores + 0.05, labels) == pytest.approx(
        measured(scores + 100.05, labels, calibration=far), nan_ok=True
    )


def test_test_labels_move_metrics_but_no_threshold() -> None:
    scores, labels = drawn()
    val_scores, _ = drawn(seed=1)
    other = np.random.default_rng(5).permutation(labels)
    rows = []
    for truth in (labels, other):
        found = calibrate(val_scores, None, lengths=LENGTHS, window=WINDOW, threshold=Auto())
        rows.append((found, measured(scores, truth, calibration=found)))
    assert rows[0][0] == rows[1][0]
    assert rows[0][1]["point_f1"] != rows[1][1]["point_f1"]


# --- oracle and events --------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_oracle_is_the_best_of_all_cuts(aggregation: str) -> None:
    scores, labels = drawn()
    found = oracle(scores, labels, lengths=LENGTHS, window=WINDOW, aggregation=aggregation)
    assert found["point_f1"] == pytest.approx(max(f1_score(labels, scores >= c) for c in np.unique(scores)))
    spans = layout(LENGTHS, WINDOW)
    on_samples = np.array([aggregated(scores[a:b], aggregation) for a, b in spans])
    truth = [labels[a:b].any() for a, b in spans]
    best = max(f1_score(truth, on_samples >= cut) for cut in np.unique(on_samples))
    assert found["series_f1"] == pytest.approx(best)
    assert f1_score(labels, scores >= found["point_threshold"]) == pytest.approx(found["point_f1"])


def test_oracle_of_unlabelled_anomalies_is_empty() -> None:
    scores, labels = drawn()
    assert oracle(scores, np.zeros_like(labels), lengths=LENGTHS, window=WINDOW) == {}


def test_event_recall_by_type() -> None:
    events = pd.DataFrame(
        {"start": [0, 10, 20, 30, 40], "end": [5, 15, 25, 35, 50], "type": ["a", "a", "b", "c", "a"]}
    )
    predicted = np.zeros(50, dtype=bool)
    predicted[[4, 15, 24, 29, 35, 49]] = True  # 15, 29 and 35 lie just outside an event
    assert event_recall_by_type(predicted, events) == {"a": pytest.approx(2 / 3), "b": 1.0, "c": 0.0}
