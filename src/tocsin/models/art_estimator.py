"""A victim as ART wants it, so that ART's own attacks run on today's ultralytics.

ART 1.20.1 has a wrapper for ultralytics (`PyTorchYolo(is_ultralytics=True)`), which fails with ultralytics from
8.4.110 on: it reads the terms of the loss by number, and they have names now (`KeyError: 0`). Up to then its
`loss_box`, `loss_cls` and `loss_dfl` carried no gradient. Here the victim speaks the language of torchvision's
detectors instead, and ART's plain `PyTorchObjectDetector` drives it: in training mode it returns `loss_total`,
`loss_cls`, `loss_box` and `loss_dfl`, each with a gradient and with both branches of one-to-one heads; otherwise
detections.

`AdversarialPatchPyTorch` never sets the gradient of its patch to zero (github.com/twosixlabs/armory/issues/1950), so
that each step follows the sum of all gradients since the start. It does call `zero_grad` of the model before each
step: `clear_with_model` makes that clear the patch too.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tocsin.errors import ConfigError
from tocsin.models.attack_packages import require_art
from tocsin.models.yolo_victim import YoloVictim

LOSSES = ("loss_total", "loss_cls", "loss_box", "loss_dfl")
_CONFIDENCE = 0.25  # from which what is found counts as an object, where ART asks for labels


class ArtVictim(nn.Module):
    """Losses in training mode, detections otherwise; labels and boxes as torchvision has them.

    Args:
        victim: The detector.
        on_loss: Called with the total loss of each batch.
    """

    def __init__(self, *, victim: YoloVictim, on_loss: Callable[[Tensor], None] | None = None) -> None:
        super().__init__()
        self.victim = victim
        self._on_loss = on_loss
        self._also_cleared: list[Tensor] = []

    def clear_with_model(self, tensor: Tensor) -> None:
        """Set the gradient of this tensor to zero whenever that of the model is."""
        self._also_cleared.append(tensor)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for tensor in self._also_cleared:
            tensor.grad = None

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Terms of the loss, or one dictionary of `boxes`, `labels` and `scores` for each image.

        Args:
            images: (B, 3, S, S) float in [0, 1].
            targets: For each image `boxes` (n, 4), left, top, right, bottom in pixels, and `labels` (n,); objects of
                other classes than the attacked one are left out.
        """
        images = images.float()
        if self.training and targets is not None:
            boxes = [target["boxes"][target["labels"] == self.victim.target_class] for target in targets]
            owner = torch.repeat_interleave(
                torch.arange(len(boxes), device=images.device),
                torch.tensor([len(own) for own in boxes], device=images.device),
            )
            terms = self.victim.losses(images, torch.cat(boxes).to(images), owner)
            if self._on_loss is not None:
                self._on_loss(terms["total"].detach())
            return {f"loss_{name}": value for name, value in terms.items()}
        found = self.victim.detect(images)
        sure = found.scores >= _CONFIDENCE
        return [
            {
                "boxes": found.boxes[own],
                "labels": torch.full_like(found.owner[own], self.victim.target_class),
                "scores": found.scores[own],
            }
            for own in (sure & (found.owner == image) for image in range(len(images)))
        ]


def art_estimator(model: ArtVictim, *, size: int, losses: tuple[str, ...] = ("loss_total",)) -> Any:
    """ART's `PyTorchObjectDetector` around a victim; images are (N, 3, S, S) in [0, 1].

    Args:
        model: The victim.
        size: Pixels of a side of the images, S.
        losses: Terms whose sum an attack follows, of `loss_total`, `loss_cls`, `loss_box` and `loss_dfl`.

    Raises:
        ConfigError: ART is not installed, or a term has another name: ART would leave it out without a word.
    """
    require_art()
    from art.estimators.object_detection import PyTorchObjectDetector

    unknown = [name for name in losses if name not in LOSSES]
    if unknown or not losses:
        raise ConfigError(f"losses={list(losses)}: give one or more of {', '.join(LOSSES)}")
    on_gpu = next(model.parameters()).is_cuda
    return PyTorchObjectDetector(
        model=model,
        input_shape=(3, size, size),
        clip_values=(0.0, 1.0),
        channels_first=True,
        attack_losses=losses,
        device_type="gpu" if on_gpu else "cpu",
    )
