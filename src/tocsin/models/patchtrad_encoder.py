"""The transformer of PatchTrAD: post-norm layers with BatchNorm, whose attention scores accumulate.

Vilhes, Gasso and Alaya, "PatchTrAD: A Patch-Based Transformer focusing on Patch-Wise Reconstruction Error for
Time Series Anomaly Detection", EUSIPCO 2025, arXiv 2504.08827. Its encoder is that of PatchTST (Nie et al., ICLR
2023); scores that pass from layer to layer are RealFormer's (He et al., ACL Findings 2021).

What differs: there is a skip connection around the attention, as in PatchTST; the released code of PatchTrAD
has none (`attn_residual=False`).
"""

import math

import torch
from torch import Tensor, nn

from tocsin.models.patchify import sinusoidal_positions

_POSITION_SD = 0.1  # so that a position shifts a token and does not drown it


def small_positions(length: int, width: int) -> Tensor:
    """Sine-cosine positional encoding with mean 0 and standard deviation 0.1, over all its values.

    Args:
        length: Number of positions.
        width: Features per position, even.

    Returns:
        (length, width) float32.
    """
    positions = sinusoidal_positions(length, width)
    return (positions - positions.mean()) * (_POSITION_SD / positions.std())


class ScoreResidualAttention(nn.Module):
    """Multi-head self-attention that adds the scores of the layer before to its own.

    It returns the scores, so it cannot use the fused attention of torch.

    Args:
        d_model: Width D of the tokens.
        n_heads: Heads H; divides `d_model`.
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.scale = 1.0 / math.sqrt(d_model // n_heads)
        self.queries_keys_values = nn.Linear(d_model, 3 * d_model)
        self.project = nn.Linear(d_model, d_model)

    def forward(self, tokens: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            tokens: (S, N, D).
            before: (S, H, N, N) scores of the layer before, not yet normalised; None for the first layer.

        Returns:
            (S, N, D) and the scores (S, H, N, N), which the next layer adds to its own.
        """
        n_series, n_tokens, width = tokens.shape
        packed = self.queries_keys_values(tokens).reshape(n_series, n_tokens, 3, self.n_heads, -1)
        queries, keys, values = packed.permute(2, 0, 3, 1, 4)  # each (S, H, N, D / H)
        scores = queries @ keys.transpose(-2, -1) * self.scale  # (S, H, N, N)
        if before is not None:
            scores = scores + before
        attended = scores.softmax(dim=-1).to(values.dtype) @ values  # (S, H, N, D / H)
        joined = attended.transpose(1, 2).reshape(n_series, n_tokens, width)  # (S, N, D)
        return self.project(joined), scores


class TokenBatchNorm(nn.Module):
    """Batch normalisation of each feature over all tokens of all series."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(d_model)

    def forward(self, tokens: Tensor) -> Tensor:
        """(S, N, D) -> (S, N, D)."""
        normed: Tensor = self.norm(tokens.flatten(0, 1))  # (S * N, D)
        return normed.reshape(tokens.shape)  # (S, N, D)


class PatchLayer(nn.Module):
    """Attention, then a feed-forward block; each is followed by batch normalisation.

    Args:
        d_model: Width D of the tokens.
        n_heads: Heads; divides `d_model`.
        feedforward: Width of the hidden layer of the feed-forward block.
        dropout: Dropout, in [0, 1).
        attn_residual: Whether there is a skip connection around the attention.
    """

    def __init__(
        self, d_model: int, n_heads: int, feedforward: int, dropout: float, attn_residual: bool
    ) -> None:
        super().__init__()
        self.attn_residual = attn_residual
        self.attention = ScoreResidualAttention(d_model, n_heads)
        self.dropout = nn.Dropout(dropout)
        self.attention_norm = TokenBatchNorm(d_model)
        self.feedforward = nn.Sequential(
            nn.Linear(d_model, feedforward),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward, d_model),
        )
        self.feedforward_norm = TokenBatchNorm(d_model)

    def forward(self, tokens: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens (S, N, D) and scores of the layer before to tokens and scores, shapes kept."""
        attended, scores = self.attention(tokens, before)
        attended = self.dropout(attended)
        tokens = self.attention_norm(tokens + attended if self.attn_residual else attended)
        return self.feedforward_norm(tokens + self.feedforward(tokens)), scores


class PatchEncoder(nn.Module):
    """Patches of single channels to tokens that know of the other patches of their channel.

    Args:
        patch_size: Values P of a patch.
        n_patches: Patches N of a window.
        d_model: Width D of the tokens, even.
        n_heads: Heads; divides `d_model`.
        n_layers: Layers.
        feedforward: Width of the hidden layer of the feed-forward blocks.
        dropout: Dropout, in [0, 1).
        attn_residual: Whether there is a skip connection around the attention.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        patch_size: int,
        n_patches: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        feedforward: int,
        dropout: float,
        attn_residual: bool,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(patch_size, d_model)
        self.register_buffer("positions", small_positions(n_patches, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)
        sizes = (d_model, n_heads, feedforward, dropout, attn_residual)
        self.layers = nn.ModuleList(PatchLayer(*sizes) for _ in range(n_layers))

    def forward(self, patches: Tensor) -> Tensor:
        """Encode.

        Args:
            patches: (S, N, P) float, each of the S = B * C series a channel of a window.

        Returns:
            (S, N, D).
        """
        tokens: Tensor = self.dropout(self.embed(patches) + self.positions)
        scores: Tensor | None = None
        for layer in self.layers:
            tokens, scores = layer(tokens, scores)
        return tokens


class ChannelHeads(nn.Module):
    """A linear map of its own for each channel, all in one product.

    Args:
        n_channels: Channels C.
        d_model: Width D of the tokens.
        patch_size: Values P of a patch.
    """

    def __init__(self, n_channels: int, d_model: int, patch_size: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(d_model)  # as torch draws a linear layer
        self.weight = nn.Parameter(torch.empty(n_channels, patch_size, d_model).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_channels, patch_size).uniform_(-bound, bound))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, C, N, D) -> (B, C, N, P)."""
        mapped = torch.einsum("bcnd,cpd->bcnp", tokens, self.weight)
        return mapped + self.bias[:, None]
