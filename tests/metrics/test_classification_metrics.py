"""Metrics of classifiers against scikit-learn, torchmetrics, loops and numbers by hand."""

import math

import numpy as np
import pytest
import torch
from reference import draw_classes as draw
from sklearn import metrics as sk
from torchmetrics.functional import classification as tm

from tocsin.metrics.classification import (
    alarm_rates,
    auroc,
    calibration_bins,
    classification_metrics,
    confusion,
    defect_probability,
    expected_calibration_error,
    miss_rate_at_fpr,
    per_class,
    selective_error,
)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("K", [2, 3, 6])
def test_metrics_equal_scikit_learn(K, ties):
    labels, p = draw(K, K=K, ties=ties)
    predicted = p.argmax(1)
    found = classification_metrics(labels, p)
    area = sk.roc_auc_score(labels, p[:, 1]) if K == 2 else sk.roc_auc_score(labels, p, multi_class="ovr")
    assert found == pytest.approx(
        {
            "accuracy": sk.accuracy_score(labels, predicted),
            "macro_f1": sk.f1_score(labels, predicted, average="macro"),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
            "auroc": area,
            "ece": found["ece"],  # by a loop below
            "nll": sk.log_loss(labels, p),
            "brier": np.mean(((p - np.eye(K)[labels]) ** 2).sum(1)),
        },
        abs=1e-12,
    )
    assert 0.55 < found["auroc"] < 0.95


def test_metrics_equal_torchmetrics():
    labels, p = draw(1, K=5)
    found = classification_metrics(labels, p)
    tensors = torch.tensor(p), torch.tensor(labels)
    assert found["macro_f1"] == pytest.approx(float(tm.multiclass_f1_score(*tensors, 5, "macro")), abs=1e-6)
    assert found["auroc"] == pytest.approx(float(tm.multiclass_auroc(*tensors, 5)), abs=1e-6)
    assert found["balanced_accuracy"] == pytest.approx(
        float(tm.multiclass_recall(*tensors, 5, "macro")), abs=1e-6
    )


def test_a_class_without_images_and_predictions_is_left_out_and_one_with_predictions_counts_as_zero():
    labels = np.array([0, 0, 1, 1])
    p = np.eye(4)[[0, 0, 1, 2]]  # class 3 occurs nowhere, class 2 only as a prediction
    found = classification_metrics(labels, p)
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["auroc"] == pytest.approx((1 + 0.75) / 2)  # of classes 0 and 1


def test_one_class_alone_has_no_auroc():
    for K in (2, 3):
        found = classification_metrics(
            np.zeros(5, int), np.full((5, K), 1 / K), ok_class_index=0, threshold=0.9
        )
        assert math.isnan(found["auroc"])
        assert math.isnan(found["miss_rate"])
        assert math.isnan(found["miss_rate_at_fpr_01"])
        assert found["false_alarm_rate"] == 0


def test_the_positive_class_of_two_is_the_defective_one():
    labels = np.array([0, 1, 0, 1])
    p = np.array(
        [[1.0, 1e-9], [1.0, 3e-9], [1.0, 2e-9], [0.1, 0.9]]
    )  # class 1 has ranks where class 0 has ties
    assert auroc(labels, p) == auroc(labels, p, ok_class_index=0) == 1.0
    assert auroc(labels, p, ok_class_index=1) == 0.75


def test_confusion_has_true_classes_in_rows():
    counts = confusion(np.array([0, 0, 0, 2]), np.array([1, 1, 0, 2]), 3)
    assert counts.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]
    assert counts.dtype == np.int64
    assert confusion(np.array([True]), np.array([False]), 2).tolist() == [[0, 0], [1, 0]]


def test_per_class_equals_scikit_learn_and_says_what_is_undefined():
    labels, p = draw(3, K=3)
    found = per_class(labels, p.argmax(1), ["a", "b", "c", "d"])
    rows = np.array(sk.precision_recall_fscore_support(labels, p.argmax(1)))
    for k, name in enumerate("abc"):
        assert list(found[name].values()) == pytest.approx(rows[:, k].tolist())
    assert found["d"]["support"] == 0
    assert all(math.isnan(found["d"][metric]) for metric in ("precision", "recall", "f1"))
    never = per_class(np.array([0, 1]), np.array([0, 0]), ["a", "b"])["b"]
    assert math.isnan(never["precision"])
    assert (never["recall"], never["f1"]) == (0, 0)


# --- calibration error --------------------------------------------------------------------------------------


def ece_by_loop(labels, p, bins):
    """Equal mass: every N / bins-th of the sorted confidences opens a bin; equal ones stay together."""
    confidence, right = p.max(1), p.argmax(1) == labels
    ordered = sorted(confidence)
    starts = sorted({ordered[i * len(ordered) // bins] for i in range(1, bins)})
    groups = {}
    for c, r in zip(confidence, right, strict=True):
        groups.setdefault(sum(c >= start for start in starts), []).append((c, r))
    return sum(abs(sum(c - r for c, r in group)) for group in groups.values()) / len(labels)


@pytest.mark.parametrize("N", [7, 100, 301])
@pytest.mark.parametrize("ties", [False, True])
def test_calibration_error_equals_a_loop(N, ties):
    labels, p = draw(4, N=N, ties=ties)
    assert expected_calibration_error(labels, p) == pytest.approx(ece_by_loop(labels, p, 15), abs=1e-12)


def test_bins_have_equal_mass_whatever_the_confidence():
    labels, p = draw(5, N=300)
    images, confidence, accuracy = calibration_bins(labels, p)
    assert images.tolist() == [20] * 15
    assert (np.diff(confidence) > 0).all()
    assert images @ accuracy == pytest.approx((p.argmax(1) == labels).sum())


def test_calibration_error_does_not_depend_on_the_order_of_images():
    labels, p = draw(6, N=200, ties=True)
    order = np.random.default_rng(0).permutation(200)
    assert expected_calibration_error(labels, p) == pytest.approx(
        expected_calibration_error(labels[order], p[order]), abs=1e-12
    )


def test_calibration_error_by_hand():
    p = np.array([[0.8, 0.2]] * 10)
    assert expected_calibration_error(np.array([0] * 6 + [1] * 4), p) == pytest.approx(0.2)
    assert expected_calibration_error(np.array([0] * 8 + [1] * 2), p) == pytest.approx(0.0, abs=1e-12)


def test_errors_among_the_surest_images_by_hand():
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.8, 0.2], [0.6, 0.4]])
    # The surest is right; then two as sure as each other, one of them wrong; then a wrong one.
    assert selective_error(np.array([0, 1, 1, 1]), p) == pytest.approx(
        np.array([[0.25, 0], [0.75, 1 / 3], [1, 0.5]])
    )


# --- alarms -------------------------------------------------------------------------------------------------


def test_defect_probability_adds_the_other_classes_and_keeps_small_ones_apart():
    p = np.array([[1.0, 1e-20, 0], [1.0, 3e-20, 1e-20], [0.2, 0.5, 0.3]])
    assert defect_probability(p, 0) == pytest.approx([1e-20, 4e-20, 0.8])
    assert defect_probability(p, 1)[2] == pytest.approx(0.5)


def test_rates_of_alarms_by_hand():
    scores = np.array([0.1, 0.5, 0.9, 0.4, 0.5, 0.8])
    defective = np.array([False, False, False, True, True, True])
    assert alarm_rates(scores, defective, 0.5) == {
        "miss_rate": pytest.approx(1 / 3),
        "false_alarm_rate": pytest.approx(2 / 3),
    }


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.05, 0.07, 0.5])
@pytest.mark.parametrize("ties", [False, True])
def test_miss_rate_at_a_false_alarm_rate_is_the_best_of_all_thresholds(fpr, ties):
    labels, p = draw(7, ties=ties)
    scores, defective = defect_probability(p, 0), labels != 0
    rates = [alarm_rates(scores, defective, t) for t in [*np.unique(scores), np.inf]]
    best = min(r["miss_rate"] for r in rates if r["false_alarm_rate"] <= fpr + 1e-12)
    assert miss_rate_at_fpr(scores, defective, fpr) == pytest.approx(best, abs=1e-12)


def test_rounding_allows_no_false_alarm_less():
    scores, defective = np.append(np.arange(100), 70.5), np.arange(101) == 100
    assert miss_rate_at_fpr(scores, defective, 0.29) == 0  # 0.29 * 100 is 28.999999999999996
    assert miss_rate_at_fpr(scores, defective, 0.28) == 1


def test_metrics_with_an_ok_class_use_the_threshold_given():
    labels, p = draw(8)
    scores, defective = defect_probability(p, 1), labels != 1
    found = classification_metrics(labels, p, ok_class_index=1, threshold=0.3)
    assert found["miss_rate"] == alarm_rates(scores, defective, 0.3)["miss_rate"]
    assert found["miss_rate_at_fpr_05"] == miss_rate_at_fpr(scores, defective, 0.05)
    assert found["miss_rate_at_fpr_01"] == miss_rate_at_fpr(scores, defective, 0.01)
    assert "miss_rate" not in classification_metrics(labels, p, ok_class_index=1)


# --- bad arrays ---------------------------------------------------------------------------------------------


def test_wrong_arrays_are_named():
    labels, p = draw()
    cases = {
        r"probabilities must be \(images, classes\), got shape \(0, 3\)": (labels[:0], np.empty((0, 3))),
        "300 labels, but probabilities of 299 images": (labels, p[1:]),
        "labels holds 0 to 3: classes are 0 to 2": (labels, np.full((300, 3), 1 / 3)),
        "labels must be .* whole numbers, got float64": (labels.astype(float), p),
        "of 2 of 300 images .* the first at index 4": (
            labels,
            np.where(np.isin(np.arange(300), [4, 9])[:, None], np.nan, p),
        ),
        "give the softmax of the logits": (labels, np.log(p)),
    }
    for message, arrays in cases.items():
        with pytest.raises(ValueError, match=message):
            classification_metrics(*arrays)
    with pytest.raises(ValueError, match="ok_class_index=4 is none of 4 classes"):
        classification_metrics(labels, p, ok_class_index=4)
    with pytest.raises(ValueError, match="the threshold is NaN"):
        classification_metrics(labels, p, ok_class_index=0, threshold=math.nan)
    with pytest.raises(ValueError, match="2 labels, but 1 predictions"):
        confusion(np.zeros(2, int), np.zeros(1, int), 2)
    with pytest.raises(ValueError, match=r"fpr=1 is not in \[0, 1\)"):
        miss_rate_at_fpr(p[:, 0], labels == 0, 1)
    with pytest.raises(ValueError, match="bins=0"):
        calibration_bins(labels, p, 0)
