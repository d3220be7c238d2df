"""Which true box each detection found, by the rules of COCO.

Lin et al., "Microsoft COCO: Common Objects in Context" (ECCV 2014), and its official evaluation: the most confident
detection chooses first, among the free boxes of its image that overlap it enough the one that overlaps it most. A
crowd box is no object to find, and what lies in it counts for nothing.

No detection is looped over: the r-th detections of all images choose at the same time, at all overlaps.

Everywhere: boxes are left, top, right, bottom in any unit; a higher score is a more confident detection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # those of COCO
MAX_DETECTIONS = 100  # of an image that COCO looks at


@dataclass(frozen=True)
class ImageBoxes:
    """Boxes of the images of a split, one after another: true ones, or detections.

    Attributes:
        boxes: (N, 4) left, top, right, bottom.
        owner: (N,) int, the image of each box, in any order.
        scores: (N,) finite, higher = more confident; None for true boxes.
        crowd: (N,) bool, whether a true box holds a group; None if none does.
    """

    boxes: np.ndarray
    owner: np.ndarray
    scores: np.ndarray | None = None
    crowd: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Take the arrays as float64, int64 and bool.

        Raises:
            ValueError: The arrays do not fit each other, or hold what is no box, no image or no score.
        """
        boxes = np.asarray(self.boxes, dtype=np.float64)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"boxes has shape {boxes.shape}: give (N, 4), also for no box")
        wrong = ~(np.isfinite(boxes).all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1))
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"box {row} is {boxes[row].tolist()}: give finite left <= right and top <= bottom"
            )
        object.__setattr__(self, "boxes", boxes)
        for name, dtype in (("owner", np.int64), ("scores", np.float64), ("crowd", np.bool_)):
            values = getattr(self, name)
            if values is None:
                continue
            if np.shape(values) != (len(boxes),):
                raise ValueError(f"{name} has shape {np.shape(values)} for {len(boxes)} boxes: give one each")
            object.__setattr__(self, name, np.asarray(values, dtype=dtype))
        if len(boxes) and self.owner.min() < 0:
            raise ValueError(f"owner {self.owner.min()} is no image: count from 0")
        if self.scores is not None and not np.isfinite(self.scores).all():
            raise ValueError("scores holds NaN or infinity")

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def confidence(self) -> np.ndarray:
        """The scores.

        Raises:
            ValueError: There are none.
        """
        if self.scores is None:
            raise ValueError("detections have no scores: give one of each")
        return self.scores

    @property
    def is_crowd(self) -> np.ndarray:
        """(N,) bool, all false where no crowds were given."""
        return np.zeros(len(self), dtype=bool) if self.crowd is None else self.crowd

    def where(self, chosen: np.ndarray) -> "ImageBoxes":
        """The boxes of these places, (N,) bool or (M,) int."""
        scores, crowd = (None if values is None else values[chosen] for values in (self.scores, self.crowd))
        return ImageBoxes(self.boxes[chosen], self.owner[chosen], scores, crowd)


def together(parts: Sequence[ImageBoxes]) -> ImageBoxes:
    """The boxes of several batches in one; `owner` must already count the images of the whole split.

    Args:
        parts: One or more, all with scores or all without. Where some have crowds, the others have none.

    Raises:
        ValueError: There are no parts, or only some have scores.
    """
    if not parts:
        raise ValueError("there are no boxes to put together")
    with_scores = [part.scores for part in parts if part.scores is not None]
    if len(with_scores) not in (0, len(parts)):
        raise ValueError(f"{len(with_scores)} of {len(parts)} parts have scores: give all or none of them")
    return ImageBoxes(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.owner for part in parts]),
        np.concatenate(with_scores) if with_scores else None,
        np.concatenate([part.is_crowd for part in parts]),
    )


class Matching(NamedTuple):
    """What each detection found at T overlaps; detections beyond the first of each image are left out.

    Attributes:
        place: (D,) int64 of each in the detections given, by image and from the most confident.
        truth: (T, D) int64, the true box it found, or -1.
        in_crowd: (T, D) bool, whether that is a crowd: the detection counts for nothing.
    """

    place: np.ndarray
    truth: np.ndarray
    in_crowd: np.ndarray


def match(
    detections: ImageBoxes,
    truth: ImageBoxes,
    *,
    iou_thresholds: np.ndarray = IOU_THRESHOLDS,
    max_detections: int = MAX_DETECTIONS,
) -> Matching:
    """Let each detection choose a true box of its image, the most confident first.

    A true box is found once, a crowd by any number. For a crowd the overlap is the share of the detection that lies
    in it, and a detection takes one only where it finds no single box.

    Args:
        detections: With scores; those with the same score choose in the order given.
        truth: With crowds, if there are any.
        iou_thresholds: (T,) in (0, 1], least intersection over union of a find.
        max_detections: Most confident ones of each image that may choose.

    Raises:
        ValueError: Detections have no scores, or an overlap is out of range.
    """
    thresholds = np.asarray(iou_thresholds, dtype=np.float64)
    if not ((thresholds > 0) & (thresholds <= 1)).all():
        raise ValueError(f"iou_thresholds={thresholds.tolist()} are not all in (0, 1]")
    thresholds = thresholds.clip(max=1 - 1e-10)[
        :, None, None
    ]  # as COCO: rounding must not forbid a perfect match
    place = np.lexsort((-detections.confidence, detections.owner))
    rank = _rank_in_image(detections.owner[place])
    place, rank = place[rank < max_detections], rank[rank < max_detections]
    chosen = np.full((len(thresholds), len(place)), -1, dtype=np.int64)
    slots, row = _slots(truth, detections.owner[place])
    crowd = np.append(truth.is_crowd, False)[slots]  # (I, G)
    free = np.repeat((slots >= 0)[None], len(thresholds), axis=0)  # (T, I, G)
    for r in range(rank[row >= 0].max(initial=-1) + 1):
        at = np.flatnonzero((rank == r) & (row >= 0))
        rows = row[at]
        overlap = _overlap(detections.boxes[place[at]], truth.boxes[slots[rows]], crowd[rows])  # (n, G)
        possible = free[:, rows] & (overlap >= thresholds)  # (T, n, G)
        single = possible & ~crowd[rows]
        possible = np.where(single.any(-1, keepdims=True), single, possible)
        best = _last_best(np.where(possible, overlap, -1.0))  # (T, n)
        hit, image = np.nonzero(possible.any(-1))
        slot = best[hit, image]
        chosen[hit, at[image]] = slots[rows[image], slot]
        free[hit, rows[image], slot] = crowd[rows[image], slot]
    return Matching(place, chosen, (chosen >= 0) & np.append(truth.is_crowd, False)[chosen])


def check_owners(n_images: int, *split: ImageBoxes) -> None:
    """Raise ValueError if a box belongs to an image that is not there."""
    last = max((int(boxes.owner.max(initial=-1)) for boxes in split), default=-1)
    if last >= n_images:
        raise ValueError(f"a box belongs to image {last}, but there are {n_images}, counted from 0")


def _overlap(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Intersection over union (n, G) of (n, 4) boxes and (n, G, 4) others; over the box alone for a crowd."""
    one = boxes[:, None]  # (n, 1, 4)
    sides = np.minimum(one[..., 2:], others[..., 2:]) - np.maximum(one[..., :2], others[..., :2])
    shared = sides.clip(min=0).prod(-1)
    area, other = ((b[..., 2:] - b[..., :2]).prod(-1) for b in (one, others))
    union = np.where(crowd, area, area + other - shared)
    overlap: np.ndarray = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap


def _rank_in_image(owner: np.ndarray) -> np.ndarray:
    """How many of the same image come before each of (N,) sorted owners."""
    first = np.searchsorted(owner, owner)
    return np.arange(len(owner)) - first


def _slots(truth: ImageBoxes, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the true boxes as a table, one row per image that has any.

    Args:
        truth: True boxes.
        owner: (D,) images of detections.

    Returns:
        (I, G) int64 places in `truth`, -1 where an image has fewer than G boxes; (D,) int64 the row of each
        detection, -1 where its image has no true box.
    """
    order = np.argsort(truth.owner, kind="stable")
    images, row, count = np.unique(truth.owner[order], return_inverse=True, return_counts=True)
    slots = np.full((len(images), count.max(initial=0)), -1, dtype=np.int64)
    slots[row, _rank_in_image(truth.owner[order])] = order
    found = np.searchsorted(images, owner)
    known = np.append(images, -1)[found] == owner
    return slots, np.where(known, found, -1)


def _last_best(overlap: np.ndarray) -> np.ndarray:
    """Place of the largest of the last axis; of equal ones the last, as COCO has it."""
    places: np.ndarray = overlap.shape[-1] - 1 - overlap[..., ::-1].argmax(-1)
    return places
