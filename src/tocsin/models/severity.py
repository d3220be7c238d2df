"""How severe an anomaly is: what the severity head learns, the head, and how well it is known.

DRAEM-SevNet (public in a fork of anomalib, 2025) lets a head on the features of DRAEM's discriminative encoder
predict the strength of the synthetic fault. There, the strength of a patch that was added and cut off at 1 could
not be seen above some level. Here the target is bounded and can be seen: how far the image was changed, times a
power of the anomaly's extent.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tocsin.models.anomaly_synthesis import Synthetic
from tocsin.models.checks import check_choice, check_range

TARGETS = ("contrast_area", "contrast", "blend_area", "amplitude")
POOLINGS = ("gap", "spatial_aware")
AREA_POWER = 0.5
_GRID = 4  # cells a side of the pooling that is aware of space
_FIRST_WIDTHS = (32, 64)  # of its convolutions at the two finest of several scales; 128 at the others
_WIDTH = 128
_TINY = 1e-6


def raw_severity(synthetic: Synthetic, target: str) -> Tensor:
    """Severity of synthetic anomalies before it is scaled to [0, 1].

    Args:
        synthetic: Images before and after; those with an empty mask have severity 0.
        target: `contrast`: mean change of the masked pixels c; `contrast_area`: c times the root of the extent A,
            which is the root of the mask's share of the image; `amplitude`: opacity or strength a; `blend_area`: a
            times the root of A.

    Returns:
        (B,) float32 >= 0.
    """
    mask = synthetic.mask.float()
    pixels = mask.sum(dim=(1, 2))
    extent = (pixels / mask[0].numel()).sqrt()
    change = (synthetic.image - synthetic.clean).abs().mean(dim=1)  # (B, H, W)
    contrast = (change * mask).sum(dim=(1, 2)) / pixels.clamp(min=1.0)
    size = contrast if target.startswith("contrast") else synthetic.amplitude
    return size * extent**AREA_POWER if target.endswith("_area") else size


class SeverityHead(nn.Module):
    """Severity of the features of an encoder.

    Args:
        channels: Channels of the six blocks of the encoder.
        multi_scale: Read blocks two to six, not the last alone.
        pooling: `gap`: the mean of each map; `spatial_aware`: an attention map and a convolution, pooled to four by
            four cells.
        dropout: Between the layers, in [0, 1).
        detach: Let the head's loss leave the encoder as it is.

    Raises:
        ValueError: If a value is outside its range.
    """

    def __init__(
        self, channels: tuple[int, ...], *, multi_scale: bool, pooling: str, dropout: float, detach: bool
    ) -> None:
        super().__init__()
        check_choice("pooling", pooling, POOLINGS)
        check_range("dropout", dropout, 0.0 <= dropout < 1.0, "in [0, 1)")
        self.detach = detach
        self.n_maps = len(channels) - 1 if multi_scale else 1
        read = channels[-self.n_maps :]
        if pooling == "gap":
            self.pools = nn.ModuleList(_MeanPool() for _ in read)
            sizes, hidden = [sum(read), 128, 64], [*read]
        else:
            hidden = [_WIDTH] * len(read)
            if multi_scale:
                hidden[: len(_FIRST_WIDTHS)] = _FIRST_WIDTHS
            self.pools = nn.ModuleList(_AttentivePool(n, h) for n, h in zip(read, hidden, strict=True))
            sizes = [sum(hidden) * _GRID**2, *((256, 128) if multi_scale else (128, 64))]
        layers: list[nn.Module] = [nn.LayerNorm(sizes[0])]
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        self.mlp = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Severity (B,) float32 in [0, 1] of the six maps of the encoder, the i-th (B, C_i, H / 2^i, W / 2^i)."""
        maps = features[-self.n_maps :]
        if self.detach:
            maps = [one.detach() for one in maps]
        pooled = torch.cat([pool(one) for pool, one in zip(self.pools, maps, strict=True)], dim=1)
        logits: Tensor = self.mlp(pooled)
        return logits.float()[:, 0].sigmoid()


class _MeanPool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class _AttentivePool(nn.Module):
    """Weighs the places of a map, convolves it and keeps the mean of each of four by four cells."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.attention = nn.Conv2d(n_in, 1, 1)
        self.conv = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(_GRID)

    def forward(self, x: Tensor) -> Tensor:
        weighed = x * self.attention(x).sigmoid()
        pooled: Tensor = self.pool(self.conv(weighed).relu())
        return pooled.flatten(1)


# --- evaluation ---------------------------------------------------------------------------------------------


class SeverityReport(NamedTuple):
    """How well a head knows the severity of synthetic anomalies.

    Attributes:
        level: (L,) float32, the amplitudes that were set, from 0 to 1.
        target: (L,) float32, mean true severity of the images at each.
        predicted: (L,) float32, mean predicted severity at each.
        spearman: Rank correlation of true and predicted severity over all images, in [-1, 1].
        pearson: Linear correlation, in [-1, 1].
        mean_error: Mean absolute error, in [0, 1].
    """

    level: Tensor
    target: Tensor
    predicted: Tensor
    spearman: float
    pearson: float
    mean_error: float


def severity_report(target: Tensor, predicted: Tensor) -> SeverityReport:
    """Compare severities of the same images at rising amplitudes.

    Args:
        target: (L, N) float, true severity of N images at L amplitudes, evenly from 0 to 1.
        predicted: (L, N) float, that of the head.
    """
    return SeverityReport(
        level=torch.linspace(0, 1, len(target)),
        target=target.mean(dim=1),
        predicted=predicted.mean(dim=1),
        spearman=spearman(target.flatten(), predicted.flatten()),
        pearson=_correlation(target.flatten(), predicted.flatten()),
        mean_error=float((target - predicted).abs().mean()),
    )


def spearman(first: Tensor, second: Tensor) -> float:
    """Rank correlation of two (N,) tensors, in [-1, 1]; equal values share their mean rank. 0 if one is constant."""
    return _correlation(_ranks(first), _ranks(second))


def _ranks(values: Tensor) -> Tensor:
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(dim=0).double()
    ranks: Tensor = last - (counts - 1) / 2
    return ranks[place]


def _correlation(first: Tensor, second: Tensor) -> float:
    x, y = (values.double() - values.double().mean() for values in (first, second))
    return float((x * y).sum() / (x.norm() * y.norm()).clamp(min=_TINY**2))


def check_target(target: str) -> None:
    """Raise ValueError unless it is one of `TARGETS`."""
    check_choice("severity_target", target, TARGETS)
