"""Textures drawn from formulae, for machines without a folder of them.

DRAEM pastes photographs of textures; its ablation finds that what is pasted matters little as long as it is varied.
Seven families: fractal Perlin noise, gratings, Voronoi cells, checkers, strokes, gradients and blurred noise, each
with random scales, directions and palettes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tocsin.models.perlin import largest_exponent, perlin_noise
from tocsin.models.seeded_draws import SeededDraws

Size = tuple[int, int]

_OCTAVES = 4
_POINTS = 24  # centres of cells
_STROKES = 12
_COLOURS = 4  # of a palette


def procedural_textures(n: int, size: Size, *, seed: int = 0) -> Tensor:
    """Textures of all families by turns.

    Args:
        n: Number of textures N.
        size: Height H and width W.
        seed: Each texture is a function of this and its number.

    Returns:
        (N, 3, H, W) float32 in [0, 1].
    """
    made = torch.empty(n, 3, *size)
    for index, family in enumerate(FAMILIES[:n]):
        rows = torch.arange(index, n, len(FAMILIES))
        draws = SeededDraws(rows + seed * n)
        made[rows] = _coloured(family(size, draws), draws)
    return made


def _coloured(fields: Tensor, draws: SeededDraws) -> Tensor:
    """Give fields (N, H, W) of any range a random palette each, blended or in steps."""
    low, high = fields.amin(dim=(1, 2), keepdim=True), fields.amax(dim=(1, 2), keepdim=True)
    level = (fields - low) / (high - low).clamp(min=1e-6) * (_COLOURS - 1)
    stepped = draws.uniform()[:, None, None] < 0.3
    level = torch.where(stepped, level.round(), level).flatten(1)  # (N, H * W)
    palette = draws.uniform(_COLOURS, 3)
    weights = (1.0 - (level[:, :, None] - torch.arange(_COLOURS)).abs()).clamp(min=0)  # (N, H * W, colours)
    return (weights @ palette).mT.reshape(len(fields), 3, *fields.shape[1:])  # (N, 3, H, W)


def _grid(size: Size, draws: SeededDraws) -> tuple[Tensor, Tensor]:
    """Coordinates (N, H, W) in units of the shorter side, in a system that is turned at random."""
    H, W = size
    unit = min(size)
    y, x = torch.meshgrid(torch.arange(H) / unit, torch.arange(W) / unit, indexing="ij")
    angle = draws.uniform(1, 1, high=math.pi)
    return y * angle.cos() - x * angle.sin(), y * angle.sin() + x * angle.cos()


def _fractal(size: Size, draws: SeededDraws) -> Tensor:
    total = torch.zeros(len(draws), *size)
    start = draws.integers(2, n=3)
    for octave in range(_OCTAVES):
        exponents = torch.stack(
            [(start[:, i] + octave).clamp(max=largest_exponent(side)) for i, side in enumerate(size)], dim=1
        )
        total += perlin_noise(2.0**exponents, size, draws) / 2**octave
    return total


def _gratings(size: Size, draws: SeededDraws) -> Tensor:
    """Waves, bent by a slower wave across them; half of them fade around a centre, as Gabor's do."""
    along, across = _grid(size, draws)
    rate = 2 ** draws.uniform(1, 1, low=1, high=5)
    bend = draws.uniform(1, 1, high=0.1) * (across * rate).sin()
    wave = (2 * math.pi * (rate * (along + bend) + draws.uniform(1, 1))).sin()
    fade = (-((along - 0.5) ** 2 + (across - 0.5) ** 2) / draws.uniform(1, 1, low=0.02, high=0.3)).exp()
    return torch.where(draws.uniform(1, 1) < 0.5, wave, wave * fade)


def _cells(size: Size, draws: SeededDraws) -> Tensor:
    """Distance to the nearest of some points, or a level for each point's cell."""
    y, x = _grid(size, draws)
    centres = draws.integers(_POINTS, n=size[0] * size[1])  # each on a pixel
    places = torch.stack(
        [y.flatten(1).gather(1, centres), x.flatten(1).gather(1, centres)], dim=2
    )  # (N, K, 2)
    pixels = torch.stack([y.flatten(1), x.flatten(1)], dim=2)  # (N, H * W, 2)
    nearest, owner = torch.cdist(pixels, places).min(dim=2)  # (N, H * W)
    levels = draws.uniform(_POINTS).gather(1, owner)
    field = torch.where(draws.uniform(1) < 0.5, nearest, levels)
    return field.reshape(-1, *size)  # (N, H, W)


def _checkers(size: Size, draws: SeededDraws) -> Tensor:
    along, across = _grid(size, draws)
    rates = 2 ** draws.uniform(2, 1, 1, low=1, high=4)
    return ((along * rates[:, 0]).floor() + (across * rates[:, 1]).floor()) % 2


def _strokes(size: Size, draws: SeededDraws) -> Tensor:
    """Straight lines of random places, directions, widths and levels, the later over the earlier."""
    y, x = _grid(size, draws)
    field = draws.uniform(1, 1).expand(-1, *size)
    for _ in range(_STROKES):
        angle, offset = draws.uniform(1, 1, high=math.pi), draws.uniform(1, 1, low=-1.5, high=1.5)
        width, level = draws.uniform(1, 1, low=0.005, high=0.06), draws.uniform(1, 1)
        field = torch.where((y * angle.cos() + x * angle.sin() - offset).abs() < width, level, field)
    return field


def _gradients(size: Size, draws: SeededDraws) -> Tensor:
    along, across = _grid(size, draws)
    centre = draws.uniform(1, 1, low=-0.5, high=1.0)
    return torch.where(draws.uniform(1, 1) < 0.5, along, ((along - centre) ** 2 + across**2).sqrt())


def _blurred_noise(size: Size, draws: SeededDraws) -> Tensor:
    """White noise on a coarser grid, smooth between its points."""
    H, W = size
    small = [(max(2, H // step), max(2, W // step)) for step in (1, 2, 4, 8)]
    scale = draws.integers(n=len(small))
    field = torch.empty(len(draws), H, W)
    for index, shape in enumerate(small):
        rows = (scale == index).nonzero()[:, 0]
        if len(rows):
            noise = draws.at(rows).uniform(1, *shape)
            field[rows] = F.interpolate(noise, size=size, mode="bicubic", align_corners=False)[:, 0]
    return field


FAMILIES: tuple[Callable[[Size, SeededDraws], Tensor], ...] = (
    _fractal,
    _gratings,
    _cells,
    _checkers,
    _strokes,
    _gradients,
    _blurred_noise,
)
"""Each makes fields (N, H, W) of any range."""
