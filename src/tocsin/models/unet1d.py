"""A one-dimensional U-Net that is told a noise level: the denoiser of `models/prodiffad.py`.

The network of ProDiffAD (IJCNN 2024), a 1-D form of that of Ho et al., "Denoising Diffusion Probabilistic Models",
NeurIPS 2020, appendix B: residual blocks scaled and shifted by an embedding of the level, linear attention at each
width, full attention in the middle, two skip connections per width. Narrower than published (widths of 64 to 512,
15 million parameters); any length goes through it, where the published one fails unless 2^(widths - 1) divides it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tocsin.models.checks import check_range

_GROUPS = 8  # of the group normalisation
_EPSILON = 1e-6
_LEVEL_UNITS = 1000.0  # a level of 1 is as far on the sinusoids as the last of a thousand discrete steps


class UNet1d(nn.Module):
    """Maps noisy windows and their noise levels to windows.

    Args:
        n_channels: Channels C.
        dim: Width at full length; a multiple of 8.
        dim_mults: Multiples of `dim` at each length; each length after the first is half the one before.
        n_heads: Attention heads.
        head_dim: Width of a head.

    Raises:
        ValueError: If a value is outside its range.
    """

    def __init__(
        self,
        *,
        n_channels: int,
        dim: int = 16,
        dim_mults: Sequence[int] = (1, 2, 4),
        n_heads: int = 4,
        head_dim: int = 8,
    ) -> None:
        super().__init__()
        check_range("dim", dim, dim > 0 and dim % _GROUPS == 0, f"a positive multiple of {_GROUPS}")
        check_range("len(dim_mults)", len(dim_mults), len(dim_mults) >= 1, "at least 1")
        check_range("min(dim_mults)", min(dim_mults), min(dim_mults) >= 1, "at least 1")
        check_range("n_heads", n_heads, n_heads >= 1, "at least 1")
        check_range("head_dim", head_dim, head_dim >= 1, "at least 1")
        widths = [dim, *(dim * mult for mult in dim_mults)]
        n_stages, heads, level_width = len(dim_mults), (n_heads, head_dim), 4 * dim
        self.multiple = 2 ** (n_stages - 1)  # what the length is padded to
        self.dim = dim
        self.stem = nn.Conv1d(n_channels, dim, kernel_size=7, padding=3)
        self.embed_level = nn.Sequential(
            nn.Linear(dim, level_width), nn.GELU(), nn.Linear(level_width, level_width)
        )
        self.down = nn.ModuleList(
            _Down(widths[i], widths[i + 1], level_width, heads, halve=i < n_stages - 1)
            for i in range(n_stages)
        )
        self.enter = _ResBlock(widths[-1], widths[-1], level_width)
        self.attend = _Attention(widths[-1], *heads)
        self.leave = _ResBlock(widths[-1], widths[-1], level_width)
        self.up = nn.ModuleList(
            _Up(widths[i + 1], widths[i], level_width, heads, double=i > 0) for i in reversed(range(n_stages))
        )
        self.last = _ResBlock(2 * dim, dim, level_width)
        self.head = nn.Conv1d(dim, n_channels, kernel_size=1)

    def forward(self, z: Tensor, level: Tensor) -> Tensor:
        """Run the network.

        Args:
            z: (B, T, C) float, noisy windows of any length.
            level: (B,) float in [0, 1], how noisy each window is.

        Returns:
            (B, T, C) float.
        """
        steps = z.shape[1]
        time = self.embed_level(level_sinusoids(level, self.dim))  # (B, 4 D)
        x = functional.pad(z.transpose(1, 2), (0, -steps % self.multiple), mode="replicate")  # (B, C, T')
        stem = x = self.stem(x)  # (B, D, T')
        skips: list[Tensor] = []
        for down in self.down:
            x, kept = down(x, time)
            skips += kept
        x = self.leave(self.attend(self.enter(x, time)), time)
        for up in self.up:
            x = up(x, skips.pop(), skips.pop(), time)
        out: Tensor = self.head(self.last(torch.cat([x, stem], dim=1), time))  # (B, C, T')
        return out[:, :, :steps].transpose(1, 2)


def level_sinusoids(level: Tensor, width: int) -> Tensor:
    """Sines and cosines (B, width) of levels (B,) in [0, 1], float32."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=level.device) * (-math.log(10_000.0) / (half - 1)))
    angles = _LEVEL_UNITS * level.float()[:, None] * rates  # (B, width / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class _ResBlock(nn.Module):
    """Two convolutions; the level scales and shifts the result of the first."""

    def __init__(self, in_width: int, out_width: int, level_width: int) -> None:
        super().__init__()
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(level_width, 2 * out_width))
        self.first = nn.Conv1d(in_width, out_width, kernel_size=3, padding=1)
        self.first_norm = nn.GroupNorm(_GROUPS, out_width)
        self.second = nn.Conv1d(out_width, out_width, kernel_size=3, padding=1)
        self.second_norm = nn.GroupNorm(_GROUPS, out_width)
        self.skip = nn.Identity() if in_width == out_width else nn.Conv1d(in_width, out_width, kernel_size=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.modulate(time)[:, :, None].chunk(2, dim=1)  # (B, W, 1) each
        hidden = functional.silu(self.first_norm(self.first(x)) * (1 + scale) + shift)
        hidden = functional.silu(self.second_norm(self.second(hidden)))
        out: Tensor = hidden + self.skip(x)
        return out


class _Attention(nn.Module):
    """Residual attention over time, of normalised input; by SDPA, or linear in the length."""

    def __init__(self, width: int, n_heads: int, head_dim: int, *, linear: bool = False) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.linear = linear
        self.gain = nn.Parameter(torch.ones(width, 1))  # of an RMS norm over channels
        # No bias: that of the keys would do nothing.
        self.project = nn.Conv1d(width, 3 * n_heads * head_dim, kernel_size=1, bias=False)
        self.out = nn.Conv1d(n_heads * head_dim, width, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.float().square().mean(dim=1, keepdim=True)  # (B, 1, T)
        normed = x * torch.rsqrt(size + _EPSILON) * self.gain  # (B, W, T)
        # Time stays last, so that nothing is copied; only SDPA wants it before the features.
        projected: Tensor = self.project(normed)  # (B, 3 H D, T)
        parts = torch.unflatten(projected, 1, (3, self.n_heads, -1))
        query, key, value = parts.unbind(dim=1)  # (B, H, D, T) each
        if self.linear:
            found = linear_attention(query, key, value)
        else:
            found = functional.scaled_dot_product_attention(
                query.transpose(2, 3), key.transpose(2, 3), value.transpose(2, 3)
            ).transpose(2, 3)
        out: Tensor = x + self.out(found.flatten(1, 2))
        return out


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention whose cost grows with T, not T^2: keys are a distribution over time, queries over features.

    Args:
        query: (B, H, D, T) float.
        key: (B, H, D, T) float.
        value: (B, H, D, T) float.

    Returns:
        (B, H, D, T) float.
    """
    context = value @ key.softmax(dim=3).transpose(2, 3)  # (B, H, D, D)
    out: Tensor = context @ query.softmax(dim=2) * query.shape[2] ** -0.5
    return out


class _Down(nn.Module):
    """Two blocks and attention, then half the length (or, at the last width, the same)."""

    def __init__(
        self, in_width: int, out_width: int, level_width: int, heads: tuple[int, int], *, halve: bool
    ) -> None:
        super().__init__()
        self.first = _ResBlock(in_width, in_width, level_width)
        self.second = _ResBlock(in_width, in_width, level_width)
        self.attend = _Attention(in_width, *heads, linear=True)
        self.resize = (
            nn.Conv1d(in_width, out_width, kernel_size=4, stride=2, padding=1)
            if halve
            else nn.Conv1d(in_width, out_width, kernel_size=3, padding=1)
        )

    def forward(self, x: Tensor, time: Tensor) -> tuple[Tensor, list[Tensor]]:
        first = self.first(x, time)
        second = self.attend(self.second(first, time))
        return self.resize(second), [first, second]


class _Up(nn.Module):
    """Mirror of `_Down`: two blocks, each with a skip connection, and attention, then twice the length."""

    def __init__(
        self, in_width: int, out_width: int, level_width: int, heads: tuple[int, int], *, double: bool
    ) -> None:
        super().__init__()
        self.first = _ResBlock(in_width + out_width, in_width, level_width)
        self.second = _ResBlock(in_width + out_width, in_width, level_width)
        self.attend = _Attention(in_width, *heads, linear=True)
        self.doubles = double
        self.resize = nn.Conv1d(in_width, out_width, kernel_size=3, padding=1)

    def forward(self, x: Tensor, skip: Tensor, other_skip: Tensor, time: Tensor) -> Tensor:
        x = self.first(torch.cat([x, skip], dim=1), time)
        x = self.attend(self.second(torch.cat([x, other_skip], dim=1), time))
        if self.doubles:
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        out: Tensor = self.resize(x)
        return out
