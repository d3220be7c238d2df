"""Transformer stacks on patch tokens: post-norm layers of torch, which attend by SDPA."""

from torch import Tensor, nn


class CrossAttentionDecoder(nn.Module):
    """Reads a memory with one query per patch position and projects each to the patch's values.

    Queries are positions without content, so that all an output knows comes from the memory.

    Args:
        n_layers: Layers.
        out_size: Values S per patch.
        d_model: Width D of queries and memory.
        n_heads: Attention heads.
        feedforward: Width of the hidden layer of the feed-forward blocks.
        dropout: Dropout, in [0, 1).
    """

    def __init__(
        self, n_layers: int, out_size: int, d_model: int, n_heads: int, feedforward: int, dropout: float
    ) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(d_model, n_heads, feedforward, dropout, batch_first=True)
        self.layers = nn.TransformerDecoder(layer, n_layers)
        _redraw(self.layers)
        self.head = nn.Linear(d_model, out_size)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Decode a memory.

        Args:
            queries: (N, D) positions.
            memory: (B, M, D) tokens.

        Returns:
            (B, N, S).
        """
        out: Tensor = self.head(self.layers(queries.expand(memory.shape[0], -1, -1), memory))
        return out


def encoder_stack(
    n_layers: int, d_model: int, n_heads: int, feedforward: int, dropout: float
) -> nn.TransformerEncoder:
    """Self-attention layers (B, M, D) -> (B, M, D)."""
    layer = nn.TransformerEncoderLayer(d_model, n_heads, feedforward, dropout, batch_first=True)
    stack = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
    _redraw(stack)
    return stack


def _redraw(stack: nn.Module) -> None:
    """Give every layer its own weights: torch's stacks start as copies of one layer."""
    for parameter in stack.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
