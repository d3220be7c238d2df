"""Textures under another light: three changes for each image, of ten that are drawn without repetition.

DRAEM (ICCV 2021) changes the textures it pastes by three of ten augmentations. What differs: the three come in a
fixed order, those that move or need the whole texture first; and only the pixels that a mask will show are
computed, on average one in twenty.
"""

import math

import torch
from torch import Tensor

from tocsin.models.seeded_draws import SeededDraws
from tocsin.models.textures import LEVELS, Pixels, TextureBank

AUGMENTATIONS = (
    "rotation",
    "autocontrast",
    "equalise",
    "sharpness",
    "gamma",
    "brightness",
    "hue",
    "solarise",
    "posterise",
    "invert",
)
N_AUGMENTATIONS = 3  # for each image
_CROSS = ((0, 1), (0, -1), (1, 0), (-1, 0))

# Augmentation, smallest and largest value of what it draws, and the value that changes nothing.
_DRAWN = (
    ("rotation", -math.pi / 4, math.pi / 4, 0.0),
    ("autocontrast", 1.0, 1.0, 0.0),
    ("equalise", 1.0, 1.0, 0.0),
    ("sharpness", 0.1, 1.9, 1.0),
    ("hue", -2 * math.pi * 50 / 255, 2 * math.pi * 50 / 255, 0.0),
    ("hue", 0.5, 1.5, 1.0),  # saturation
    ("gamma", -1.0, 1.0, 0.0),  # powers of two, for each channel
    ("gamma", -1.0, 1.0, 0.0),
    ("gamma", -1.0, 1.0, 0.0),
    ("brightness", 0.8, 1.2, 1.0),
    ("brightness", -30 / 255, 30 / 255, 0.0),
    ("solarise", 32 / 255, 224 / 255, 1.0),  # from half of it on, none
    ("posterise", 1.0, 8.0, 20.0),  # bits
    ("invert", -1.0, -1.0, 1.0),
)
_MOST_SOLARISED = 128 / 255


def _changes(draws: SeededDraws) -> list[Tensor]:
    """What is done to each image: (B,) float32 for each row of `_DRAWN`."""
    chosen = draws.permutation(len(AUGMENTATIONS)) < N_AUGMENTATIONS  # (B, 10), three true in each row
    low, high, idle = torch.tensor([row[1:] for row in _DRAWN]).T
    values = low + (high - low) * draws.uniform(len(_DRAWN))
    return [*torch.where(chosen[:, [AUGMENTATIONS.index(row[0]) for row in _DRAWN]], values, idle).T]


def texture_colours(bank: TextureBank, pixels: Pixels, draws: SeededDraws, size: tuple[int, int]) -> Tensor:
    """Colours of pixels, from one augmented texture for each image.

    Args:
        bank: The textures.
        pixels: P pixels of a batch of B images.
        draws: One seed for each image.
        size: Height and width of the images.

    Returns:
        (P, 3) float32 in [0, 1].
    """
    device = pixels.image.device
    texture = draws.integers(n=len(bank)).to(device)
    changes = _changes(draws)
    angle, autocontrast, equalise, sharpness = torch.stack(changes[:4]).to(device)
    moved = _rotated(pixels, angle, size)
    table = _table(bank.cumulative[texture], autocontrast > 0, equalise > 0)
    colours = _looked_up(table, moved, bank.values(texture, moved))
    factor = sharpness[pixels.image]
    sharp = (factor != 1.0).nonzero()[:, 0]
    blurred = _cross_mean(bank, table, texture, Pixels(*(part[sharp] for part in moved)))
    colours[sharp] = (blurred + factor[sharp, None] * (colours[sharp] - blurred)).clamp(0.0, 1.0)
    colours = _recoloured(colours, pixels.image, changes[4:])
    return torch.where(bank.grey, colours.mean(dim=1, keepdim=True), colours)


def _rotated(pixels: Pixels, angles: Tensor, size: tuple[int, int]) -> Pixels:
    """Where pixels lie in textures that are turned by (B,) angles around their centre."""
    cos, sin = angles.cos()[pixels.image], angles.sin()[pixels.image]
    y, x = pixels.y - size[0] / 2, pixels.x - size[1] / 2
    turned_y = (y * cos - x * sin + size[0] / 2).round().long()
    turned_x = (y * sin + x * cos + size[1] / 2).round().long()
    return Pixels(pixels.image, turned_y, turned_x)


def _table(cumulative: Tensor, autocontrast: Tensor, equalise: Tensor) -> Tensor:
    """What becomes of each level of a texture (B, 3, 256): itself, or spread over [0, 1] in one of two ways."""
    level = torch.arange(LEVELS, device=cumulative.device) / (LEVELS - 1)
    low = (cumulative <= 0).sum(dim=2, keepdim=True) / (LEVELS - 1)
    high = (cumulative < 1).sum(dim=2, keepdim=True) / (LEVELS - 1)
    stretched = ((level - low) / (high - low).clamp(min=1 / LEVELS)).clamp(0.0, 1.0)
    table = torch.where(autocontrast[:, None, None], stretched, level)
    return torch.where(equalise[:, None, None], cumulative, table)


def _looked_up(table: Tensor, pixels: Pixels, levels: Tensor) -> Tensor:
    rows = pixels.image[:, None] * 3 + torch.arange(3, device=table.device)  # of (image, channel)
    return table.flatten().take(rows * LEVELS + levels)


def _cross_mean(bank: TextureBank, table: Tensor, texture: Tensor, pixels: Pixels) -> Tensor:
    """Mean (P, 3) of the four neighbours of each pixel."""
    near = [Pixels(pixels.image, pixels.y + dy, pixels.x + dx) for dy, dx in _CROSS]
    return torch.stack([_looked_up(table, beside, bank.values(texture, beside)) for beside in near]).mean(
        dim=0
    )


def _recoloured(colours: Tensor, image: Tensor, changes: list[Tensor]) -> Tensor:
    """What changes each pixel (P, 3) by itself, with (B,) values for the images."""
    hue, saturation, *gammas, gain, offset, threshold, bits, sign = changes
    threshold = torch.where(threshold > _MOST_SOLARISED, 2.0, threshold)  # of colours, which are at most 1
    steps = bits.floor().exp2() - 1
    single = [*(gamma.exp2() for gamma in gammas), gain, offset, threshold, steps, sign]
    turns = hue_matrices(hue, saturation).flatten(1)  # (B, 9)
    values = torch.cat([torch.stack(single, dim=1), turns], dim=1).to(image.device)[image]  # (P, 17)
    gamma, gain, offset, threshold, steps, sign, turn = torch.split(values, [3, 1, 1, 1, 1, 1, 9], dim=1)
    colours = ((colours**gamma) * gain + offset).clamp_(0.0, 1.0)
    colours = (turn.reshape(-1, 3, 3) @ colours[:, :, None])[:, :, 0].clamp_(0.0, 1.0)
    colours = torch.where(colours >= threshold, 1.0 - colours, colours)
    colours = (colours * steps).round_() / steps
    return (colours - 0.5) * sign + 0.5


def hue_matrices(angles: Tensor, saturation: Tensor) -> Tensor:
    """Matrices that turn colours around the grey axis and scale their distance to it.

    Args:
        angles: (B,) float, in radians.
        saturation: (B,) float >= 0; 1 = as it was.

    Returns:
        (B, 3, 3) float; grey stays as it is.
    """
    mean = torch.full((3, 3), 1 / 3, device=angles.device)
    cross = torch.tensor(
        [[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=angles.device
    ) / math.sqrt(3)
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    turned = cos * (torch.eye(3, device=angles.device) - mean) + sin * cross
    return mean + saturation[:, None, None] * turned
