"""Features of image patches from a pretrained network, as PatchCore aggregates them.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, section 3.1. Two aggregations are
published: that of the paper's code (`published`) flattens neighbourhoods and averages neighbouring numbers of them
down to a width; the simpler one of anomalib (`pooled`) averages each channel over the neighbourhood. Both bring
deeper layers to the grid of the first by bilinear interpolation.

What differs from the paper's code: it interpolates the unfolded maps and then averages; here it is the other way
round, which gives the same and takes a fraction of the memory. Two options go beyond it: a neighbourhood need not be
square, which is for things that run along a line; and the features of an image may be standardised, so that the
brightness and the contrast of the whole image are not seen.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tocsin.models.checks import check_choice, check_range
from tocsin.models.pretrained import Normalise, timm_network

AGGREGATIONS = ("pooled", "published")
_EPSILON = 1e-5  # added to a variance, as in any instance normalisation


class PatchFeatures(nn.Module):
    """A frozen network up to the deepest layer that is asked for, and the aggregation of its feature maps.

    Args:
        backbone: As timm knows it.
        layers: Names of layers, as timm lists them for features (`layer2`, `blocks.4`).
        weights: `hub`, a file, `random`, or None where a checkpoint will be loaded.
        aggregation: `pooled` or `published`.
        patch_size: Side (or height and width) of the neighbourhood that is aggregated, in positions of a feature map;
            odd.
        embedding_dim: Width D of the result of `published`; that of `pooled` is the sum of the layers' channels.
        instance_norm: Whether each channel of an image has mean 0 and standard deviation 1 over its positions.

    Attributes:
        n_features: Width D.

    Raises:
        ValueError: An option is outside its range, or a layer is not one of those that timm lists.
    """

    def __init__(
        self,
        *,
        backbone: str,
        layers: Sequence[str],
        weights: str | None,
        aggregation: str = "pooled",
        patch_size: int | Sequence[int] = 3,
        embedding_dim: int = 1024,
        instance_norm: bool = False,
    ) -> None:
        super().__init__()
        check_choice("aggregation", aggregation, AGGREGATIONS)
        check_range("embedding_dim", embedding_dim, embedding_dim >= 1, "at least 1")
        self.aggregation = aggregation
        self.patch_size = _sides(patch_size)
        self.embedding_dim = embedding_dim
        self.instance_norm = instance_norm
        # The getter leaves out what comes after the last layer, in every family of timm.
        options = {"features_only": True, "feature_cls": "getter"}
        chosen = {"out_indices": _indices(backbone, layers, options)}
        network = timm_network(backbone, weights=weights, options={**options, **chosen})
        self.normalise = Normalise.of(network)
        self.network = network.to(memory_format=torch.channels_last)
        channels: list[int] = network.feature_info.channels()  # type: ignore[union-attr, operator]
        self.n_features = sum(channels) if aggregation == "pooled" else embedding_dim
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "PatchFeatures":
        """Stay in evaluation mode: statistics of the normalisation layers are frozen too."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features of the patches.

        Args:
            images: (B, 3, H, W) float32 in [0, 1].

        Returns:
            (B, h, w, D) float32 on the grid of the first layer.
        """
        normal = self.normalise(images).contiguous(memory_format=torch.channels_last)
        aggregate = self._pooled if self.aggregation == "pooled" else self._published
        parts = self.network(normal)  # (B, C_l, h_l, w_l) each
        if self.instance_norm:
            parts = [_standardised(part) for part in parts]
        maps = [aggregate(part) for part in parts]
        first, *deeper = maps
        onto = [F.interpolate(part, size=first.shape[2:], mode="bilinear") for part in deeper]
        if self.aggregation == "pooled":
            return torch.cat([first, *onto], dim=1).permute(0, 2, 3, 1).float()
        stacked = torch.cat([first, *onto], dim=1).permute(0, 2, 3, 1)  # (B, h, w, L * D)
        return _averaged(stacked.float(), self.embedding_dim)

    @property
    def _padding(self) -> tuple[int, int]:
        return self.patch_size[0] // 2, self.patch_size[1] // 2

    def _pooled(self, features: Tensor) -> Tensor:
        """Mean of each channel over the neighbourhood, with zeros around the map: (B, C, h, w)."""
        return F.avg_pool2d(features, self.patch_size, stride=1, padding=self._padding)

    def _published(self, features: Tensor) -> Tensor:
        """Flattened neighbourhoods (channel by channel), averaged down to the width: (B, D, h, w)."""
        _, _, h, w = features.shape
        unfolded = F.unfold(features, self.patch_size, padding=self._padding)  # (B, C * P * P, h * w)
        narrow = _averaged(unfolded.transpose(1, 2), self.embedding_dim)  # (B, h * w, D)
        return narrow.transpose(1, 2).reshape(len(narrow), self.embedding_dim, h, w)


def _standardised(features: Tensor) -> Tensor:
    """Features (B, C, h, w) with mean 0 and standard deviation 1 over the positions of an image, in float32."""
    features = features.float()
    variance, mean = torch.var_mean(features, dim=(2, 3), correction=0, keepdim=True)  # (B, C, 1, 1)
    return (features - mean) * torch.rsqrt(variance + _EPSILON)


def _sides(patch_size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of a neighbourhood."""
    sides = (patch_size, patch_size) if isinstance(patch_size, int) else tuple(patch_size)
    fits = len(sides) == 2 and all(side >= 1 and side % 2 == 1 for side in sides)
    check_range("patch_size", patch_size, fits, "odd and at least 1, or a height and a width that are")
    return sides[0], sides[1]


def _averaged(vectors: Tensor, width: int) -> Tensor:
    """Vectors (B, ..., n) averaged down to (B, ..., width), over neighbouring numbers."""
    return F.adaptive_avg_pool1d(vectors.flatten(1, -2), width).reshape(*vectors.shape[:-1], width)


def _indices(backbone: str, layers: Sequence[str], options: dict[str, object]) -> list[int]:
    """Places of the layers among those that timm lists, from first to last."""
    with torch.device("meta"):  # names cost no memory and no time
        known: list[str] = timm_network(backbone, weights=None, options=options).feature_info.module_name()  # type: ignore[union-attr, operator]
    unknown = [name for name in layers if name not in known]
    if unknown or not layers:
        raise ValueError(f"layers={[*layers]} of {backbone}: choose from {', '.join(known)}")
    return sorted({known.index(name) for name in layers})
