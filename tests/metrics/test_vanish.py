"""Vanish rates in scenes worked out by hand."""

import numpy as np
import pytest
from reference_boxes import draw_boxes

from tocsin.metrics.box_matching import ImageBoxes
from tocsin.metrics.vanish import new_persons, person_confidence, vanish_metrics

A, B, C = [0, 0, 10, 20], [30, 0, 40, 20], [60, 0, 70, 20]
GROUP = [80, 0, 100, 20]
# Image 0 shows A, B and a group; image 1 shows A, B, C; image 2 shows C, too small for a patch; image 3 nobody.
TRUTH = ImageBoxes([A, B, GROUP, A, B, C, C], [0, 0, 0, 1, 1, 1, 2], None, [0, 0, 1, 0, 0, 0, 0])
TARGET = np.array([1, 1, 0, 1, 1, 1, 0], bool)
CLEAN = ImageBoxes([A, B, A, B, C, C], [0, 0, 1, 1, 1, 2], [0.9, 0.3, 0.8, 0.6, 0.2, 0.9])
# A of image 0 is hardly seen, B is seen better; in image 1 A is lost, B less sure, C found; a new person in image 3.
PATCHED = ImageBoxes([A, B, B, C, C, [0, 50, 9, 60]], [0, 0, 1, 1, 2, 3], [0.1, 0.55, 0.4, 0.3, 0.9, 0.6])


def measured(clean=CLEAN, patched=PATCHED, **options):
    found = vanish_metrics(clean, patched, TRUTH, TARGET, n_images=4, **options)
    return {name: rate.value for name, rate in found.items()}


def test_rates_of_a_scene():
    assert person_confidence(CLEAN, TRUTH).tolist() == [0.9, 0.3, 0, 0.8, 0.6, 0.2, 0.9]
    assert person_confidence(PATCHED, TRUTH).tolist() == [0.1, 0.55, 0, 0, 0.4, 0.3, 0.9]
    expected = {
        "vanish_25": 2 / 4,  # A and A of A, B, A, B
        "unseen_25": 2 / 4,  # nothing is near those two
        "unseen_50": 3 / 3,
        "nobody_left_25": 0,
        "recall_clean_25": 4 / 5,
        "recall_patch_25": 3 / 5,
        "new_persons_25": 1 / 4,
        "vanish_50": 3 / 3,  # A, A and B; the B that gained was not sure before
        "nobody_left_50": 1 / 2,  # in image 0 there is B
        "recall_clean_50": 3 / 5,
        "recall_patch_50": 1 / 5,
        "new_persons_50": 1 / 4,
        "confidence_change": (0.1 + 0.55 + 0 + 0.4 + 0.3 - 0.9 - 0.3 - 0.8 - 0.6 - 0.2) / 5,
    }
    assert measured() == pytest.approx(expected)
    no_crowds = TARGET | TRUTH.crowd  # one that is called a target is none all the same
    found = vanish_metrics(CLEAN, PATCHED, TRUTH, no_crowds, n_images=4, n=0)
    assert {name: rate.value for name, rate in found.items()} == pytest.approx(expected)


def test_without_a_patch_nothing_vanishes_and_nothing_is_new():
    found = measured(CLEAN, CLEAN)
    assert [found[name] for name in ("vanish_25", "vanish_50", "confidence_change", "new_persons_25")] == [
        0
    ] * 4
    assert found["recall_patch_25"] == found["recall_clean_25"] == 0.8


def test_a_detection_of_the_neighbour_does_not_stand_in_for_a_lost_person():
    """Two persons so close that each detection overlaps both: one detection finds one of them."""
    truth = ImageBoxes([[0, 0, 10, 10], [2, 0, 12, 10]], [0, 0])
    both = ImageBoxes(truth.boxes, [0, 0], [0.9, 0.8])
    one = ImageBoxes([[2, 0, 12, 10]], [0], [0.9])
    found = vanish_metrics(both, one, truth, np.array([True, False]), n_images=1, n=0)
    assert found["vanish_50"].value == 1
    assert found["recall_clean_50"].value == 1


def test_a_box_moved_off_its_person_is_lost_but_not_unseen():
    moved = ImageBoxes(
        [[0, 8, 10, 28], [36, 0, 46, 20]], [0, 0], [0.9, 0.3]
    )  # they overlap by 3/7 and by 1/4
    truth = ImageBoxes([A, B], [0, 0])
    clean = ImageBoxes([A, B], [0, 0], [0.9, 0.9])
    found = vanish_metrics(clean, moved, truth, np.array([True, True]), n_images=1, n=0)
    assert found["vanish_25"].value == 1
    assert found["unseen_25"].value == 0
    assert found["unseen_50"].value == 0.5
    away = ImageBoxes([[0, 17, 10, 37]], [0], [0.9])  # by 3/37
    assert (
        vanish_metrics(clean, away, truth, np.array([True, False]), n_images=1, n=0)["unseen_25"].value == 1
    )


def test_new_persons_are_neither_true_nor_in_a_crowd_nor_there_before():
    clean = ImageBoxes([[0, 50, 10, 60], [20, 50, 30, 60]], [0, 0], [0.6, 0.2])
    boxes = [A, [85, 0, 95, 20], [0, 50, 10, 60], [20, 50, 30, 60], [40, 50, 50, 60], [40, 50, 50, 60], A]
    patched = ImageBoxes(boxes, [0] * 7, [0.9, 0.9, 0.9, 0.9, 0.9, 0.4, 0.8])
    # The fourth was too faint before; the sixth is too faint now; the last is A a second time.
    assert new_persons(clean, patched, TRUTH, tau=0.5).tolist() == [
        False,
        False,
        False,
        True,
        True,
        False,
        True,
    ]


def test_what_is_found_at_a_tau_does_not_depend_on_detections_below_it():
    detections, truth = draw_boxes(0, n_images=30)
    whole = person_confidence(detections, truth)
    for tau in (0.25, 0.5, 0.8):
        sure = person_confidence(detections.where(detections.scores >= tau), truth)
        np.testing.assert_array_equal(whole >= tau, sure >= tau)
    assert 0.3 < (whole >= 0.25).mean() < (whole > 0).mean() < 1


def test_intervals_are_over_images():
    found = vanish_metrics(CLEAN, PATCHED, TRUTH, TARGET, n_images=4)
    # A resample draws image 0 (1 of 2 lost), image 1 (1 of 2 lost), or neither.
    assert found["vanish_25"] == (0.5, 0.5, 0.5)
    # Image 1 alone gives 1, image 0 alone 0.
    assert found["nobody_left_50"] == (0.5, 0, 1)
    one = vanish_metrics(CLEAN, PATCHED, TRUTH, TARGET, n_images=4, n=0)["vanish_25"]
    assert np.isnan([one.low, one.high]).all()


def test_without_targets_rates_are_undefined():
    found = vanish_metrics(CLEAN, PATCHED, TRUTH, np.zeros(7, bool), n_images=4, taus=[0.25])
    undefined = {name for name, rate in found.items() if np.isnan(rate.value)}
    assert undefined == set(found) - {"new_persons_25"}


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"target has shape \(2,\) for 7 persons"):
        vanish_metrics(CLEAN, PATCHED, TRUTH, TARGET[:2], n_images=4)
    with pytest.raises(ValueError, match=r"tau 25 is no confidence in \(0, 1\)"):
        measured(taus=[25])
    with pytest.raises(ValueError, match="a box belongs to image 3, but there are 3"):
        vanish_metrics(CLEAN, PATCHED, TRUTH, TARGET, n_images=3)
    with pytest.raises(ValueError, match="detections have no scores"):
        measured(clean=TRUTH)
