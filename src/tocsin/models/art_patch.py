"""A patch made by ART's own attacks on the same victims, to compare `yolo_patch` with.

`adversarial_patch` is `AdversarialPatchPyTorch` (Brown et al., "Adversarial Patch", 2017), `robust_dpatch` is
`RobustDPatch` (Lee and Kolter, "On Physical Adversarial Patches for Object Detection", 2019), both of ART 1.20.1.
They collect the training images and run ART's loop once. Labels are empty images and the attack is a targeted one:
the loss is the cross entropy of all anchors with nothing, which the patch lowers. What differs from ART: the
gradient is cleared before each step, and the loss of each pass is logged.

ART puts one patch into an image. `adversarial_patch` gets masks, so that its centre is on a person, and the range of
sizes that persons' patches have; `robust_dpatch` stays in the upper left corner, as it is made. What comes out is
placed and measured as any other patch.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tocsin.batch import DetectionBatch
from tocsin.errors import TocsinError
from tocsin.models.art_estimator import LOSSES, ArtVictim, art_estimator
from tocsin.models.attack_packages import require_art
from tocsin.models.base import FitOnceDetector
from tocsin.models.checks import check_choice, check_range
from tocsin.models.patch_losses import detection_loss
from tocsin.models.patch_placement import Eot, Places, target_places
from tocsin.models.yolo_patch import PatchOnVictims

log = logging.getLogger(__name__)

ATTACKS = ("adversarial_patch", "robust_dpatch")
_CENTRE_SHARE = 0.2  # of a box, around the place of its patch, where ART may centre one
_SIZES = (0.1, 0.9)  # quantiles of the sizes of patches that bound those ART draws


class ArtPatch(FitOnceDetector, PatchOnVictims):
    """ART's patch. It has no parameters to train: `finish` runs ART's loop.

    Args:
        victim: One of `load_victim`: a file, a name of the hub, or `standin`.
        attack: `adversarial_patch` or `robust_dpatch`.
        iterations: Passes over the training images.
        learning_rate: Of Adam, or of the sign of the gradient (`robust_dpatch`), for values in [0, 1].
        losses: Terms whose sum is lowered, of `loss_total`, `loss_cls`, `loss_box` and `loss_dfl`.
        batch_size: Images of a step.
        rotation: Random rotation of `adversarial_patch`, most degrees.
        patch_size: Pixels of a side of the patch, P; `robust_dpatch` shows it at this size.
        size: Side of the patch in the image, as a share of the diagonal of a box, in (0, 1].
        offset: How far above the centre of a box the patch sits, as a share of its height.
        max_boxes: Most patches in an image when it is applied.
        target_class: Class of the victim that is attacked, by number or name; 0 is person.
        cache_dir: Where the stand-in and weights of the hub are kept; None makes or fetches them anew.

    Raises:
        ValueError: An option is outside its range.
        ConfigError: There is no such victim, or ART is not installed.
    """

    pixels: Tensor

    def __init__(
        self,
        *,
        victim: str = "standin",
        attack: str = "adversarial_patch",
        iterations: int = 100,
        learning_rate: float = 0.03,
        losses: Sequence[str] = ("loss_total",),
        batch_size: int = 8,
        rotation: float = 20.0,
        patch_size: int = 64,
        size: float = 0.2,
        offset: float = 0.1,
        max_boxes: int = 14,
        target_class: int | str = 0,
        cache_dir: str | Path | None = None,
    ) -> None:
        check_choice("attack", attack, ATTACKS)
        check_range("iterations", iterations, iterations >= 1, "at least 1")
        check_range("learning_rate", learning_rate, learning_rate > 0.0, "above 0")
        check_range("losses", list(losses), bool(losses) and set(losses) <= set(LOSSES), f"some of {LOSSES}")
        check_range("batch_size", batch_size, batch_size >= 1, "at least 1")
        check_range("rotation", rotation, 0.0 <= rotation <= 180.0, "in [0, 180]")
        require_art()
        super().__init__(
            victim=victim,
            patch_size=patch_size,
            size=size,
            offset=offset,
            max_boxes=max_boxes,
            target_class=target_class,
            cache_dir=cache_dir,
        )
        self.attack = attack
        self.iterations = iterations
        self.learning_rate = learning_rate
        self.losses = tuple(losses)
        self.batch_size = batch_size
        self.rotation = rotation
        self.register_buffer("pixels", torch.full((3, patch_size, patch_size), 0.5))
        self.n_images = 0  # that ART works on
        self._growing: Tensor | None = None
        self.on_iteration: Callable[[int, float], None] | None = (
            None  # told the number of each pass and its loss
        )
        self._collected: list[tuple[np.ndarray, np.ndarray, Tensor]] = []

    def trainable(self, stage: str) -> Iterable[nn.Parameter]:
        """Nothing: ART has its own loop."""
        return ()

    @property
    def patch(self) -> Tensor:
        return self.pixels.detach()

    @property
    def growing(self) -> Tensor:
        """(3, P, P) the patch that ART works on, as far as it can be seen: that of `robust_dpatch` cannot."""
        return self.patch if self._growing is None else self._growing.detach().clamp(0.0, 1.0)

    @torch.no_grad()
    def loss(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Softplus of the smooth maximum of the logits of each person, without random changes."""
        places = self._places(batch)
        images = self.apply_patch(batch)
        branches = self.victims[0](images)
        boxes = batch.boxes[places.box]
        total = torch.stack(
            [
                branch.weight * detection_loss(branch, boxes, places.owner, objective="vanish_logsumexp")
                for branch in branches
            ]
        ).sum()
        return {"loss": total}

    # ------------------------------------------------------------------ ART

    def collect(self, batch: DetectionBatch) -> None:
        """Keep the images that someone can wear a patch in, where its centre may be, and how large it is."""
        places = self._places(batch)
        S = batch.image.shape[-1]
        masks = np.zeros((len(batch.image), S, S), dtype=bool)
        reach = _CENTRE_SHARE / 2 * (batch.boxes[places.box, 2:] - batch.boxes[places.box, :2])
        low = (places.centre - reach).long().clamp(0, S - 1)
        high = (places.centre + reach).long().clamp(0, S - 1) + 1
        for image, (left, top), (right, bottom) in zip(
            places.owner.tolist(), low.tolist(), high.tolist(), strict=True
        ):
            masks[image, top:bottom, left:right] = True
        worn = masks.any(axis=(1, 2))
        images = batch.image.float().cpu().numpy()[worn]
        self._collected.append((images, masks[worn], places.side.cpu() / S))

    def finish(self) -> None:
        """Run ART's loop on all that was collected, and forget it."""
        images = np.concatenate([images for images, _, _ in self._collected]) if self._collected else ()
        if len(images) == 0:
            raise TocsinError(
                "no training image has anyone large enough to wear a patch: lower data.min_height"
            )
        self.n_images = len(images)
        masks = np.concatenate([masks for _, masks, _ in self._collected])
        sides = torch.cat([sides for _, _, sides in self._collected])
        self._collected = []
        with torch.enable_grad(), torch.inference_mode(False):
            if self.attack == "adversarial_patch":
                found = self._adversarial_patch(np.asarray(images), masks, sides)
            else:
                found = self._robust_dpatch(np.asarray(images))
        self.pixels.copy_(torch.from_numpy(found).clamp(0.0, 1.0))
        self._growing = None

    def _adversarial_patch(self, images: np.ndarray, masks: np.ndarray, sides: Tensor) -> np.ndarray:
        from art.attacks.evasion import AdversarialPatchPyTorch

        smallest, largest = torch.quantile(sides, torch.tensor(_SIZES)).tolist()
        inside = _leaves_room(masks, largest)
        images, masks = images[inside], masks[inside]
        if len(images) == 0:
            raise TocsinError(
                "a patch fits into no training image without crossing its border: lower model.size"
            )
        model, estimator = self._estimator(images)
        attack = AdversarialPatchPyTorch(
            estimator,
            rotation_max=self.rotation,
            scale_min=smallest,
            scale_max=max(largest, smallest + 1e-6),
            learning_rate=self.learning_rate,
            max_iter=self.iterations,
            batch_size=self.batch_size,
            patch_shape=tuple(self.pixels.shape),
            patch_type="square",
            targeted=True,
            verbose=False,
        )
        model.clear_with_model(attack._patch)
        self._growing = attack._patch
        found: np.ndarray = attack.generate(images, _nothing(len(images)), mask=masks)[0]
        return found

    def _robust_dpatch(self, images: np.ndarray) -> np.ndarray:
        from art.attacks.evasion import RobustDPatch

        _, estimator = self._estimator(images)
        attack = RobustDPatch(
            estimator,
            patch_shape=tuple(self.pixels.shape),
            learning_rate=self.learning_rate,
            max_iter=self.iterations,
            batch_size=self.batch_size,
            targeted=True,
            verbose=False,
        )
        found: np.ndarray = attack.generate(images, _nothing(len(images)))
        return found

    def _estimator(self, images: np.ndarray) -> tuple[ArtVictim, Any]:
        progress = _Progress(self.iterations, -(-len(images) // self.batch_size), self.on_iteration)
        model = ArtVictim(victim=self.victims[0], on_loss=progress.count)
        return model, art_estimator(model, size=images.shape[-1], losses=self.losses)

    def _places(self, batch: DetectionBatch) -> Places:
        return target_places(batch, size=self.size, offset=self.offset, eot=Eot(), max_boxes=self.max_boxes)


class _Progress:
    """Tells the mean loss of each pass over the images, which ART keeps to itself."""

    def __init__(
        self, iterations: int, batches: int, on_iteration: Callable[[int, float], None] | None
    ) -> None:
        self._on_iteration = on_iteration
        self._iterations = iterations
        self._batches = batches
        self._losses: list[Tensor] = []
        self._done = 0

    def count(self, loss: Tensor) -> None:
        self._losses.append(loss)
        if len(self._losses) == self._batches:
            self._done += 1
            mean = float(torch.stack(self._losses).mean())
            log.info("ART: iteration %d of %d, loss %.4f", self._done, self._iterations, mean)
            if self._on_iteration is not None:
                self._on_iteration(self._done, mean)
            self._losses = []


def _nothing(n: int) -> list[dict[str, np.ndarray]]:
    """Labels of images that hold nothing."""
    return [
        {
            "boxes": np.zeros((0, 4), np.float32),
            "labels": np.zeros(0, np.int64),
            "scores": np.zeros(0, np.float32),
        }
        for _ in range(n)
    ]


def _leaves_room(masks: np.ndarray, side: float) -> np.ndarray:
    """(N,) bool, whether a centre is left when ART forbids those whose patch would cross the border."""
    edge = int(side * masks.shape[-1]) // 2 + 1
    return np.asarray(masks[:, edge:-edge, edge:-edge].any(axis=(1, 2)))
