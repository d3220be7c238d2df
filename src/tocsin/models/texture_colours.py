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
_FINE = 2.0**20  # steps of a posterisation that changes nothing
_CROSS = ((0, 1), (0, -1), (1, 0), (-1, 0))


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
    chosen = (draws.permutation(len(AUGMENTATIONS)) < N_AUGMENTATIONS).to(
        device
    )  # (B, 10), three true in each row
    uses = {name: chosen[:, index] for index, name in enumerate(AUGMENTATIONS)}

    moved = _rotated(pixels, _drawn(draws, device, -math.pi / 4, math.pi / 4) * uses["rotation"], size)
    table = _table(bank.cumulative[texture], uses["autocontrast"], uses["equalise"])
    colours = _looked_up(table, moved, bank.values(texture, moved))
    sharp = uses["sharpness"][pixels.image].nonzero()[:, 0]
    some = Pixels(*(part[sharp] for part in moved))
    factor = _drawn(draws, device, 0.1, 1.9)[some.image, None]
    blurred = _cross_mean(bank, table, texture, some)
    colours[sharp] = (blurred + factor * (colours[sharp] - blurred)).clamp(0.0, 1.0)
    colours = _recoloured(colours, pixels.image, uses, draws)
    return torch.where(bank.grey, colours.mean(dim=1, keepdim=True), colours)


def _drawn(draws: SeededDraws, device: torch.device, low: float, high: float, *shape: int) -> Tensor:
    return draws.uniform(*shape, low=low, high=high).to(device)


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


def _recoloured(colours: Tensor, image: Tensor, uses: dict[str, Tensor], draws: SeededDraws) -> Tensor:
    """What changes each pixel (P, 3) by itself. An image that does not use a change gets one that changes nothing."""
    device = colours.device

    def drawn(name: str, low: float, high: float, *shape: int, idle: float) -> Tensor:
        values = _drawn(draws, device, low, high, *(shape or (1,)))
        return torch.where(uses[name][:, None], values, idle)  # (B, 3) or (B, 1)

    gamma = drawn("gamma", -1.0, 1.0, 3, idle=0.0).exp2()
    gain = drawn("brightness", 0.8, 1.2, idle=1.0)
    offset = drawn("brightness", -30 / 255, 30 / 255, idle=0.0)
    angle = drawn("hue", -50 / 255, 50 / 255, idle=0.0) * 2 * math.pi
    turn = hue_matrices(angle[:, 0], drawn("hue", 0.5, 1.5, idle=1.0)[:, 0])
    threshold = drawn("solarise", 32 / 255, 128 / 255, idle=2.0)
    spared = _drawn(draws, device, 0.0, 1.0, 1) < 0.5  # solarise leaves half of the images as they are
    threshold = torch.where(spared, 2.0, threshold)
    steps = torch.where(uses["posterise"], 2.0 ** (1 + draws.integers(n=7).to(device)) - 1, _FINE)[:, None]
    sign = torch.where(uses["invert"], -1.0, 1.0)[:, None]

    per_image = torch.cat([gamma, gain, offset, threshold, steps, sign, turn.flatten(1)], dim=1)  # (B, 17)
    gamma, gain, offset, threshold, steps, sign, turn = torch.split(
        per_image[image], [3, 1, 1, 1, 1, 1, 9], dim=1
    )
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
