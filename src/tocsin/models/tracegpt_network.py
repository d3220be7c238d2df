"""The network of TRACE-GPT: a temporal convolution as embedding, then a causal transformer.

Lee et al., arXiv 2309.11427, for the structure; sizes and details are a reconstruction, see `tracegpt`. Position t
of the output depends on the values before t alone.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

Position = Literal["learned", "rope", "none"]

_DILATIONS = (1, 2, 4)  # with two convolutions of three steps each: 29 steps are seen
_INIT = 0.02  # spread of weights and embeddings, as in GPT-2


class CausalConv(nn.Module):
    """Weight-normalised convolution over three steps, the present one and two before it.

    Args:
        in_size: Channels of the input.
        out_size: Channels of the output.
        dilation: Steps between the three.
    """

    def __init__(self, in_size: int, out_size: int, dilation: int) -> None:
        super().__init__()
        self.convolve = weight_norm(nn.Conv1d(in_size, out_size, kernel_size=3, dilation=dilation))
        self.padding = 2 * dilation

    def forward(self, x: Tensor) -> Tensor:
        """(R, in_size, T) to (R, out_size, T)."""
        out: Tensor = self.convolve(functional.pad(x, (self.padding, 0)))  # zeros on the left only
        return out


class ResidualConv(nn.Module):
    """Two causal convolutions beside a shortcut, (R, in_size, T) to (R, out_size, T)."""

    def __init__(self, in_size: int, out_size: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.convolve = nn.Sequential(
            CausalConv(in_size, out_size, dilation),
            nn.GELU(),
            nn.Dropout(dropout),
            CausalConv(out_size, out_size, dilation),
            nn.GELU(),
            nn.Dropout(dropout),
        )
        self.shortcut = nn.Conv1d(in_size, out_size, 1) if in_size != out_size else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and add."""
        out: Tensor = self.convolve(x) + self.shortcut(x)
        return out


class CausalBlock(nn.Module):
    """Pre-norm decoder block: causal self-attention, then a perceptron.

    Args:
        d_model: Width D of the tokens.
        n_heads: Attention heads.
        dropout: Dropout of both branches. None inside the attention: with it, SDPA has no fast kernel on a CPU.
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attention_norm = nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.attention_out = nn.Linear(d_model, d_model)
        self.mlp_norm = nn.LayerNorm(d_model)
        self.mlp_in = nn.Linear(d_model, 4 * d_model)
        self.mlp_out = nn.Linear(4 * d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, turns: Tensor | None) -> Tensor:
        """Tokens (R, T, D) to (R, T, D); `turns` (2, T, D / H) are those of `rotary_turns`, or None."""
        tokens = tokens + self.dropout(self._attend(self.attention_norm(tokens), turns))
        hidden = functional.gelu(self.mlp_in(self.mlp_norm(tokens)))
        out: Tensor = tokens + self.dropout(self.mlp_out(hidden))
        return out

    def _attend(self, tokens: Tensor, turns: Tensor | None) -> Tensor:
        R, T, D = tokens.shape
        heads = self.qkv(tokens).reshape(R, T, 3, self.n_heads, -1)  # (R, T, 3, H, D / H)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # (R, H, T, D / H) each
        if turns is not None:
            q, k = rotate(q, turns), rotate(k, turns)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)  # (R, H, T, D / H)
        out: Tensor = self.attention_out(seen.transpose(1, 2).reshape(R, T, D))
        return out


def rotary_turns(n_positions: int, size: int) -> Tensor:
    """Cosine and sine (2, T, size) of rotary positions (Su et al., "RoFormer", arXiv 2104.09864, section 3.2)."""
    rates = torch.exp(-math.log(10_000.0) * torch.arange(0, size, 2) / size)  # (size / 2,)
    angles = torch.arange(n_positions)[:, None] * rates  # (T, size / 2)
    return torch.stack([angles.cos(), angles.sin()]).repeat(1, 1, 2)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn pairs of features of x (..., T, S) by their position's angles: products then tell distances."""
    cos, sin = turns.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    turned: Tensor = x * cos + torch.cat([-second, first], dim=-1) * sin
    return turned


class NextValueDecoder(nn.Module):
    """Logits of each next bin of univariate sequences.

    Args:
        n_steps: Longest sequence T.
        n_channels: Channels C; each has its own start vector, which is all that tells channels apart.
        n_classes: Bins K, those for overflow included.
        tokens: Whether it reads bins, by an embedding, instead of values.
        pos: `learned`: a vector for each position. `rope`: rotary, which tells distances only. `none`.
        d_model: Width D of the tokens.
        n_heads: Attention heads; 2 * n_heads divides D.
        depth: Transformer blocks.
        dropout: Dropout, in [0, 1).
    """

    turns: Tensor | None

    def __init__(
        self,
        *,
        n_steps: int,
        n_channels: int,
        n_classes: int,
        tokens: bool,
        pos: Position,
        d_model: int,
        n_heads: int,
        depth: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_classes, d_model) if tokens else None
        widths = (d_model if tokens else 1, d_model, d_model)
        self.tcn = nn.Sequential(
            *(
                ResidualConv(width, d_model, dilation, dropout)
                for width, dilation in zip(widths, _DILATIONS, strict=True)
            )
        )
        # The learned start vector and the channel embedding in one.
        self.start = nn.Parameter(torch.randn(n_channels, d_model) * _INIT)
        self.positions = nn.Parameter(torch.randn(n_steps, d_model) * _INIT) if pos == "learned" else None
        turns = rotary_turns(n_steps, d_model // n_heads) if pos == "rope" else None
        self.register_buffer("turns", turns, persistent=False)
        self.blocks = nn.ModuleList(CausalBlock(d_model, n_heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)
        self._initialise(depth)

    def _initialise(self, depth: int) -> None:
        """Small weights, as in GPT-2; those that add to the residual path shrink with the depth."""
        for module in (*self.blocks.modules(), self.head):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=_INIT)
                nn.init.zeros_(module.bias)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith(("attention_out.weight", "mlp_out.weight")):
                nn.init.normal_(parameter, std=_INIT / math.sqrt(2 * depth))

    def forward(self, rows: Tensor, channel: Tensor) -> Tensor:
        """Predict each step from those before it.

        Args:
            rows: (R, T) float values, or int64 bins with `tokens`.
            channel: (R,) int64, channel of each row.

        Returns:
            (R, T, K) logits; those at t depend on rows[:, :t] alone.
        """
        past = rows[:, :-1]  # what the last step is, nothing needs to know
        values = past[:, None] if self.embedding is None else self.embedding(past).transpose(1, 2)
        embedded = self.tcn(values).transpose(1, 2)  # (R, T - 1, D)
        first = self.start[channel][:, None].to(embedded.dtype)  # (R, 1, D)
        tokens = torch.cat([first, embedded], dim=1)  # (R, T, D)
        n_steps = tokens.shape[1]
        if self.positions is not None:
            tokens = tokens + self.positions[:n_steps]
        turns = None if self.turns is None else self.turns[:, :n_steps]
        for block in self.blocks:
            tokens = block(tokens, turns)
        out: Tensor = self.head(self.norm(tokens))
        return out
