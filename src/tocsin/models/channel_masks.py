"""Hiding whole channels: what the masked auto-encoder needs besides hiding patches in time."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tocsin.models.patchify import to_patches


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
    """Estimates each channel from the visible ones around: a path past the patch tokens.

    A token has too little room for every point of its patch, so fine detail that channels share would be
    lost. A linear convolution carries what is linear. A perceptron over a patch and its two neighbours, which is
    told what is hidden, carries the rest; per second of training it learns more than deeper transformers.

    Args:
        n_channels: Channels C.
        patch_size: Steps P of a patch.
        width: Features of the perceptron.
        n_blocks: Its residual blocks.
        kernel: Steps that the linear part sees around a point, odd.
    """

    def __init__(
        self, n_channels: int, patch_size: int, *, width: int = 256, n_blocks: int = 2, kernel: int = 5
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.linear = nn.Conv1d(n_channels, n_channels, kernel, padding=kernel // 2)
        self.embed = nn.Linear(3 * patch_size * n_channels, width)
        self.hidden = nn.Linear(n_channels, width, bias=False)
        self.blocks = nn.ModuleList(_block(width) for _ in range(n_blocks))
        self.head = nn.Sequential(nn.GELU(), nn.Linear(width, patch_size * n_channels))
        for weight in (self.linear.weight, self.head[1].weight):
            assert isinstance(weight, Tensor)
            nn.init.zeros_(weight)  # start from the transformer's output alone

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Estimate every channel.

        Args:
            x: (B, T, C) with hidden channels zeroed.
            mask: (B, C) bool, true = hidden.

        Returns:
            (B, N, P * C), patch by patch.
        """
        size = self.patch_size
        padded = functional.pad(x, (0, 0, size, size))  # (B, T + 2 P, C)
        around = padded.unfold(1, 3 * size, size).flatten(start_dim=2)  # (B, N, C * 3 P)
        features = self.embed(around) + self.hidden(mask.to(x))[:, None]  # (B, N, width)
        for block in self.blocks:
            features = features + block(features)
        linear = self.linear(x.transpose(1, 2)).transpose(1, 2)  # (B, T, C)
        detail: Tensor = to_patches(linear, size) + self.head(features)  # (B, N, P * C)
        return detail


def _block(width: int) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
    )
