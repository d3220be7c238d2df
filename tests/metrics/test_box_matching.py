"""Who finds whom, in cases worked out by hand."""

import numpy as np
import pytest

from tocsin.metrics.box_matching import ImageBoxes, match, together

AT_HALF = np.array([0.5])


def found(boxes, scores, truth, owner=None, **options):
    detections = ImageBoxes(boxes, np.zeros(len(boxes)) if owner is None else owner, scores)
    matching = match(detections, truth, iou_thresholds=AT_HALF, **options)
    truth_of = np.full(len(boxes), -9)  # of those left out
    truth_of[matching.place] = matching.truth[0]
    return truth_of.tolist()


def test_the_most_confident_chooses_first_and_each_box_is_found_once():
    truth = ImageBoxes([[0, 0, 10, 10], [4, 0, 14, 10]], [0, 0])
    both = [[1, 0, 11, 10], [0, 0, 10, 10]]
    assert found(both, [0.9, 0.8], truth) == [0, -1]  # the second overlaps what is left by 6 / 14 only
    assert found(both, [0.8, 0.9], truth) == [1, 0]  # now the first takes what is left: 7 / 13


def test_of_two_free_boxes_that_overlap_equally_the_last_is_taken():
    truth = ImageBoxes([[0, 0, 10, 10], [2, 0, 12, 10]], [0, 0])
    assert found([[1, 0, 11, 10]], [0.9], truth) == [1]
    assert found([[1, 0, 11, 10], [1, 0, 11, 10]], [0.9, 0.9], truth) == [1, 0]


def test_half_is_enough_and_a_little_less_is_not():
    truth = ImageBoxes([[0, 0, 10, 10]], [0])
    assert found([[0, 0, 10, 5]], [0.9], truth) == [0]
    assert found([[0, 0, 10, 4.99]], [0.9], truth) == [-1]


def test_a_crowd_takes_any_number_but_a_single_box_is_preferred():
    truth = ImageBoxes([[0, 0, 100, 100], [0, 0, 10, 10]], [0, 0], None, [True, False])
    boxes = [
        [0, 0, 10, 8],
        [0, 0, 10, 10],
        [50, 50, 60, 60],
        [96, 0, 104, 10],
        [94, 0, 106, 10],
        [93, 0, 106, 10],
    ]
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    # half of the fourth and fifth lie in the crowd, 7 / 13 of the last
    assert found(boxes, scores, truth) == [1, 0, 0, 0, 0, 0]
    detections = ImageBoxes(boxes, np.zeros(6), scores)
    assert match(detections, truth).in_crowd[0].tolist() == [False, True, True, True, True, True]
    assert match(detections, truth).in_crowd[3].tolist() == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]  # at 0.65


def test_boxes_of_other_images_are_out_of_reach():
    truth = ImageBoxes([[0, 0, 10, 10], [0, 0, 10, 10]], [3, 1])
    boxes = [[0, 0, 10, 10]] * 4
    assert found(boxes, [0.1, 0.2, 0.3, 0.4], truth, owner=[1, 2, 3, 9]) == [1, -1, 0, -1]


def test_boxes_without_area_find_nothing():
    truth = ImageBoxes([[0, 0, 0, 0]], [0])
    assert found([[0, 0, 0, 0]], [0.5], truth) == [-1]


def test_the_least_confident_beyond_the_limit_are_left_out():
    truth = ImageBoxes([[0, 0, 10, 10]], [0])
    assert found([[0, 0, 10, 10], [50, 50, 60, 60]], [0.1, 0.9], truth, max_detections=1) == [-9, -1]


def test_batches_are_put_together():
    first = ImageBoxes([[0, 0, 1, 1]], [4], [0.5])
    whole = together([first, ImageBoxes([[2, 2, 3, 3], [0, 0, 9, 9]], [0, 7], [0.1, 0.2], [False, True])])
    assert whole.boxes.tolist() == [[0, 0, 1, 1], [2, 2, 3, 3], [0, 0, 9, 9]]
    assert whole.owner.tolist() == [4, 0, 7]
    assert whole.scores.tolist() == [0.5, 0.1, 0.2]
    assert whole.crowd.tolist() == [False, False, True]
    assert together([ImageBoxes(np.empty((0, 4)), [])] * 2).scores is None
    with pytest.raises(ValueError, match="1 of 2 parts have scores"):
        together([first, ImageBoxes([[0, 0, 1, 1]], [0])])
    with pytest.raises(ValueError, match="no boxes to put together"):
        together([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 0, 1, 1], [0]), r"boxes has shape \(4,\): give \(N, 4\)"),
        (
            ([[0, 0, 1, 1], [5, 0, 4, 1]], [0, 0]),
            r"box 1 is \[5.0, 0.0, 4.0, 1.0\]: give finite left <= right",
        ),
        (([[0, 0, 1, np.nan]], [0]), "box 0 is .*nan"),
        (([[0, 0, 1, 1]], [0, 1]), r"owner has shape \(2,\) for 1 boxes"),
        (([[0, 0, 1, 1]], [0], [0.1, 0.2]), r"scores has shape \(2,\) for 1 boxes"),
        (([[0, 0, 1, 1]], [0], [np.nan]), "scores holds NaN or infinity"),
        (([[0, 0, 1, 1]], [0], None, [True, False]), r"crowd has shape \(2,\) for 1 boxes"),
        (([[0, 0, 1, 1]], [-1]), "owner -1 is no image"),
    ],
)
def test_what_are_no_boxes_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageBoxes(*arguments)
