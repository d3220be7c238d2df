"""Patches that were not trained: what covering a part of a person does by itself.

Any patch lowers the confidence of a detector, because it hides what it covers. An attack is what goes beyond the
best of these (Thys et al., "Fooling automated surveillance cameras", CVPR Workshops 2019, compare with noise). Noise
of single pixels is gray again once a patch is a few pixels wide in the image; `mosaic` keeps its contrast at any
size. `shuffled` has every colour of the trained patch as often as that, and nothing of its pattern.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tocsin.models.checks import check_range

CELLS = 8  # of a mosaic, along each side


def plain(size: int, *, value: float) -> Tensor:
    """A patch (3, P, P) of one gray in [0, 1]: 0.5 is the start of a training, 1 is white paper."""
    check_range("size", size, size >= 1, "a positive number of pixels")
    check_range("value", value, 0 <= value <= 1, "in [0, 1]")
    return torch.full((3, size, size), float(value))


def noise(size: int, *, seed: int) -> Tensor:
    """A patch (3, P, P) in [0, 1) with each value drawn for itself."""
    check_range("size", size, size >= 1, "a positive number of pixels")
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed))


def mosaic(size: int, *, seed: int, cells: int = CELLS) -> Tensor:
    """A patch (3, P, P) in [0, 1) of `cells` x `cells` squares, each of a random colour."""
    check_range("cells", cells, cells >= 1, "a positive number")
    check_range("size", size, size >= 1, "a positive number of pixels")
    return F.interpolate(noise(cells, seed=seed)[None], size=(size, size), mode="nearest")[0]


def shuffled(patch: Tensor, *, seed: int) -> Tensor:
    """The pixels of a patch (3, P, P) in a random order: its colours without its pattern."""
    pixels = patch.detach().flatten(1)  # (3, P * P)
    order = torch.randperm(pixels.shape[1], generator=torch.Generator().manual_seed(seed)).to(pixels.device)
    return pixels[:, order].reshape(patch.shape)


def control_patches(patch: Tensor, *, seed: int) -> dict[str, Tensor]:
    """All controls of a trained patch, by name, of its size, type and device.

    Args:
        patch: (3, P, P) float in [0, 1].
        seed: Of those that are drawn.

    Returns:
        `gray white noise mosaic shuffled`, each (3, P, P) in [0, 1].
    """
    size = patch.shape[-1]
    controls = {
        "gray": plain(size, value=0.5),
        "white": plain(size, value=1.0),
        "noise": noise(size, seed=seed),
        "mosaic": mosaic(size, seed=seed + 1),
        "shuffled": shuffled(patch, seed=seed + 2),
    }
    return {name: control.to(patch) for name, control in controls.items()}
