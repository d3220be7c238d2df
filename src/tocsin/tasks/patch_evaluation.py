"""What a patch does to a detector, measured on images that no patch was trained on.

A patch hides what is behind it, so that every detector finds less with any patch on a person. What an attack adds is
the difference to *controls*, patches that learnt nothing and are placed the same way. Of several controls the one
that hides most is compared with.

Source: image specification, section 7.7; Thys et al., "Fooling automated surveillance cameras" (2019), for controls.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tocsin.batch import DetectionBatch
from tocsin.data.corruptions import corrupt
from tocsin.metrics.box_matching import ImageBoxes
from tocsin.models.base import Detections, PatchModel
from tocsin.models.patch_controls import control_patches
from tocsin.models.patch_defence import smooth_local_gradients

CLEAN, PATCH = "clean", "patch"
N_EXAMPLES = 4
# Strengths of what is tried: of the patch itself, then of the picture it is in.
PLACED: Mapping[str, tuple[float, ...]] = {
    "size": (0.1, 0.15, 0.2, 0.25, 0.3),  # side of the patch, as a share of the diagonal of a box
    "rotation": (-45.0, -20.0, 0.0, 20.0, 45.0),  # degrees
}
SPOILT: Mapping[str, tuple[float, ...]] = {
    "jpeg": (30.0, 50.0, 70.0, 95.0),  # quality
    "blur": (0.0, 0.5, 1.0, 2.0),  # standard deviation in pixels
    "brightness": (0.6, 0.8, 1.0, 1.2),  # factor
}

View = Callable[[DetectionBatch], Tensor]
Look = Callable[[Tensor], Detections]


class Pair(NamedTuple):
    """Detections without and with the patch, all else equal."""

    clean: ImageBoxes
    patch: ImageBoxes


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What victims found in the test images.

    Attributes:
        n_images: Test images.
        truth: True boxes, groups marked as crowds.
        target: (N,) bool, true boxes that wear a patch.
        controls: (3, P, P) float32 patches in [0, 1] that learnt nothing, by name.
        found: Detections of the attacked victim: `clean`, each control, `patch`.
        transfer: The same of further victims, by their names.
        defended: After the defence.
        sweeps: By condition and its strength.
        examples: (n, S, S, 3) float32 images: `clean`, each control, `patch`.
        example_places: (n,) int64, where they stand among the test images.
        n_views: Images that went through a victim.
    """

    n_images: int
    truth: ImageBoxes
    target: np.ndarray
    controls: Mapping[str, np.ndarray]
    found: Mapping[str, ImageBoxes]
    transfer: Mapping[str, Mapping[str, ImageBoxes]]
    defended: Pair
    sweeps: Mapping[str, Mapping[float, Pair]]
    examples: Mapping[str, np.ndarray]
    example_places: np.ndarray
    n_views: int

    @property
    def worn(self) -> ImageBoxes:
        """True boxes that wear a patch; other persons are as crowds, where detections count for nothing."""
        return replace(self.truth, crowd=self.truth.is_crowd | ~self.target)


def evaluate_patch(
    model: PatchModel,
    batches: Iterable[DetectionBatch],
    *,
    seed: int,
    victims: Mapping[str, Look],
    sweeps: bool,
) -> Evaluation:
    """Let victims look at the test images with and without patches.

    Args:
        model: The trained patch and the victim it is measured on.
        batches: All test images, on the device of the model; they are gone through once for each view.
        seed: Of the controls that are drawn.
        victims: Further ones, which the patch was not trained against, by name.
        sweeps: Whether sizes, rotations and spoilt pictures are tried, too.
    """
    controls = control_patches(model.patch.detach(), seed=seed)
    views: dict[str, View] = {
        CLEAN: lambda batch: batch.image,
        **{name: partial(model.apply_patch, patch=control) for name, control in controls.items()},
        PATCH: model.apply_patch,
    }
    found = {name: look(model.detect, view, batches) for name, view in views.items()}
    tried = _sweeps(model, batches, found[CLEAN]) if sweeps else {}
    truth, target, n_images = _truth(batches)
    examples, places = _examples(views, batches)
    n_looks = len(views) * (1 + len(victims)) + 2 + 2 * sum(map(len, tried.values()))
    return Evaluation(
        n_images=n_images,
        truth=truth,
        target=target,
        controls={name: control.cpu().numpy() for name, control in controls.items()},
        found=found,
        transfer={
            name: {view_name: look(detect, view, batches) for view_name, view in views.items()}
            for name, detect in victims.items()
        },
        defended=_pair(model, batches, smooth_local_gradients),
        sweeps=tried,
        examples=examples,
        example_places=places,
        n_views=n_images * n_looks,
    )


def look(detect: Look, view: View, batches: Iterable[DetectionBatch]) -> ImageBoxes:
    """Detections in all images, as a view shows them; images are numbered through."""
    boxes, owners, scores, first = [], [], [], 0
    for batch in batches:
        found = detect(view(batch))
        boxes.append(found.boxes)
        scores.append(found.scores)
        owners.append(found.owner + first)
        first += len(batch.image)
    return ImageBoxes(*(torch.cat(parts).float().cpu().numpy() for parts in (boxes, owners, scores)))


def _truth(batches: Iterable[DetectionBatch]) -> tuple[ImageBoxes, np.ndarray, int]:
    """All true boxes, which of them wear a patch, and how many images there are."""
    boxes, owners, crowds, targets, first = [], [], [], [], 0
    for batch in batches:
        boxes.append(batch.boxes)
        owners.append(batch.owner + first)
        crowds.append(batch.crowd)
        targets.append(batch.target)
        first += len(batch.image)
    box, owner, crowd, target = (torch.cat(part).cpu().numpy() for part in (boxes, owners, crowds, targets))
    return ImageBoxes(box, owner, crowd=crowd), target, first


def _pair(model: PatchModel, batches: Iterable[DetectionBatch], change: Callable[[Tensor], Tensor]) -> Pair:
    """Detections after a change of the whole picture."""
    return Pair(
        clean=look(model.detect, lambda batch: change(batch.image), batches),
        patch=look(model.detect, lambda batch: change(model.apply_patch(batch)), batches),
    )


def _sweeps(
    model: PatchModel, batches: Iterable[DetectionBatch], clean: ImageBoxes
) -> dict[str, dict[float, Pair]]:
    """The patch under all conditions; those of the patch alone leave the clean images as they are."""
    placed = {
        name: {
            value: Pair(clean, look(model.detect, _placed(model, name, value), batches)) for value in values
        }
        for name, values in PLACED.items()
    }
    spoilt = {
        kind: {value: _pair(model, batches, partial(corrupt, kind=kind, strength=value)) for value in values}
        for kind, values in SPOILT.items()
    }
    return {**placed, **spoilt}


def _placed(model: PatchModel, name: str, value: float) -> View:
    """The patch in another size, or turned."""
    if name == "size":
        return lambda batch: model.apply_patch(batch, size=value)
    return lambda batch: model.apply_patch(batch, rotation=value)


def _examples(
    views: Mapping[str, View], batches: Iterable[DetectionBatch]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The images of the first batch with the largest patches, as every view shows them, and their places."""
    first = next(iter(batches))
    width, height = (first.boxes[:, 2:] - first.boxes[:, :2]).unbind(1)
    covered = torch.zeros(len(first.image), device=first.image.device)
    covered.index_add_(0, first.owner, width * height * first.target)
    chosen = covered.argsort(descending=True, stable=True)[:N_EXAMPLES].sort().values
    pictures = {
        name: view(first)[chosen].float().permute(0, 2, 3, 1).cpu().numpy()  # (n, S, S, 3)
        for name, view in views.items()
    }
    return pictures, chosen.cpu().numpy()
