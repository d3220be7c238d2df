import numpy as np
import pytest

from tocsin.plots.telling import telling_images, verdict

SCORES = np.array([0.9, 0.1, 0.6, 0.4, 0.7, 0.2, 0.45, 0.95])
LABELS = np.array([1, 1, 0, 0, 0, 1, 0, 1], bool)


def test_each_role_has_its_most_telling_images():
    chosen = telling_images(SCORES, LABELS, 0.5, 7)
    assert chosen == [
        (7, "found"),
        (0, "found"),
        (1, "missed"),
        (5, "missed"),
        (4, "false alarm"),
        (2, "false alarm"),
        (6, "borderline"),
    ]


def test_roles_take_turns_and_no_image_comes_twice():
    assert telling_images(SCORES, LABELS, 0.5, 3) == [(7, "found"), (1, "missed"), (4, "false alarm")]
    every = telling_images(SCORES, LABELS, 0.5, 100)
    assert sorted(image.position for image in every) == list(range(8))


def test_a_role_that_does_not_occur_leaves_its_place_to_others():
    chosen = telling_images(SCORES, np.ones(8, bool), 0.0, 4)
    assert chosen == [(7, "found"), (0, "found"), (1, "borderline"), (5, "borderline")]


def test_without_labels_alarms_and_close_calls_are_told_apart():
    chosen = telling_images(SCORES, None, 0.5, 4)
    assert chosen == [(7, "alarm"), (0, "alarm"), (6, "borderline"), (1, "no alarm")]


def test_scores_that_are_not_finite_are_left_out():
    chosen = telling_images(np.array([np.nan, np.inf, 1.0]), np.ones(3, bool), 0.5, 3)
    assert chosen == [(2, "found")]


def test_a_score_at_the_threshold_is_an_alarm():
    assert [verdict(0.5, label, 0.5) for label in (True, False, None)] == ["found", "false alarm", "alarm"]
    assert [verdict(0.4, label, 0.5) for label in (True, False, None)] == ["missed", "no alarm", "no alarm"]
    assert telling_images(np.array([0.5]), np.array([True]), 0.5, 1) == [(0, "found")]


def test_wrong_arrays_are_named():
    with pytest.raises(ValueError, match=r"scores has shape \(8,\) and labels \(3,\)"):
        telling_images(SCORES, LABELS[:3], 0.5, 2)
    with pytest.raises(ValueError, match="n=0 is not positive"):
        telling_images(SCORES, LABELS, 0.5, 0)
