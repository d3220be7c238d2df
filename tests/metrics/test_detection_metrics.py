"""Average precision against COCO's own evaluation, and its intervals against images copied by hand."""

import numpy as np
import pytest
from reference_boxes import coco_ap, draw_boxes

from tocsin.metrics.bootstrap import resample_counts
from tocsin.metrics.box_matching import IOU_THRESHOLDS, ImageBoxes, together
from tocsin.metrics.detection import (
    ap50,
    ap50_95,
    ap50_estimate,
    ap50_resamples,
    average_precision,
    clean_as_truth,
    excess_drop,
    precision_recall,
)

NONE = ImageBoxes(np.empty((0, 4)), np.empty(0), np.empty(0))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_average_precision_of_coco(seed, crowds, ties):
    detections, truth = draw_boxes(seed, crowds=crowds, ties=ties)
    expected = coco_ap(detections, truth, 12, IOU_THRESHOLDS)
    assert 0.05 < expected[0] < 0.99
    np.testing.assert_allclose(average_precision(detections, truth), expected, atol=1e-9, rtol=0)
    assert ap50(detections, truth) == pytest.approx(expected[0], abs=1e-9)
    assert ap50_95(detections, truth) == pytest.approx(expected.mean(), abs=1e-9)


def test_only_the_hundred_most_confident_of_an_image_count():
    detections, truth = draw_boxes(3, n_images=2)
    rng = np.random.default_rng(0)
    many = ImageBoxes(np.tile([90, 90, 99, 99], (150, 1)), np.zeros(150), 0.5 + rng.random(150) / 10)
    both = ImageBoxes(
        np.concatenate([detections.boxes, many.boxes]),
        np.append(detections.owner, many.owner),
        np.append(detections.scores, many.scores),
    )
    expected = coco_ap(both, truth, 2, IOU_THRESHOLDS[:1])[0]
    assert ap50(both, truth) == pytest.approx(expected, abs=1e-9)
    unlimited = average_precision(both, truth, iou_thresholds=[0.5], max_detections=1000)[0]
    assert unlimited != pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n", [1, 3, 7, 20, 29, 100, 101, 300])
def test_recalls_that_no_float_meets_exactly_are_read_as_coco_reads_them(n):
    """Every other detection is false, beginning with the second: precision falls with each find."""
    boxes = np.tile([0, 0, 10, 10], (n, 1))
    found = np.concatenate([boxes, boxes + 50])
    detections = ImageBoxes(found, np.tile(np.arange(n), 2), np.append(np.arange(n), np.arange(n) - 0.5))
    truth = ImageBoxes(boxes, np.arange(n))
    expected = coco_ap(detections, truth, n, [0.5])
    np.testing.assert_allclose(
        average_precision(detections, truth, iou_thresholds=[0.5]), expected, atol=1e-9
    )


def test_rounding_forbids_no_perfect_match():
    truth = ImageBoxes([[0, 0, 1, 1]], [0])
    almost = ImageBoxes([[0, 0, 1, 1 - 1e-11]], [0], [0.9])
    assert coco_ap(almost, truth, 1, [1.0]) == pytest.approx(1)
    assert average_precision(almost, truth, iou_thresholds=[1.0]) == pytest.approx(1)


def test_nothing_found_is_0_and_nothing_to_find_is_undefined():
    detections, truth = draw_boxes(0)
    assert ap50_95(NONE, truth) == 0
    assert np.isnan(average_precision(detections, NONE)).all()
    all_crowds = ImageBoxes(truth.boxes, truth.owner, None, np.ones(len(truth), bool))
    assert np.isnan(ap50(detections, all_crowds))
    assert np.isnan(ap50(NONE, NONE))
    perfect = ImageBoxes(truth.boxes, truth.owner, np.ones(len(truth)))
    np.testing.assert_array_equal(
        average_precision(perfect, ImageBoxes(truth.boxes, truth.owner)), np.ones(10)
    )


def test_the_order_of_images_and_a_constant_added_to_all_scores_do_not_matter():
    detections, truth = draw_boxes(1, ties=False)
    expected = average_precision(detections, truth)
    mixed = np.random.default_rng(0).permutation(len(detections))
    moved = detections.where(mixed)
    moved = ImageBoxes(moved.boxes, 30 - moved.owner, moved.scores + 100)
    other = ImageBoxes(truth.boxes, 30 - truth.owner, None, truth.crowd)
    np.testing.assert_array_equal(average_precision(moved, other), expected)


def test_the_curve_by_hand():
    """Found, false, in a crowd, found, twice the same; one of three objects is never found."""
    truth = ImageBoxes(
        [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 100, 40]], [0] * 4, None, [0, 0, 0, 1]
    )
    found = [[0, 0, 10, 10], [0, 50, 9, 60], [70, 10, 80, 20], [20, 0, 30, 9], [20, 0, 30, 10]]
    curve = precision_recall(ImageBoxes(found, [0] * 5, [0.9, 0.8, 0.7, 0.6, 0.5]), truth)
    assert curve.recall == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert curve.precision == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])
    assert curve.score == pytest.approx([0.9, 0.8, 0.6, 0.5])
    # 34 of 101 recalls are reached at precision 1, 33 more at 2/3
    assert ap50(ImageBoxes(found, [0] * 5, [0.9, 0.8, 0.7, 0.6, 0.5]), truth) == pytest.approx(
        (34 + 33 * 2 / 3) / 101
    )


def test_a_resample_is_the_images_copied():
    detections, truth = draw_boxes(5, n_images=9, ties=False)
    drawn = ap50_resamples(detections, truth, n_images=9, n=40, seed=3)
    (counts,) = resample_counts(9, 40, seed=3)
    assert len(np.unique(drawn)) > 30
    for value, times in zip(drawn, counts.astype(int), strict=True):
        images = np.repeat(np.arange(9), times)
        copies = []
        for boxes in (detections, truth):
            places = [np.flatnonzero(boxes.owner == image) for image in images]
            owner = np.repeat(np.arange(9), [len(place) for place in places])
            some = boxes.where(np.concatenate(places))
            copies.append(ImageBoxes(some.boxes, owner, some.scores, some.crowd))
        assert value == pytest.approx(ap50(*copies), abs=1e-12)


def test_two_conditions_get_the_same_resamples_however_many_are_detected(monkeypatch):
    detections, truth = draw_boxes(6, n_images=20, ties=False)
    more = draw_boxes(7, n_images=20, ties=False)[0]
    both = together([detections, more])
    expected = [ap50_resamples(some, truth, n_images=20, n=60, seed=2) for some in (detections, both)]
    monkeypatch.setattr("tocsin.metrics.bootstrap._AT_ONCE", 7 * len(detections))  # other blocks for each
    drawn = [ap50_resamples(some, truth, n_images=20, n=60, seed=2) for some in (detections, both)]
    np.testing.assert_array_equal(drawn, expected)
    assert np.corrcoef(drawn)[0, 1] > 0.5


def test_one_image_or_no_resamples_give_no_interval():
    detections, truth = draw_boxes(2, n_images=1)
    one = ap50_estimate(detections, truth, n_images=1, n=20)
    assert one.value == ap50(detections, truth)
    assert np.isnan(one[1:]).all()
    detections, truth = draw_boxes(2)
    none = ap50_estimate(detections, truth, n_images=12, n=0)
    assert none.value == ap50(detections, truth)
    assert np.isnan(none[1:]).all()


def test_the_interval_narrows_with_images_and_holds_the_value():
    few, many = (draw_boxes(2, n_images=n, ties=False) for n in (15, 150))
    wide = ap50_estimate(*few, n_images=15, n=400)
    narrow = ap50_estimate(*many, n_images=150, n=400)
    assert wide.low < wide.value == ap50(*few) < wide.high
    assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low)


def test_the_excess_drop_is_against_the_control_that_does_most_in_each_resample():
    detections, truth = draw_boxes(4, ties=False)
    half = detections.where(np.arange(len(detections)) % 2 == 0)
    fewer = detections.where(np.arange(len(detections)) % 3 != 0)
    patched = detections.where(np.arange(len(detections)) % 6 == 0)
    found = excess_drop([half, fewer], patched, truth, n_images=12, n=200, seed=1)
    assert found.value == pytest.approx(min(ap50(half, truth), ap50(fewer, truth)) - ap50(patched, truth))
    values = [ap50_resamples(d, truth, n_images=12, n=200, seed=1) for d in (half, fewer, patched)]
    paired = np.minimum(values[0], values[1]) - values[2]
    assert [found.low, found.high] == pytest.approx(np.percentile(paired, [2.5, 97.5]))
    none = excess_drop([half], half, truth, n_images=12, n=50)
    assert none == (0, 0, 0)


def test_det_ap_takes_sure_detections_of_clean_images_for_true():
    clean = ImageBoxes([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], [0, 0, 1], [0.9, 0.5, 0.49])
    truth = clean_as_truth(clean)
    assert truth.boxes.tolist() == [[0, 0, 10, 10], [20, 0, 30, 10]]
    assert truth.scores is None
    # The box of 0.49 is no object: it comes last, and does not lower what came before.
    assert ap50(clean, truth) == 1
    assert ap50(clean.where(np.array([1, 2])), truth) == pytest.approx(51 / 101)


def test_wrong_input_is_named():
    detections, truth = draw_boxes(0)
    with pytest.raises(ValueError, match="detections have no scores"):
        ap50(truth, truth)
    with pytest.raises(ValueError, match=r"iou_thresholds=\[0.0, 0.5\] are not all in"):
        average_precision(detections, truth, iou_thresholds=[0, 0.5])
    with pytest.raises(ValueError, match="a box belongs to image 11, but there are 11"):
        ap50_resamples(detections, truth, n_images=11)
    with pytest.raises(ValueError, match="no control to compare with"):
        excess_drop([], detections, truth, n_images=12)
