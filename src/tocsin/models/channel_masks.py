"""Hiding whole channels: what the masked auto-encoder needs besides hiding patches in time."""

import torch
from torch import Tensor, nn


def groups_of_channels(n_channels: int, n_groups: int) -> Tensor:
    """Masks that together hide every channel once; neighbours, which are often akin, in different masks.

    Args:
        n_channels: Channels C, at least 2.
        n_groups: Masks G wanted; C where that is fewer.

    Returns:
        (G, C) bool, true = hidden.
    """
    n_groups = min(n_groups, n_channels)
    return torch.arange(n_channels) % n_groups == torch.arange(n_groups)[:, None]


class DetailPath(nn.Module):
    """Estimates each channel from the visible ones a few steps around: a path past the patch tokens.

    A token has too little room for every point of its patch, so fine detail that channels share would be
    lost. A linear convolution and a small non-linear one carry it.

    Args:
        n_channels: Channels C.
        width: Features of the non-linear part.
        kernel: Steps seen around a point, odd.
    """

    def __init__(self, n_channels: int, *, width: int = 64, kernel: int = 5) -> None:
        super().__init__()
        same = kernel // 2
        self.linear = nn.Conv1d(n_channels, n_channels, kernel, padding=same)
        self.curved = nn.Sequential(
            nn.Conv1d(n_channels, width, kernel, padding=same),
            nn.GELU(),
            nn.Conv1d(width, width, 1),
            nn.GELU(),
            nn.Conv1d(width, n_channels, 1),
        )
        last = self.curved[-1]
        assert isinstance(last, nn.Conv1d)
        for weight in (self.linear.weight, last.weight):
            nn.init.zeros_(weight)  # start from the transformer's output alone

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) with hidden channels zeroed -> (B, T, C)."""
        x = x.transpose(1, 2)  # (B, C, T)
        out: Tensor = (self.linear(x) + self.curved(x)).transpose(1, 2)  # (B, T, C)
        return out
