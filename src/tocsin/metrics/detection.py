"""Average precision of the detections of one class, exactly as COCO computes it, and its interval.

Lin et al., "Microsoft COCO: Common Objects in Context" (ECCV 2014), and its official evaluation: precision never
rises with recall, and is read at 101 recalls. How detections find true boxes is in `box_matching.py`.
det-AP: Huang et al., "T-SEA: Transfer-based Self-Ensemble Attack on Object Detection" (CVPR 2023), section 4.1: what
the victim finds on clean images is the truth.

A resample of images is a weight of each detection, so that an interval costs no new matching.

Everywhere: boxes are left, top, right, bottom in any unit; a higher score is a more confident detection. A value that
the data cannot define is NaN, never 0.
"""

from typing import NamedTuple

import numpy as np

from tocsin.metrics.bootstrap import RESAMPLES, resample_counts
from tocsin.metrics.box_matching import (
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    ImageBoxes,
    Matching,
    check_owners,
    match,
)
from tocsin.metrics.classification import ratio
from tocsin.metrics.estimates import Estimate, estimate

RECALLS = np.linspace(0.0, 1.0, 101)
CONFIDENT = 0.5  # from which T-SEA takes a detection for true


class PrecisionRecall(NamedTuple):
    """Points of a curve, from the most confident detection to the least.

    Attributes:
        recall: (D,) rising, share of the true boxes found.
        precision: (D,) share of the detections that found one.
        score: (D,) falling, the threshold of each point.
    """

    recall: np.ndarray
    precision: np.ndarray
    score: np.ndarray


def average_precision(
    detections: ImageBoxes,
    truth: ImageBoxes,
    *,
    iou_thresholds: np.ndarray = IOU_THRESHOLDS,
    max_detections: int = MAX_DETECTIONS,
) -> np.ndarray:
    """Average precision (T,) at T overlaps, in [0, 1].

    Args:
        detections: With scores; those with the same score count in the order given.
        truth: With crowds, if there are any.
        iou_thresholds: (T,) in (0, 1], least intersection over union of a find.
        max_detections: Most confident ones of each image that count.

    Returns:
        NaN if there is no true box but crowds; 0 if there are some and nothing is detected.

    Raises:
        ValueError: Detections have no scores, or an overlap is out of range.
    """
    matching = match(detections, truth, iou_thresholds=iou_thresholds, max_detections=max_detections)
    found, missed, _ = _ranked(matching, detections)
    return _area(found, missed, np.full(len(found), _n_true(truth)))


def ap50(detections: ImageBoxes, truth: ImageBoxes) -> float:
    """Average precision at an intersection over union of 0.5."""
    return float(average_precision(detections, truth, iou_thresholds=IOU_THRESHOLDS[:1])[0])


def ap50_95(detections: ImageBoxes, truth: ImageBoxes) -> float:
    """Mean of the average precision over the ten overlaps 0.5, 0.55, ..., 0.95: the AP of COCO."""
    return float(average_precision(detections, truth).mean())


def ap50_resamples(
    detections: ImageBoxes, truth: ImageBoxes, *, n_images: int, n: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """AP50 of every resample of images, (n,).

    With the same seed and number of images, two conditions get the same resamples: their difference is paired. All
    NaN for a single image, of which nothing can be drawn again.

    Args:
        detections: With scores.
        truth: With crowds, if there are any.
        n_images: All images of the split, those without a box too.
        n: Number of resamples; 0 for none, as for the many points of a sweep.
        seed: Of the draws.

    Raises:
        ValueError: A box belongs to an image beyond `n_images`, or as `average_precision`.
    """
    check_owners(n_images, detections, truth)
    matching = match(detections, truth, iou_thresholds=IOU_THRESHOLDS[:1])
    if n_images == 1:
        return np.full(n, np.nan)
    found, missed, place = _ranked(matching, detections)
    owner = detections.owner[place]
    per_image = np.bincount(truth.owner[~truth.is_crowd], minlength=n_images)
    blocks = [
        _area(counts[:, owner] * found, counts[:, owner] * missed, counts @ per_image)
        for counts in resample_counts(n_images, n, seed, len(owner))
    ]
    return np.concatenate([np.empty(0), *blocks])


def ap50_estimate(
    detections: ImageBoxes, truth: ImageBoxes, *, n_images: int, n: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """AP50 with its 95 % interval over images; arguments as for `ap50_resamples`."""
    drawn = ap50_resamples(detections, truth, n_images=n_images, n=n, seed=seed)
    return estimate(ap50(detections, truth), drawn)


def excess_drop(
    controls: list[ImageBoxes],
    patched: ImageBoxes,
    truth: ImageBoxes,
    *,
    n_images: int,
    n: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """By how much a patch lowers AP50 further than the control that lowers it most: what is not mere occlusion.

    Each resample chooses its best control anew, so that the interval does not profit from the choice.

    Args:
        controls: Detections under each control patch.
        patched: Detections under the patch. The more its AP50 falls below theirs, the higher the result.
        truth: With crowds, if there are any.
        n_images: All images of the split, those without a box too.
        n: Number of resamples.
        seed: Of the draws.

    Raises:
        ValueError: There is no control, or as `ap50_resamples`.
    """
    if not controls:
        raise ValueError("there is no control to compare with")
    best = np.min([ap50(control, truth) for control in controls])
    drawn = [
        ap50_resamples(detections, truth, n_images=n_images, n=n, seed=seed)
        for detections in (*controls, patched)
    ]
    return estimate(float(best - ap50(patched, truth)), np.min(drawn[:-1], axis=0) - drawn[-1])


def clean_as_truth(clean: ImageBoxes, *, confidence: float = CONFIDENT) -> ImageBoxes:
    """Detections on clean images of at least this confidence, as the truth of det-AP."""
    sure = clean.confidence >= confidence
    return ImageBoxes(clean.boxes[sure], clean.owner[sure])


def precision_recall(
    detections: ImageBoxes, truth: ImageBoxes, *, iou_threshold: float = 0.5
) -> PrecisionRecall:
    """The curve that average precision measures, not yet interpolated.

    Args:
        detections: With scores.
        truth: With crowds, if there are any; what lies in them is no point of the curve.
        iou_threshold: Least intersection over union of a find.

    Raises:
        ValueError: As `average_precision`.
    """
    matching = match(detections, truth, iou_thresholds=np.array([iou_threshold]))
    found, missed, place = _ranked(matching, detections)
    counted = (found | missed)[0]
    n_found = found[0, counted].cumsum()
    score = detections.confidence[place[counted]]
    recall = ratio(n_found, np.full(len(n_found), _n_true(truth)))
    return PrecisionRecall(recall, n_found / np.arange(1, len(n_found) + 1), score)


def _ranked(matching: Matching, detections: ImageBoxes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detections of all images from the most confident to the least.

    Returns:
        (T, D) bool, found a true box; (T, D) bool, found nothing; both false in a crowd; (D,) int64 their places.
    """
    order = np.argsort(-detections.confidence[matching.place], kind="stable")
    hit, in_crowd = (matching.truth >= 0)[:, order], matching.in_crowd[:, order]
    return hit & ~in_crowd, ~hit, matching.place[order]


def _n_true(truth: ImageBoxes) -> int:
    return int((~truth.is_crowd).sum())


def _area(found: np.ndarray, missed: np.ndarray, n_true: np.ndarray) -> np.ndarray:
    """Average precision (R,) of R lists of detections, each from the most confident to the least.

    Args:
        found: (R, D) how many true boxes each found: 0 or 1, or more where an image counts several times.
        missed: (R, D) how often it found nothing.
        n_true: (R,) true boxes; NaN comes of 0.
    """
    n_found = np.cumsum(found, axis=1, dtype=np.float64)
    precision = n_found / (n_found + np.cumsum(missed, axis=1) + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # at this recall or a higher one
    best = np.pad(best, ((0, 0), (0, 1)))  # a recall that is never reached has precision 0
    # The first place with enough finds, for all rows in one search: numbers of a row never meet those of the next.
    apart = np.arange(len(n_true))[:, None] * (float(n_true.max(initial=0)) + 2)
    D = n_found.shape[1]
    place = np.searchsorted((n_found + apart).ravel(), (_finds_needed(n_true) + apart).ravel())
    place = place.reshape(len(n_true), len(RECALLS)) - D * np.arange(len(n_true))[:, None]  # (R, 101)
    areas = np.take_along_axis(best, place.clip(0, D), axis=1).mean(1)
    return np.where(n_true > 0, areas, np.nan)


def _finds_needed(n_true: np.ndarray) -> np.ndarray:
    """(R, 101) the fewest finds whose quotient with `n_true`, rounded as COCO rounds it, reaches each recall."""
    wanted: np.ndarray = np.ceil(RECALLS * n_true[:, None])
    whole = np.maximum(n_true[:, None], 1)
    wanted -= (wanted > 0) & ((wanted - 1) / whole >= RECALLS)
    wanted += wanted / whole < RECALLS
    return wanted
