"""What a patch minimises: how sure the victim still is of the objects that wear it, and how printable the patch is.

`vanish_max` is the loss of Thys et al. (CVPR workshops 2019) with the logit of the class in place of an objectness,
which today's heads do not have; total variation and non-printability are its terms, the colours those of its code
(after Sharif et al., CCS 2016). The other objectives look at the anchors that belong to an object: those whose
centre lies in its box, or whose own box overlaps it.

`misplace` is of our own, and does something else than its neighbours: it lowers the confidence of boxes that fit an
object, and moves boxes off it. A box that overlaps by less than half is a miss for AP50 and for a rate of vanishing
at that overlap, though the victim still sees someone there: measure it at a low overlap too before saying that
people vanish.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tocsin.models.yolo_victim import Branch

OBJECTIVES = ("vanish_max", "vanish_topk", "vanish_logsumexp", "bce_background", "iou_weighted", "misplace")
_MIN_IOU = 0.3  # from which an anchor belongs to an object
_PLACE_POWER = 3.0  # how much a box that fits counts beside one that is sure
_LEAST_IOU = 0.05  # below which it does not matter how badly it fits

# Red, green and blue that a printer can print.
PRINTABLE = (
    (0.10588, 0.054902, 0.066667),
    (0.48235, 0.094118, 0.16863),
    (0.50196, 0.54118, 0.47451),
    (0.078431, 0.31373, 0.46667),
    (0.47843, 0.69412, 0.5098),
    (0.52549, 0.1098, 0.31373),
    (0.45882, 0.29804, 0.47843),
    (0.76078, 0.54902, 0.19608),
    (0.73725, 0.32157, 0.47059),
    (0.18824, 0.41569, 0.46667),
    (0.05098, 0.32941, 0.16471),
    (0.79608, 0.79216, 0.75294),
    (0.10196, 0.27059, 0.43137),
    (0.24706, 0.51765, 0.42745),
    (0.69412, 0.22353, 0.26275),
    (0.53725, 0.12549, 0.18431),
    (0.47843, 0.50980, 0.27059),
    (0.20784, 0.18824, 0.28627),
    (0.15294, 0.36078, 0.29804),
    (0.71765, 0.60392, 0.48627),
    (0.24706, 0.16863, 0.13725),
    (0.70980, 0.27843, 0.15294),
    (0.33333, 0.22353, 0.31373),
    (0.76863, 0.73333, 0.61961),
    (0.31765, 0.44706, 0.64314),
    (0.12941, 0.18039, 0.20392),
    (0.60392, 0.41569, 0.29804),
    (0.23529, 0.10196, 0.12157),
    (0.38824, 0.55294, 0.65490),
    (0.77647, 0.66275, 0.21569),
)


def detection_loss(
    branch: Branch, boxes: Tensor, owner: Tensor, *, objective: str, top_k: int = 10
) -> Tensor:
    """How well one branch still sees the objects; the lower, the fewer it finds.

    Args:
        branch: What the victim says of B patched images.
        boxes: (N, 4) float32, the objects that wear a patch: left, top, right, bottom in pixels.
        owner: (N,) int64, index of the image of each.
        objective: `vanish_max`: highest confidence in an image. `vanish_topk`: mean of the `top_k` highest
            confidences of the anchors of an object. `vanish_logsumexp`: softplus of a smooth maximum of their
            logits. `bce_background`: cross entropy of all anchors of the images with nothing, per object.
            `iou_weighted`: as `vanish_topk`, each confidence times the overlap with the object. `misplace`: as
            `vanish_logsumexp`, of logits plus 3 log(overlap), so that boxes are moved as well.
        top_k: Anchors of an object.

    Returns:
        () float32, a mean over objects (over images for `vanish_max`); 0 without objects.
    """
    if len(boxes) == 0:
        return 0.0 * branch.logits.sum()
    if objective == "vanish_max":
        return branch.logits[torch.unique(owner)].amax(dim=1).sigmoid().mean()
    if objective == "bce_background":
        return F.softplus(branch.logits[torch.unique(owner)]).sum() / len(boxes)
    overlap = object_overlap(branch, boxes, owner)  # (N, A)
    logits = branch.logits[owner].masked_fill(
        ~belongs(branch, boxes, overlap), torch.finfo(torch.float32).min / 2
    )
    if objective == "misplace":
        logits = logits + _PLACE_POWER * overlap.clamp(min=_LEAST_IOU).log()
        return F.softplus(torch.logsumexp(logits, dim=1)).mean()
    if objective == "vanish_logsumexp":
        return F.softplus(torch.logsumexp(logits, dim=1)).mean()
    weight = overlap.detach() if objective == "iou_weighted" else torch.ones_like(overlap)
    confidence = logits.sigmoid() * weight  # (N, A); 0 for anchors of others
    return confidence.topk(min(top_k, confidence.shape[1]), dim=1).values.mean()


def object_overlap(branch: Branch, boxes: Tensor, owner: Tensor) -> Tensor:
    """(N, A) intersection over union of each object with the boxes that its image's anchors predict."""
    theirs = branch.boxes[owner]  # (N, A, 4)
    ours = boxes[:, None]  # (N, 1, 4)
    sides = (
        torch.minimum(ours[..., 2:], theirs[..., 2:]) - torch.maximum(ours[..., :2], theirs[..., :2])
    ).clamp(min=0.0)
    shared = sides.prod(dim=2)
    area = (ours[..., 2:] - ours[..., :2]).prod(dim=2) + (theirs[..., 2:] - theirs[..., :2]).prod(dim=2)
    overlap: Tensor = shared / (area - shared).clamp(min=1e-9)
    return overlap


def belongs(branch: Branch, boxes: Tensor, overlap: Tensor) -> Tensor:
    """(N, A) bool, whether an anchor belongs to an object: its centre lies in it, or its box overlaps it."""
    x, y = branch.centres.T  # (A,) each
    left, top, right, bottom = boxes.T[:, :, None]  # (N, 1) each
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    mine: Tensor = inside | (overlap > _MIN_IOU)
    return mine


def total_variation(patch: Tensor) -> Tensor:
    """Mean absolute difference of neighbours in a (3, P, P) patch, along rows and columns together."""
    down = (patch[:, 1:] - patch[:, :-1]).abs().sum()
    right = (patch[:, :, 1:] - patch[:, :, :-1]).abs().sum()
    return (down + right) / patch.numel()


def non_printability(patch: Tensor) -> Tensor:
    """Mean distance of the pixels of a (3, P, P) patch in [0, 1] from the nearest printable colour, over 3."""
    colours = patch.new_tensor(PRINTABLE)  # (30, 3)
    pixels = patch.flatten(1).T  # (P * P, 3)
    return torch.cdist(pixels, colours).amin(dim=1).sum() / patch.numel()
