import numpy as np
import pytest
import torch
from reference import random_runs
from sklearn.metrics import roc_auc_score

from tocsin.metrics.affiliation import affiliation
from tocsin.metrics.series import SeriesMetrics, threshold_free_metrics, thresholded_metrics
from tocsin.metrics.vus import vus

NAMES = ["vus_pr", "vus_roc", "auc_pr", "auc_roc"]


def draw(n=300):
    rng = np.random.default_rng(0)
    labels = random_runs(rng, n, share=0.03)
    scores = (rng.normal(size=n) + labels).astype(np.float32)
    return torch.from_numpy(scores), torch.from_numpy(labels)


@pytest.mark.parametrize("size", [1, 7, 300])
def test_batch_size_does_not_matter(size):
    scores, labels = draw()
    metric = SeriesMetrics(buffer=20)
    for i in range(0, 300, size):
        metric.update(scores[i : i + size], labels[i : i + size])
    computed = metric.compute()
    assert list(computed) == NAMES
    assert computed["auc_roc"].item() == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    expected = vus(scores.numpy(), labels.numpy(), buffer=20)
    assert (computed["vus_pr"].item(), computed["vus_roc"].item()) == expected


def test_large_offsets_do_not_change_single_point_updates():
    scores, labels = draw()
    metric = SeriesMetrics(buffer=20)
    for score, label in zip(scores.double() + 1e6, labels, strict=True):  # float32 would tie most of them
        metric.update(score[None], label[None])
    expected = threshold_free_metrics(scores.numpy(), labels.numpy(), buffer=20)
    assert {k: v.item() for k, v in metric.compute().items()} == pytest.approx(expected, abs=1e-12)


def test_half_precision_and_reset():
    metric = SeriesMetrics(buffer=4)
    metric.update(torch.tensor([9.0, 9.0]), torch.tensor([0, 1]))
    metric.reset()
    metric.update(torch.tensor([1.0, 2.0, 8.0, 1.0], dtype=torch.bfloat16), torch.tensor([0, 0, 1, 0]))
    assert metric.compute()["auc_roc"] == 1


def test_lengths_reach_vus():
    scores, labels = draw()
    labels = labels.clone()
    labels[100:104] = True
    whole, parts = SeriesMetrics(buffer=20), SeriesMetrics(buffer=20, lengths=(102, 198))
    whole.update(scores, labels)
    parts.update(scores, labels)
    expected = vus(scores.numpy(), labels.numpy(), buffer=20, lengths=(102, 198))
    assert parts.compute()["vus_pr"].item() == expected.pr
    assert parts.compute()["vus_pr"] != whole.compute()["vus_pr"]


def test_no_anomaly_is_undefined():
    metric = SeriesMetrics()
    metric.update(torch.arange(5.0), torch.zeros(5))
    assert all(value.isnan() for value in metric.compute().values())


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"must both have shape \(N,\), got \(2, 3\) and \(2, 3\)"):
        SeriesMetrics().update(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"got \(3,\) and \(2,\)"):
        SeriesMetrics().update(torch.zeros(3), torch.zeros(2))


def test_thresholded_metrics_by_name():
    labels, predicted = np.zeros(1000, bool), np.zeros(1000, bool)
    labels[100:110] = labels[500:520] = True
    predicted[104:108] = predicted[800:804] = True
    near = affiliation(predicted, labels)
    assert thresholded_metrics(predicted, labels) == pytest.approx(
        {
            "point_f1": 8 / 38,
            "point_precision": 0.5,
            "point_recall": 4 / 30,
            "affiliation_f1": near.f1,
            "affiliation_precision": near.precision,
            "affiliation_recall": near.recall,
            "range_f1": 2 * 0.5 * 0.26 / 0.76,  # recall of the found event .2 + .8 * .4, of the other 0
            "event_recall": 0.5,
            "event_f1": 0.5,
            "false_alarms_per_1000": 1.0,
            "detection_delay": 4.0,
        }
    )


def test_thresholded_metrics_undefined_values():
    nothing, some = np.zeros(100, bool), np.arange(100) < 5
    without_events = thresholded_metrics(some, nothing)
    assert without_events.pop("false_alarms_per_1000") == 10
    assert np.isnan(list(without_events.values())).all()
    without_alarms = thresholded_metrics(nothing, some)
    undefined = {name for name, value in without_alarms.items() if np.isnan(value)}
    assert undefined == {"point_precision", "affiliation_precision", "detection_delay"}
    assert not any(without_alarms[name] for name in set(without_alarms) - undefined)
