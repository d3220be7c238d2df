"""What Dinomaly trains: a noisy bottleneck and a decoder whose attention cannot focus.

Guo et al., "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection", CVPR 2025, arXiv
2405.14325, sections 3.2 and 3.3. The linear attention is that of Katharopoulos et al., "Transformers are RNNs", ICML
2020.
"""

import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6  # of the denominator of the attention: without it, there is a NaN once in a while
NORM_EPS = 1e-8


class NoisyMlp(nn.Module):
    """Two linear layers with dropout before, between and after them.

    Args:
        width: Width D of the tokens; that of the hidden layer is 4 D.
        dropout: Dropout in [0, 1), of the input too: the noise of the bottleneck.
        bias: Whether the layers have biases.
    """

    def __init__(self, width: int, *, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width, bias=bias)
        self.fc2 = nn.Linear(4 * width, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) tokens to such tokens."""
        hidden = self.dropout(F.gelu(self.fc1(self.dropout(tokens))))
        made: Tensor = self.dropout(self.fc2(hidden))
        return made


class LinearAttention(nn.Module):
    """Attention with the kernel elu(x) + 1 in the place of the softmax: linear in the number of tokens.

    It spreads over the whole image, so that a token is not rebuilt from itself and its neighbours.

    Args:
        width: Width D of the tokens.
        n_heads: Heads; divides D.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend from (B, N, D) tokens to all of them."""
        B, N, D = tokens.shape
        qkv = self.qkv(tokens).reshape(B, N, 3, self.n_heads, D // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, N, D / heads) each
        q, k = F.elu(q) + 1, (F.elu(k) + 1) / N  # means over the keys: their sums are beyond float16
        weights = (q * k.sum(dim=-2, keepdim=True)).sum(dim=-1, keepdim=True)  # (B, heads, N, 1)
        attended = (q @ (k.transpose(-2, -1) @ v)) / (weights + EPS)  # (B, heads, N, D / heads)
        made: Tensor = self.proj(attended.transpose(1, 2).reshape(B, N, D))
        return made


class DecoderBlock(nn.Module):
    """Block of a transformer that normalises first, with linear attention.

    Args:
        width: Width D of the tokens.
        n_heads: Heads; divides D.
        bias: Whether the feed-forward layers have biases.
    """

    def __init__(self, width: int, n_heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = LinearAttention(width, n_heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = NoisyMlp(width, bias=bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) tokens to such tokens."""
        tokens = tokens + self.attention(self.norm1(tokens))
        made: Tensor = tokens + self.mlp(self.norm2(tokens))
        return made


def init_small(module: nn.Module) -> None:
    """Draw the weights of linear layers from a narrow truncated normal distribution, biases 0; for `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.01, a=-0.03, b=0.03)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
