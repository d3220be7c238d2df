"""Perlin noise and the masks of anomalies made of it, for a whole batch at once.

Perlin, "Improving Noise", SIGGRAPH 2002; masks as in DRAEM, ICCV 2021, section 3.3 and the authors' code: lattices of
2^k cells a side, k in {0..5} for each side alone, rotated by up to 90 degrees, cut at 0.5. What differs: cells have
at least four pixels a side, as on smaller ones most of the noise is lost between the pixels; at 128 pixels and more
all lattices of the paper are drawn.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tocsin.models.seeded_draws import SeededDraws

MAX_EXPONENT = 5  # lattices have up to 2^5 cells a side
_CELL = 4  # least pixels of a cell
_THRESHOLD = 0.5
_MAX_ANGLE = math.pi / 2


def perlin_noise(cells: Tensor, size: tuple[int, int], draws: SeededDraws) -> Tensor:
    """Gradient noise, each image on a lattice of its own.

    Along each side a pixel lies between two lines of the lattice, which it sees with weights that add up to one. So
    the noise is two products of small matrices: weights of the rows, gradients, weights of the columns.

    Args:
        cells: (B, 2) float, cells of the lattice along height and width, at least 1.
        size: Height H and width W.
        draws: Directions of the gradients come from here. Their number depends on the size alone.

    Returns:
        (B, H, W) float32, about in [-1, 1], 0 in the corners of the lattice; on the device of `cells`.
    """
    H, W = size
    lines = _most_lines(size)
    angles = draws.uniform(*lines, high=2 * math.pi).to(cells.device)  # (B, I, J)
    rows, row_offsets = _weights(cells[:, 0], H, lines[0])  # (B, H, I)
    columns, column_offsets = _weights(cells[:, 1], W, lines[1])  # (B, W, J)
    along_rows = angles.sin() @ columns.mT  # (B, I, W)
    along_columns = angles.cos() @ column_offsets.mT  # (B, I, W)
    left = torch.cat([row_offsets, rows], dim=2) * math.sqrt(2.0)  # (B, H, 2 * I)
    return left @ torch.cat([along_rows, along_columns], dim=1)


def _most_lines(size: tuple[int, int]) -> tuple[int, int]:
    height, width = (2 ** largest_exponent(side) + 1 for side in size)
    return height, width


def largest_exponent(side: int) -> int:
    """Largest k for which 2^k cells along a side of so many pixels are drawn."""
    return max(0, min(MAX_EXPONENT, int(math.log2(max(side / _CELL, 1)))))


def _weights(cells: Tensor, side: int, lines: int) -> tuple[Tensor, Tensor]:
    """Weight (B, side, lines) of each line of the lattice at each pixel, and the same times the distance to it."""
    places = torch.arange(side, device=cells.device) / side * cells[:, None]  # (B, side)
    distance = places[..., None] - torch.arange(lines, device=cells.device)  # (B, side, lines)
    t = (1.0 - distance.abs()).clamp(min=0.0)
    weights = (
        t * t * t * (t * (6.0 * t - 15.0) + 10.0)
    )  # the fade of 2002; those of two neighbours add up to 1
    return weights, weights * distance


def rotated(images: Tensor, angles: Tensor, *, padding: str = "zeros") -> Tensor:
    """Images turned around their centre, in pixels, whatever their shape.

    Args:
        images: (B, C, H, W) float.
        angles: (B,) float, in radians.
        padding: What comes in at the corners: `zeros`, `border` or `reflection`.
    """
    B, _, H, W = images.shape
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]  # (B, 1, 1)
    y = (torch.arange(H, device=images.device) * 2 + 1 - H)[:, None]  # in half pixels from the centre
    x = torch.arange(W, device=images.device) * 2 + 1 - W
    grid = images.new_empty(B, H, W, 2)
    torch.add(
        x * cos / W, -y * sin / W, out=grid[..., 0]
    )  # in place: large temporaries cost more than the sums
    torch.add(x * sin / H, y * cos / H, out=grid[..., 1])
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def perlin_masks(size: tuple[int, int], draws: SeededDraws, device: torch.device | None = None) -> Tensor:
    """Random regions of all sizes.

    Args:
        size: Height H and width W.
        draws: One seed for each mask.
        device: Where the masks are made.

    Returns:
        (B, H, W) bool, true = anomalous. A mask may be empty: noise does not always pass the threshold.
    """
    exponents = [draws.integers(n=largest_exponent(side) + 1) for side in size]
    cells = 2.0 ** torch.stack(exponents, dim=1)  # (B, 2)
    angles = draws.uniform(low=-_MAX_ANGLE, high=_MAX_ANGLE)
    noise = perlin_noise(cells.to(device), size, draws)
    return rotated(noise[:, None], angles.to(device))[:, 0] > _THRESHOLD
