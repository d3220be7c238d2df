"""Scaled, additive CutPaste: a strip of an image is added at another place of it, at a strength of its own.

After CutPaste (Li et al., CVPR 2021), in the form that was made for one-channel maps of vibration energy: the strip
is divided by its largest value, multiplied by the amplitude and added, without a clamp, so that the amplitude can be
seen. What differs: widths and heights are shares of the image, and strips never overlap their origin (above or below
it there is always room).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tocsin.models.seeded_draws import SeededDraws
from tocsin.models.textures import Pixels

WIDTHS = (2 / 128, 127 / 128)  # of a strip, as shares of the image
HEIGHTS = (4 / 128, 8 / 128)
_SILENT = 1e-6  # largest value of a strip that shows nothing


class Strips(NamedTuple):
    """Where strips come from and go to.

    Attributes:
        target: (B, 2) int64, top row and left column of the place where each is added.
        source: (B, 2) int64, those of the place where it is cut.
        size: (B, 2) int64, its height and width.
    """

    target: Tensor
    source: Tensor
    size: Tensor


def draw_strips(size: tuple[int, int], draws: SeededDraws) -> Strips:
    """One strip for each image, above or below its origin.

    Args:
        size: Height H >= 3 and width W of the images.
        draws: One seed for each image.
    """
    H, W = size
    height = (draws.uniform(low=HEIGHTS[0], high=HEIGHTS[1]) * H).round().long().clamp(1, max(1, H // 3))
    width = (draws.uniform(low=WIDTHS[0], high=WIDTHS[1]) * W).round().long().clamp(1, W)

    def place(room: Tensor) -> Tensor:
        return (draws.uniform() * room).long()

    top = place(H - height + 1)
    above = (top - height + 1).clamp(min=0)  # tops that end before the origin begins
    below = (H - top - 2 * height + 1).clamp(min=0)
    chosen = place(above + below)
    target_top = torch.where(chosen < above, chosen, top + height + chosen - above)
    source = torch.stack([top, place(W - width + 1)], dim=1)
    target = torch.stack([target_top, place(W - width + 1)], dim=1)
    return Strips(target, source, torch.stack([height, width], dim=1))


def strip_masks(strips: Strips, size: tuple[int, int]) -> Tensor:
    """Where strips are added, (B, H, W) bool."""

    def inside(axis: int) -> Tensor:
        offset = torch.arange(size[axis], device=strips.size.device) - strips.target[:, axis, None]
        return (offset >= 0) & (offset < strips.size[:, axis, None])  # (B, H or W)

    return inside(0)[:, :, None] & inside(1)[:, None, :]


def strip_values(images: Tensor, pixels: Pixels, strips: Strips) -> tuple[Tensor, Tensor]:
    """What is added at the pixels of strips, before the amplitude.

    Args:
        images: (B, 3, H, W) float.
        pixels: P pixels, each in the target of its image's strip.
        strips: One for each image.

    Returns:
        Values (P, 3) float, the largest size in each strip 1; and (B,) bool, false for a strip that was cut where
        nothing is: its values are 0.
    """
    shift = (strips.source - strips.target)[pixels.image]  # (P, 2)
    values = images[pixels.image, :, pixels.y + shift[:, 0], pixels.x + shift[:, 1]]  # (P, 3)
    peak = values.new_zeros(len(images)).scatter_reduce(0, pixels.image, values.abs().amax(dim=1), "amax")
    shown = peak > _SILENT
    scale = shown / peak.clamp(min=_SILENT)
    return values * scale[pixels.image, None], shown
