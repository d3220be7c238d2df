"""Self-ensemble: changes of image, victim and patch in training, so that a patch does not rely on one detector alone.

Huang et al., "T-SEA: Transfer-based Self-Ensemble Attack on Object Detection", CVPR 2023, section 3: an input
that is augmented within bounds, ShakeDrop on the residual branches of the victim, and cutout of the patch. What
differs: the image is mirrored, coloured and turned before patches are placed, so that none of it is part of the
gradient, and boxes turn with it around their centres; ShakeDrop is drawn for each image and branch, by hooks that
last for one pass; nothing is looped over images or boxes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tocsin.batch import DetectionBatch

_CUT_SHARE = 0.4  # side of the square, as a share of that of the patch
_CUT_OVERHANG = 0.05
_CUT_GRAY = 0.5
_JITTER = 0.1  # of brightness, contrast and saturation
_TURN = 5.0  # degrees
_LUMA = (0.299, 0.587, 0.114)
# Modules of ultralytics that add a branch to their input, and the last module of the branch.
_RESIDUAL = {
    "Bottleneck": ("cv2",),
    "RepBottleneck": ("cv2",),
    "CIB": ("cv1",),
    "PSABlock": ("attn", "ffn"),
}


def cut_out(patch: Tensor, n: int, *, probability: float) -> Tensor:
    """Copies (N, 3, P, P) of a (3, P, P) patch, most with a gray square somewhere.

    Args:
        patch: In [0, 1].
        n: Copies N.
        probability: Of a square in a copy.
    """
    P = patch.shape[-1]
    low, high = -_CUT_OVERHANG + _CUT_SHARE / 2, 1 + _CUT_OVERHANG - _CUT_SHARE / 2
    centre = low + (high - low) * torch.rand(n, 2, 1, device=patch.device)  # (N, 2, 1)
    place = (torch.arange(P, device=patch.device) + 0.5) / P
    within = (place - centre).abs() < _CUT_SHARE / 2  # (N, 2, P)
    cut = within[:, 0, :, None] & within[:, 1, None, :]  # (N, P, P)
    cut = cut & (torch.rand(n, 1, 1, device=patch.device) < probability)
    return torch.where(cut[:, None], _CUT_GRAY, patch)


def augmented(batch: DetectionBatch, *, probability: float) -> DetectionBatch:
    """Images mirrored (every second one), changed in colour and turned by up to five degrees, with their boxes.

    Args:
        batch: Images and boxes.
        probability: Of a change, for each image.
    """
    images = batch.image
    B, S = len(images), images.shape[-1]
    draws = torch.rand(6, B, device=images.device)
    changed = draws[0] < probability
    mirror = torch.where(changed & (draws[1] < 0.5), -1.0, 1.0)  # (B,)
    angle = torch.where(changed, torch.deg2rad(_TURN * (2 * draws[2] - 1)), 0.0)
    jitter = torch.where(changed, _JITTER * (2 * draws[3:] - 1), 0.0)  # (3, B)
    cos, sin = angle.cos(), angle.sin()
    zero = torch.zeros_like(cos)
    # Where a pixel of the new image comes from: mirrored after it was turned back.
    source = torch.stack([mirror * cos, -mirror * sin, zero, sin, cos, zero], dim=1).reshape(B, 2, 3)
    grid = F.affine_grid(source, [B, 3, S, S], align_corners=False)
    turned = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return batch._replace(
        image=_coloured(turned, *jitter), boxes=_turned(batch.boxes, batch.owner, mirror, cos, sin, S)
    )


def _coloured(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    images = images * (1 + brightness)[:, None, None, None]
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * (1 + contrast)[:, None, None, None]
    gray = (images * images.new_tensor(_LUMA)[:, None, None]).sum(dim=1, keepdim=True)
    return (gray + (images - gray) * (1 + saturation)[:, None, None, None]).clamp(0.0, 1.0)


def _turned(boxes: Tensor, owner: Tensor, mirror: Tensor, cos: Tensor, sin: Tensor, size: int) -> Tensor:
    """Boxes of the same size around their turned centres."""
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    x, y = ((boxes[:, :2] + boxes[:, 2:] - size) / 2).T  # from the middle of the image
    x = x * mirror[owner]
    cos, sin = cos[owner], sin[owner]
    centre = torch.stack([x * cos + y * sin, y * cos - x * sin], dim=1) + size / 2
    return torch.cat([centre - half, centre + half], dim=1)


@contextmanager
def shaken(network: nn.Module, *, probability: float) -> Iterator[None]:
    """Scale the residual branches of a network while this lasts, forward and backward independently.

    Args:
        network: Modules of ultralytics.
        probability: Of a scaling, for each image and branch; 0 changes nothing.
    """

    def shake(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        shape = (len(output), 1, 1, 1)
        kept = torch.rand(shape, device=output.device) >= probability
        forward, backward = (
            torch.where(kept, 1.0, 2.0 * torch.rand(shape, device=output.device)) for _ in range(2)
        )
        scaled: Tensor = _Shake.apply(output, forward.to(output.dtype), backward.to(output.dtype))
        return scaled

    hooks = []
    if probability > 0:
        hooks = [branch.register_forward_hook(shake) for branch in residual_branches(network)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def residual_branches(network: nn.Module) -> list[nn.Module]:
    """The last modules of all branches that are added to what they read."""
    return [
        getattr(module, name)
        for module in network.modules()
        if getattr(module, "add", False)
        for name in _RESIDUAL.get(type(module).__name__, ())
    ]


class _Shake(torch.autograd.Function):
    """A scale for the way forward, and another one for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward_scale: Tensor, backward_scale: Tensor) -> Tensor:
        ctx.save_for_backward(backward_scale)
        return x * forward_scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (scale,) = ctx.saved_tensors
        return grad * scale, None, None
