"""A printed patch that makes a YOLO lose the people who wear it; for testing how robust one's own detector is.

After Thys et al. (CVPR workshops 2019) and T-SEA (Huang et al., CVPR 2023): one patch, placed on every person in
every training image with random changes, is trained by gradient descent through frozen detectors.
`patch_placement.py` places, `patch_losses.py` holds the objectives, `patch_ensemble.py` the self-ensemble,
`yolo_victim.py` the victims. What differs: today's heads have no objectness, so that the logit of the class is
attacked, at the anchors that belong to a person; both branches of one-to-one heads count; and the victims are no part
of the checkpoint, which holds the patch.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tocsin.batch import DetectionBatch
from tocsin.models.base import Detections, PatchModel
from tocsin.models.checks import check_choice, check_range
from tocsin.models.patch_ensemble import augmented, cut_out, shaken
from tocsin.models.patch_losses import OBJECTIVES, detection_loss, non_printability, total_variation
from tocsin.models.patch_placement import Eot, place_patch, target_places
from tocsin.models.yolo_victim import YoloVictim, load_victim

RAISED = {"raise_box": "box", "raise_dfl": "dfl"}  # terms of `YoloVictim.losses` that an objective raises
_GRAY, _SPREAD = 0.5, 0.02  # of the first patch


class PatchOnVictims(PatchModel):
    """What patches have in common, however they are trained: where they go, and the victims that see them.

    Victims are kept out of the modules: they follow to a device, but have no place in the weights, in the list of
    parameters, or in training mode.

    Args:
        victim: One or several, see `load_victim`: files, names of the hub, or `standin`.
        patch_size: Pixels of a side of the patch, P.
        size: Side of the patch in the image, as a share of the diagonal of a box, in (0, 1].
        offset: How far above the centre of a box the patch sits, as a share of its height.
        max_boxes: Most patches in an image; the largest boxes get them.
        target_class: Class of the victim that is attacked, by number or name; 0 is person.
        cache_dir: Where the stand-in and weights of the hub are kept; None makes or fetches them anew.

    Raises:
        ValueError: An option is outside its range.
        ConfigError: There is no such victim.
    """

    def __init__(
        self,
        *,
        victim: str | Sequence[str],
        patch_size: int,
        size: float,
        offset: float,
        max_boxes: int,
        target_class: int | str,
        cache_dir: str | Path | None,
    ) -> None:
        super().__init__()
        sources = [victim] if isinstance(victim, str) else list(victim)
        check_range("victim", sources, bool(sources), "one or several names")
        check_range("patch_size", patch_size, patch_size >= 2, "at least 2")
        check_range("size", size, 0.0 < size <= 1.0, "in (0, 1]")
        check_range("max_boxes", max_boxes, max_boxes >= 1, "at least 1")
        self.size = size
        self.offset = offset
        self.max_boxes = max_boxes
        self.victims: list[YoloVictim] = [
            load_victim(source, target_class=target_class, cache_dir=cache_dir) for source in sources
        ]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PatchOnVictims":
        for victim in self.victims:
            victim._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @torch.no_grad()
    def apply_patch(
        self,
        batch: DetectionBatch,
        patch: Tensor | None = None,
        *,
        size: float | None = None,
        rotation: float = 0.0,
    ) -> Tensor:
        places = target_places(
            batch,
            size=size or self.size,
            offset=self.offset,
            eot=Eot(),
            max_boxes=self.max_boxes,
            rotation=rotation,
        )
        shown = self.patch if patch is None else patch.to(batch.image)
        return place_patch(batch.image, shown, places)

    def detect(self, images: Tensor) -> Detections:
        """What the first victim finds."""
        return self.victims[0].detect(images)


class YoloPatch(PatchOnVictims):
    """The patch, trained by gradients; training takes the victims in turn, validation all of them.

    Args:
        victim: One or several, see `load_victim`: files, names of the hub, or `standin`.
        patch_size: Pixels of a side of the patch, P.
        size: Side of the patch in the image, as a share of the diagonal of a box, in (0, 1].
        offset: How far above the centre of a box the patch sits, as a share of its height.
        objective: `vanish_max`, `vanish_topk`, `vanish_logsumexp`, `bce_background`, `iou_weighted` or `misplace`;
            see `detection_loss`. `raise_box` and `raise_dfl` raise that term of the loss the victim was trained with,
            of those who wear the patch: its boxes get worse, whatever its confidence.
        top_k: Anchors of a person that `vanish_topk` and `iou_weighted` look at.
        tv_weight: Weight of the total variation; smoother patches print better.
        tv_floor: Value of that term below which it no longer counts.
        nps_weight: Weight of the distance from printable colours.
        rotation: Random rotation in training, most degrees.
        scale: Random relative change of the side.
        shift: Random shift, as a share of the box.
        contrast: Random relative change of the contrast.
        brightness: Random change of the brightness.
        noise: Random change of each value.
        max_boxes: Most patches in an image; the largest boxes get them.
        cutout: Probability of a gray square in a patch, in training.
        shakedrop: Probability that a residual branch of the victim is scaled, in training.
        augment: Probability that an image is mirrored, coloured and turned, in training.
        target_class: Class of the victim that is attacked, by number or name; 0 is person.
        cache_dir: Where the stand-in and weights of the hub are kept; None makes or fetches them anew.

    Raises:
        ValueError: An option is outside its range.
        ConfigError: There is no such victim.
    """

    def __init__(
        self,
        *,
        victim: str | Sequence[str] = "standin",
        patch_size: int = 64,
        size: float = 0.2,
        offset: float = 0.1,
        objective: str = "vanish_logsumexp",
        top_k: int = 10,
        tv_weight: float = 2.5,
        tv_floor: float = 0.1,
        nps_weight: float = 0.01,
        rotation: float = 20.0,
        scale: float = 0.2,
        shift: float = 0.0,
        contrast: float = 0.2,
        brightness: float = 0.1,
        noise: float = 0.1,
        max_boxes: int = 14,
        cutout: float = 0.0,
        shakedrop: float = 0.0,
        augment: float = 0.5,
        target_class: int | str = 0,
        cache_dir: str | Path | None = None,
    ) -> None:
        check_choice("objective", objective, (*OBJECTIVES, *RAISED))
        check_range("top_k", top_k, top_k >= 1, "at least 1")
        for name, value in (("tv_weight", tv_weight), ("tv_floor", tv_floor), ("nps_weight", nps_weight)):
            check_range(name, value, value >= 0.0, "at least 0")
        for name, value in (("cutout", cutout), ("shakedrop", shakedrop), ("augment", augment)):
            check_range(name, value, 0.0 <= value <= 1.0, "in [0, 1]")
        eot = Eot(
            rotation=rotation,
            scale=scale,
            shift=shift,
            contrast=contrast,
            brightness=brightness,
            noise=noise,
        )
        super().__init__(
            victim=victim,
            patch_size=patch_size,
            size=size,
            offset=offset,
            max_boxes=max_boxes,
            target_class=target_class,
            cache_dir=cache_dir,
        )
        self.objective = objective
        self.top_k = top_k
        self.tv_weight = tv_weight
        self.tv_floor = tv_floor
        self.nps_weight = nps_weight
        self.eot = eot
        self.cutout = cutout
        self.shakedrop = shakedrop
        self.augment = augment
        start = _GRAY + _SPREAD * torch.randn(3, patch_size, patch_size)
        self.pixels = nn.Parameter(start.clamp(0.0, 1.0))
        self._turn = (0, 0)  # epoch, and steps in it

    @property
    def patch(self) -> Tensor:
        return self.pixels.detach().clamp(0.0, 1.0)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the patch within what can be printed, and let the next victim come."""
        self.pixels.clamp_(0.0, 1.0)
        self._turn = (self.epoch, self._turn[1] + 1 if self._turn[0] == self.epoch else 1)

    def loss(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Detection loss, total variation and non-printability, weighted; in evaluation mode the same each time."""
        if self.training and self.augment > 0:
            batch = augmented(batch, probability=self.augment)
        with torch.autocast(batch.image.device.type, enabled=False):
            images, boxes, owner = self._patched(batch)
        victims = [self._victim_in_turn()] if self.training else self.victims
        detection = torch.stack([self._detection(victim, images, boxes, owner) for victim in victims]).mean()
        tv, nps = total_variation(self.pixels), non_printability(self.pixels)
        smooth = (self.tv_weight * tv).clamp(min=self.tv_floor) if self.tv_weight else 0.0
        return {
            "loss": detection + smooth + self.nps_weight * nps,
            "detection": detection,
            "tv": tv,
            "nps": nps,
        }

    def _patched(self, batch: DetectionBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Images with the patch, and boxes (N, 4) and images (N,) of those that wear it."""
        seeds = None if self.training else batch.position.cpu()
        places = target_places(
            batch, size=self.size, offset=self.offset, eot=self.eot, max_boxes=self.max_boxes, seeds=seeds
        )
        patches: Tensor = self.pixels
        if self.training and self.cutout > 0:
            patches = cut_out(patches, len(places.owner), probability=self.cutout)
        noise = self.eot.noise if self.training else 0.0
        images = place_patch(batch.image, patches, places, noise=noise)
        return images, batch.boxes[places.box], places.owner

    def _victim_in_turn(self) -> YoloVictim:
        epoch, step = self._turn
        step = step if epoch == self.epoch else 0  # counted anew, so that a resumed run takes the same turns
        return self.victims[(self.epoch + step) % len(self.victims)]

    def _detection(self, victim: YoloVictim, images: Tensor, boxes: Tensor, owner: Tensor) -> Tensor:
        with ExitStack() as changes:
            if self.training:
                changes.enter_context(shaken(victim.layers, probability=self.shakedrop))
            if self.objective in RAISED:
                return -victim.losses(images, boxes, owner)[RAISED[self.objective]]
            branches = victim(images)
        terms: list[Any] = [
            branch.weight * detection_loss(branch, boxes, owner, objective=self.objective, top_k=self.top_k)
            for branch in branches
        ]
        total: Tensor = sum(terms)
        return total
