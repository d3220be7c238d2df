"""How many persons a patch makes a detector lose, and what else it does to what is detected.

The vanish rate at a confidence tau: of the target persons (those that wear a patch) found on the clean image, the
share that is not found under the patch. A person is found at tau if a detection of at least that confidence is
matched to it: intersection over union of 0.5 or more, each detection to one box and each box to one detection, the
most confident detection first, by the rules of COCO (`box_matching.py`). All persons and crowds of the image take
part, so that a neighbour's detection does not stand in for a lost one. As the more confident choose first, what is
found at a high tau does not depend on detections below it: one matching serves all tau.

A box that a patch moves off its person is lost by this rule, though the detector still fires beside it. `unseen` is
the stricter rate: the share that no detection of at least tau overlaps by 0.1 or more.

It is the attack success rate of a vanishing attack, for single persons; Thys et al., "Fooling automated surveillance
cameras" (CVPR Workshops 2019), compare recalls at a working point, which are here too. Alone it says little: any
patch covers part of a person, so it stands beside the same rate of the control patches.
"""

from collections.abc import Sequence

import numpy as np

from tocsin.metrics.bootstrap import RESAMPLES
from tocsin.metrics.box_matching import ImageBoxes, check_owners, match
from tocsin.metrics.estimates import Estimate, ratio_estimate

TAUS = (0.25, 0.5)
IOU = 0.5
UNSEEN_IOU = 0.1  # below which a detection has nothing to do with a person


def person_confidence(detections: ImageBoxes, truth: ImageBoxes, *, iou: float = IOU) -> np.ndarray:
    """Confidence of the detection that finds each true box, (N,); 0 for one that is not found, and for crowds.

    Args:
        detections: With scores above 0.
        truth: All persons of the images, with crowds if there are any.
        iou: Least intersection over union of a find.

    Raises:
        ValueError: Detections have no scores.
    """
    matching = match(detections, truth, iou_thresholds=np.array([iou]))
    hit = (matching.truth[0] >= 0) & ~matching.in_crowd[0]
    confidence = np.zeros(len(truth))
    confidence[matching.truth[0, hit]] = detections.confidence[matching.place[hit]]
    return confidence


def new_persons(clean: ImageBoxes, patched: ImageBoxes, truth: ImageBoxes, *, tau: float) -> np.ndarray:
    """Which detections under the patch are false and were not there without it, (D,) bool in the order of `patched`.

    A detection is new if it has a confidence of at least `tau` and is matched neither to a person or crowd nor to a
    clean detection of at least `tau`, each time one to one.

    Raises:
        ValueError: Detections have no scores.
    """
    sure = np.flatnonzero(patched.confidence >= tau)
    found = patched.where(sure)
    before = clean.where(clean.confidence >= tau)
    new = np.zeros(len(patched), dtype=bool)
    new[sure] = _unmatched(found, truth) & _unmatched(found, ImageBoxes(before.boxes, before.owner))
    return new


def vanish_metrics(
    clean: ImageBoxes,
    patched: ImageBoxes,
    truth: ImageBoxes,
    target: np.ndarray,
    *,
    n_images: int,
    taus: Sequence[float] = TAUS,
    n: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Vanish rates and what goes with them, each with its 95 % interval over images.

    Args:
        clean: Detections on the images as they are, with scores.
        patched: Detections under a patch, the attack or a control.
        truth: All persons of the images, with crowds if there are any.
        target: (N,) bool, the persons of `truth` that wear a patch.
        n_images: All images of the split, those without a person too.
        taus: Confidences in (0, 1); each gives names that end in it in percent, such as `_25`.
        n: Number of resamples; 0 for no intervals.
        seed: Of the draws.

    Returns:
        `vanish_25`: of the targets found on the clean image, the share not found under the patch.
        `unseen_25`: of the same, the share that no detection under the patch overlaps by 0.1 or more, one to one.
        `nobody_left_25`: of the images with such a target, the share where no target at all is found under it.
        `recall_clean_25`, `recall_patch_25`: of the targets, the share found.
        `new_persons_25`: per image, false detections that were not there before (`new_persons`).
        `confidence_change`: of the mean confidence over targets, 0 where not found; negative = less sure of persons.
        NaN where there is no target, or none was found on the clean images.

    Raises:
        ValueError: The arrays do not fit each other, or a tau is out of range.
    """
    _check(truth, target, taus, n_images, clean, patched)
    chosen = np.asarray(target, dtype=bool) & ~truth.is_crowd
    owner = truth.owner[chosen]
    before, after = (person_confidence(found, truth)[chosen] for found in (clean, patched))
    near = person_confidence(patched, truth, iou=UNSEEN_IOU)[chosen]

    def per_image(counted: np.ndarray, of: np.ndarray = owner) -> np.ndarray:
        return np.bincount(of, weights=counted, minlength=n_images)

    everybody = per_image(np.ones(len(owner)))
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {
        "confidence_change": (per_image(after - before), everybody)
    }
    for tau in taus:
        name = f"{100 * tau:g}"
        seen, left = before >= tau, after >= tau
        some_seen, some_left = per_image(seen) > 0, per_image(left) > 0
        new = new_persons(clean, patched, truth, tau=tau)
        found |= {
            f"vanish_{name}": (per_image(seen & ~left), per_image(seen)),
            f"unseen_{name}": (per_image(seen & (near < tau)), per_image(seen)),
            f"nobody_left_{name}": (some_seen & ~some_left, some_seen),
            f"recall_clean_{name}": (per_image(seen), everybody),
            f"recall_patch_{name}": (per_image(left), everybody),
            f"new_persons_{name}": (per_image(new, patched.owner), np.ones(n_images)),
        }
    return {name: ratio_estimate(part, whole, n=n, seed=seed) for name, (part, whole) in found.items()}


def _unmatched(detections: ImageBoxes, truth: ImageBoxes) -> np.ndarray:
    """(D,) bool, detections that find no box."""
    matching = match(
        detections, truth, iou_thresholds=np.array([IOU]), max_detections=max(1, len(detections))
    )
    alone = np.ones(len(detections), dtype=bool)
    alone[matching.place] = matching.truth[0] < 0
    return alone


def _check(
    truth: ImageBoxes, target: np.ndarray, taus: Sequence[float], n_images: int, *found: ImageBoxes
) -> None:
    """Raise ValueError where arguments do not fit each other."""
    if np.shape(target) != (len(truth),):
        raise ValueError(f"target has shape {np.shape(target)} for {len(truth)} persons: give one each")
    for tau in taus:
        if not 0 < tau < 1:
            raise ValueError(f"tau {tau} is no confidence in (0, 1)")
    check_owners(n_images, truth, *found)
