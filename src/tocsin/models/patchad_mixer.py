"""The MLP-Mixer of PatchAD: patch sizes, and a window seen as a row of patches and as the places inside a patch.

Zhong et al., arXiv 2401.09793, "patch-mixer" and "MixRep"; see `models/patchad.py`.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

LayerMode = Literal["parallel", "stacked"]
Activation = Literal["relu", "gelu"]

_WANTED = (3, 5, 7)  # patch sizes of the paper, whose windows have 105 steps
_LARGEST = 12  # no patch size chosen here is larger
_NUM_HIDDEN = 40  # hidden units of the MLP over patches, as released
_GROWTH = 1.2  # hidden units per input of the MLPs over channels and over places in a patch, as released
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


def proper_divisors(steps: int) -> list[int]:
    """Patch sizes that cut so many steps into at least two patches of at least two steps."""
    return [size for size in range(2, steps // 2 + 1) if steps % size == 0]


def choose_patch_sizes(window: int) -> tuple[list[int], int]:
    """Three patch sizes for any window.

    A window that has fewer than three divisors from 2 to 12 is made longer until it has.

    Args:
        window: Steps T of a window.

    Returns:
        The divisors nearest to 3, 5 and 7, all different, the larger of two; and the steps L >= T to pad to.
    """
    padded = window
    while len(divisors := [size for size in proper_divisors(padded) if size <= _LARGEST]) < len(_WANTED):
        padded += 1
    chosen = []
    for wanted in _WANTED:
        chosen.append(min(divisors, key=lambda size: (abs(size - wanted), -size)))
        divisors.remove(chosen[-1])
    return sorted(chosen), padded


def check_patch_sizes(patch_sizes: Sequence[int], window: int) -> None:
    """Check that sizes given by hand cut the window.

    Raises:
        ValueError: If one does not, is given twice, or there is none.
    """
    possible = proper_divisors(window)
    if not patch_sizes or len(set(patch_sizes)) < len(patch_sizes) or not set(patch_sizes) <= set(possible):
        choice = f"different ones of {', '.join(map(str, possible))}, or null" if possible else "null"
        raise ValueError(f"patch_sizes={list(patch_sizes)} do not cut window={window}: use {choice}")


class MixerSizes(NamedTuple):
    """What all scales share.

    Attributes:
        window: Steps T of a window, which the heads put out.
        n_channels: Channels C.
        d_model: Features D.
        n_layers: Mixer layers E.
        bottleneck: Features between the two halves of a reconstruction head.
        dropout: Dropout, in [0, 1).
        activation: `relu` or `gelu`.
    """

    window: int
    n_channels: int
    d_model: int
    n_layers: int
    bottleneck: int
    dropout: float
    activation: Activation


class ScaleOutput(NamedTuple):
    """What one patch size makes of a batch.

    Attributes:
        num: For each layer, features (B, C, N, D) of the N patches ("inter").
        size: For each layer, features (B, C, P, D) of the P places in a patch ("intra").
        expected: (B, C, T), the reconstruction.
    """

    num: list[Tensor]
    size: list[Tensor]
    expected: Tensor


class MixerMlp(nn.Module):
    """A two-layer MLP along one dimension, beside a skip path that is linear or, for projectors, the identity.

    Args:
        size: Length of the dimension.
        hidden: Hidden units.
        dropout: Dropout of the output, in [0, 1).
        activation: `relu` or `gelu`.
        dim: The dimension.
        identity: Whether the skip path is the identity.
    """

    def __init__(
        self,
        size: int,
        hidden: int,
        dropout: float,
        activation: Activation,
        *,
        dim: int = -1,
        identity: bool = False,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.skip = nn.Identity() if identity else nn.Linear(size, size)
        self.branch = nn.Sequential(
            nn.LayerNorm(size),
            nn.Linear(size, hidden),
            _ACTIVATIONS[activation](),
            nn.LayerNorm(hidden),
            nn.Linear(hidden, size),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Mix along the dimension; the shape stays."""
        # Strided, a linear layer would sum otherwise for frozen weights than for trained ones, by the last bit.
        x = x.transpose(self.dim, -1).contiguous()
        mixed: Tensor = self.skip(x) + self.branch(x)
        return mixed.transpose(self.dim, -1)


class MixerLayer(nn.Module):
    """Mixes channels, then patches or places, then features; both branches share the first and the last."""

    def __init__(self, sizes: MixerSizes, n_patches: int, patch_size: int) -> None:
        super().__init__()
        how = (sizes.dropout, sizes.activation)
        channels = sizes.n_channels
        # One channel has nothing to mix: LayerNorm would make it a constant.
        self.channels = MixerMlp(channels, int(_GROWTH * channels), *how, dim=1) if channels > 1 else None
        self.num = MixerMlp(n_patches, _NUM_HIDDEN, *how, dim=2)
        self.size = MixerMlp(patch_size, int(_GROWTH * patch_size), *how, dim=2)
        self.features = MixerMlp(sizes.d_model, sizes.d_model, *how)  # "MixRep"

    def forward(self, num: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Mix (B, C, N, D) patches and (B, C, P, D) places."""
        if self.channels is not None:
            num, size = self.channels(num), self.channels(size)
        return self.features(self.num(num)), self.features(self.size(size))


class ReconstructionHead(nn.Module):
    """Features (..., M, D) of a channel to its values (..., T)."""

    def __init__(self, n_tokens: int, sizes: MixerSizes) -> None:
        super().__init__()
        width = n_tokens * sizes.d_model
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, sizes.bottleneck),
            nn.Sigmoid(),
            nn.LayerNorm(sizes.bottleneck),
            nn.Linear(sizes.bottleneck, sizes.window),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(..., M, D) -> (..., T)."""
        values: Tensor = self.layers(features.flatten(start_dim=-2))  # (..., M * D) before the layers
        return values


class PatchScale(nn.Module):
    """Both views of windows cut into patches of one size, and their reconstruction.

    Args:
        sizes: What all scales share.
        padded: Steps L of the windows that come in, a multiple of the patch size.
        patch_size: Steps P of a patch.
        layer_mode: `parallel`: each layer reads the embedding. `stacked`: each reads the one before it.
        weigh_layers: Whether the layers' reconstructions have learned weights; else they count alike.
    """

    def __init__(
        self, sizes: MixerSizes, *, padded: int, patch_size: int, layer_mode: LayerMode, weigh_layers: bool
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.n_patches = padded // patch_size
        self.layer_mode = layer_mode
        self.embed_num = nn.Linear(patch_size, sizes.d_model)
        self.embed_size = nn.Linear(self.n_patches, sizes.d_model)
        self.layers = nn.ModuleList(
            MixerLayer(sizes, self.n_patches, patch_size) for _ in range(sizes.n_layers)
        )
        self.head_num = ReconstructionHead(self.n_patches, sizes)
        self.head_size = ReconstructionHead(patch_size, sizes)
        self.share = nn.Parameter(torch.tensor(0.5))  # a_k: of the patches' reconstruction
        # The softmax of a single weight is 1 whatever the weight.
        weighed = weigh_layers and sizes.n_layers > 1
        self.layer_weights = nn.Parameter(torch.zeros(sizes.n_layers)) if weighed else None

    def reconstruction_parameters(self) -> list[nn.Parameter]:
        """Those that only the reconstruction depends on."""
        heads = [*self.head_num.parameters(), *self.head_size.parameters(), self.share]
        return heads if self.layer_weights is None else [*heads, self.layer_weights]

    def forward(self, x: Tensor) -> ScaleOutput:
        """Look at windows (B, C, L)."""
        patches = x.reshape(*x.shape[:2], self.n_patches, self.patch_size)  # (B, C, N, P)
        num, size = self.embed_num(patches), self.embed_size(patches.transpose(2, 3).contiguous())
        nums: list[Tensor] = []
        sizes: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            if index:  # the released layers share one embedding that passes a ReLU between them
                num, size = num.relu(), size.relu()
            mixed_num, mixed_size = layer(num, size)
            nums.append(mixed_num)
            sizes.append(mixed_size)
            if self.layer_mode == "stacked":
                num, size = mixed_num, mixed_size
        return ScaleOutput(nums, sizes, self._reconstruct(torch.stack(nums), torch.stack(sizes)))

    def _reconstruct(self, num: Tensor, size: Tensor) -> Tensor:
        """Join what the heads make of features (E, B, C, N, D) and (E, B, C, P, D) to (B, C, T) float32."""
        from_num, from_size = self.head_num(num).float(), self.head_size(size).float()
        each: Tensor = self.share * from_num + (1 - self.share) * from_size  # (E, B, C, T)
        if self.layer_weights is None:
            return each.mean(dim=0)
        return (self.layer_weights.softmax(dim=0)[:, None, None, None] * each).sum(dim=0)
