"""Windows to patch tokens and back, positional encoding, and which patches to hide.

Shared by the patch transformers. The three ways to embed a patch are those of the time-series masked
auto-encoder yunkio/anomaly_mae @a9e8287; BatchNorm is replaced by GroupNorm, which does not couple the
windows of a batch.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

PatchifyName = Literal["linear", "cnn_first", "patch_cnn"]
PoolName = Literal["mean", "flatten"]

_HIDDEN = 32  # channels of the first convolution
_GROUPS = 8


class Masked(NamedTuple):
    """Windows and what is hidden in each.

    Attributes:
        x: (B, T, C) float.
        mask: (B, N) bool hidden patches, or (B, C) bool hidden channels.
        values: (B, N, P * C) bool, hidden values.
        n_hidden: Hidden patches of every window; unused for channels.
    """

    x: Tensor
    mask: Tensor
    values: Tensor
    n_hidden: int


def to_patches(x: Tensor, patch_size: int) -> Tensor:
    """Cut windows into patches.

    Args:
        x: (B, T, C), T divisible by `patch_size`.
        patch_size: Steps P of a patch.

    Returns:
        (B, N, P * C) with N = T / P; time-major inside a patch. A view where memory allows.
    """
    batch, steps, channels = x.shape
    return x.reshape(batch, steps // patch_size, patch_size * channels)  # (B, N, P * C)


def from_patches(patches: Tensor, patch_size: int) -> Tensor:
    """Invert `to_patches`: (B, N, P * C) -> (B, N * P, C)."""
    batch, n_patches, size = patches.shape
    return patches.reshape(batch, n_patches * patch_size, size // patch_size)  # (B, T, C)


def count_patches(window: int, patch_size: int) -> int:
    """Number of patches N of a window.

    Raises:
        ValueError: If the window is not a positive multiple of the patch size.
    """
    if patch_size < 1 or window < patch_size or window % patch_size:
        raise ValueError(f"window={window} is not a multiple of patch_size={patch_size}")
    return window // patch_size


def nearest_divisor(window: int, wanted: int) -> int:
    """Divisor of the window nearest to `wanted`, the smaller one of two."""
    divisors = (size for size in range(1, window + 1) if window % size == 0)
    return min(divisors, key=lambda size: (abs(size - wanted), size))


def sinusoidal_positions(length: int, width: int) -> Tensor:
    """Sine-cosine positional encoding (Vaswani et al., NeurIPS 2017, section 3.5).

    Args:
        length: Number of positions.
        width: Features per position, even.

    Returns:
        (length, width) float32 in [-1, 1].
    """
    position = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10_000.0) / width))
    return torch.stack([(position * rate).sin(), (position * rate).cos()], dim=-1).flatten(
        1
    )  # (length, width)


def spread_groups(n_patches: int, n_groups: int) -> Tensor:
    """Masks that together hide every patch, each hiding evenly spread patches.

    All masks hide the same number of patches, so that they fit in one batch; where `n_groups` does not
    divide `n_patches`, the last ones hide some patches a second time.

    Args:
        n_patches: Patches N of a window.
        n_groups: Masks G, 2 <= G <= N.

    Returns:
        (G, N) bool, true = hidden.
    """
    size = -(-n_patches // n_groups)
    index = torch.arange(n_groups)[:, None] + n_groups * torch.arange(size)  # (G, size)
    return torch.zeros(n_groups, n_patches, dtype=torch.bool).scatter_(1, index % n_patches, True)


def last_patches(n_patches: int, patch_size: int, last_n: int) -> Tensor:
    """The mask (1, N) bool that hides every patch which overlaps the last `last_n` points."""
    ends = torch.arange(1, n_patches + 1) * patch_size
    return (ends > n_patches * patch_size - last_n)[None]


def random_masks(draws: Tensor, n_masked: int) -> Tensor:
    """Masks (B, N) bool that each hide `n_masked` random patches, from (B, N) uniform random numbers."""
    return draws.argsort(dim=1) < n_masked


class LinearPatchify(nn.Module):
    """Each patch, flattened, through one linear layer."""

    def __init__(self, n_channels: int, patch_size: int, d_model: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.project = nn.Linear(patch_size * n_channels, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, N, d_model)."""
        embedded: Tensor = self.project(to_patches(x, self.patch_size))
        return embedded


class PatchCnn(nn.Module):
    """Two convolutions inside each patch, which see no other patch."""

    def __init__(self, n_channels: int, patch_size: int, d_model: int, pool: PoolName) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.pool = pool
        self.convolve = _two_convolutions(n_channels, d_model)
        self.project = nn.Linear(d_model * patch_size, d_model) if pool == "flatten" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, N, d_model)."""
        batch, steps, channels = x.shape
        patches = x.reshape(-1, self.patch_size, channels)  # (B * N, P, C)
        features = self.convolve(patches.transpose(1, 2))  # (B * N, d_model, P)
        pooled = features.flatten(1) if self.pool == "flatten" else features.mean(dim=-1)
        embedded: Tensor = self.project(pooled)
        return embedded.reshape(batch, steps // self.patch_size, -1)  # (B, N, d_model)


class CnnFirst(nn.Module):
    """Two convolutions over the whole window, then patches: a token sees two points of each neighbour."""

    def __init__(self, n_channels: int, patch_size: int, d_model: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.convolve = _two_convolutions(n_channels, d_model)
        self.project = nn.Linear(d_model * patch_size, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, N, d_model)."""
        features = self.convolve(x.transpose(1, 2)).transpose(1, 2)  # (B, T, d_model)
        embedded: Tensor = self.project(to_patches(features, self.patch_size))
        return embedded


class _NormPerPoint(nn.Module):
    """Group normalisation over features at each time step, so that no step sees another through it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(_GROUPS, width), width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T) -> (B, D, T)."""
        batch, width, steps = x.shape
        normed: Tensor = self.norm(x.transpose(1, 2).reshape(-1, width))  # (B * T, D)
        return normed.reshape(batch, steps, width).transpose(1, 2)  # (B, D, T)


def _two_convolutions(n_channels: int, d_model: int) -> nn.Sequential:
    """(B, C, T) -> (B, d_model, T) with a receptive field of five points."""
    return nn.Sequential(
        nn.Conv1d(n_channels, _HIDDEN, kernel_size=3, padding=1),
        _NormPerPoint(_HIDDEN),
        nn.ReLU(),
        nn.Conv1d(_HIDDEN, d_model, kernel_size=3, padding=1),
        _NormPerPoint(d_model),
        nn.ReLU(),
    )


def build_patchify(
    name: PatchifyName, n_channels: int, patch_size: int, d_model: int, pool: PoolName
) -> LinearPatchify | PatchCnn | CnnFirst:
    """The module (B, T, C) -> (B, N, d_model) called `name`.

    Raises:
        ValueError: If `name` is unknown.
    """
    if name == "linear":
        return LinearPatchify(n_channels, patch_size, d_model)
    if name == "patch_cnn":
        return PatchCnn(n_channels, patch_size, d_model, pool)
    if name == "cnn_first":
        return CnnFirst(n_channels, patch_size, d_model)
    raise ValueError(f"patchify={name!r} is not one of 'linear', 'cnn_first', 'patch_cnn'")
