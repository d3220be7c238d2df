"""Continuous values as classes: bins for each channel, learned from a bounded sample of training points.

Bins 1 to V are regular. Bin 0 holds all that lies below them, bin V + 1 all that lies above.
"""

import logging
import math
from typing import Literal

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Binning = Literal["uniform", "quantile"]

OVERFLOW = 2  # bins beside the V regular ones
_QUANTILES = (0.001, 0.999)  # between these lies what is normal
_MARGIN = 0.1  # of the distance between them, on either side
_LEAST_SPAN = 1e-2  # of a channel that is constant in training, in standardised units
_SECOND_DIFFERENCE = 0.6745 * math.sqrt(6.0)  # median |x_t - 2 x_{t-1} + x_{t-2}| of white noise with sd 1


class PointSample:
    """A random sample of bounded size from points that come in batches of any number.

    Each point draws a key; the points with the smallest keys stay. So all points have the same chance, and no
    step of the windows is preferred, as it would be by keeping every n-th point.

    Args:
        most: Points kept; up to twice as many are held in between.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._generator = torch.Generator().manual_seed(0)
        self._points: list[Tensor] = []
        self._keys: list[Tensor] = []
        self._held = 0
        self._limit = torch.tensor(1.0)

    def add(self, points: Tensor) -> None:
        """Offer points (N, K) of any device."""
        keys = torch.rand(len(points), generator=self._generator)
        chosen = (keys < self._limit).nonzero().flatten()
        self._points.append(points[chosen.to(points.device)].cpu())
        self._keys.append(keys[chosen])
        self._held += len(chosen)
        if self._held > 2 * self.most:
            self.taken()

    def taken(self) -> Tensor:
        """The sample (M, K), M <= most.

        Raises:
            ValueError: If no point was offered.
        """
        if not self._held:
            raise ValueError("there are no training points to learn bins from: give more data")
        points, keys = torch.cat(self._points), torch.cat(self._keys)
        kept = keys.argsort()[: self.most]
        if len(keys) > self.most:
            self._limit = keys[kept[-1]]
        self._points, self._keys, self._held = [points[kept]], [keys[kept]], len(kept)
        return self._points[0]


def bin_edges(points: Tensor, n_bins: int, binning: Binning) -> Tensor:
    """Borders of the regular bins of each channel.

    Args:
        points: (M, C) float, standardised, of the train split.
        n_bins: Regular bins V.
        binning: `uniform`: all as wide. `quantile`: all as full, but for the outer borders, which are those of
            `uniform`.

    Returns:
        (C, V + 1) float32, ascending.
    """
    ordered = points.float().sort(dim=0).values  # (M, C); torch.quantile refuses large inputs
    last = len(ordered) - 1
    low, high = (ordered[round(q * last)] for q in _QUANTILES)  # (C,)
    # A constant channel still gets bins on both sides of its value.
    lacking = (_LEAST_SPAN - (high - low)).clamp(min=0.0) / 2
    low, high = low - lacking, high + lacking
    margin = _MARGIN * (high - low)
    outer = torch.stack([low - margin, high + margin], dim=1)  # (C, 2)
    shares = torch.linspace(0.0, 1.0, n_bins + 1)
    if binning == "uniform":
        return outer[:, :1] + shares * (outer[:, 1:] - outer[:, :1])
    inner = ordered[(shares[1:-1] * last).round().long()].T  # (C, V - 1)
    edges = torch.cat([outer[:, :1], inner.clamp(min=outer[:, :1], max=outer[:, 1:]), outer[:, 1:]], dim=1)
    return edges.contiguous()


def digitise(values: Tensor, edges: Tensor) -> Tensor:
    """Bin of each value.

    Args:
        values: (R, T) float.
        edges: (R, V + 1) float, ascending, for each row its own.

    Returns:
        (R, T) int64 in [0, V + 1].
    """
    return torch.searchsorted(edges, values.contiguous())


def target_table(n_bins: int, *, ordinal_sigma: float, overflow_mass: float) -> Tensor:
    """What the network should say of each bin: row b is the target where the truth lies in bin b.

    Args:
        n_bins: Regular bins V.
        ordinal_sigma: Spread of the target over neighbouring regular bins, in bins; 0 = none.
        overflow_mass: Share of every target that the two overflow bins get, in [0, 1): they are empty in
            training, or nearly so, and without it their cross-entropy would grow without bound.

    Returns:
        (V + 2, V + 2) float32, rows sum to 1.
    """
    table = torch.eye(n_bins + OVERFLOW)
    if ordinal_sigma > 0.0:
        bins = torch.arange(float(n_bins))
        near = torch.exp(-((bins[:, None] - bins).square()) / (2.0 * ordinal_sigma**2))
        table[1:-1, 1:-1] = near / near.sum(dim=1, keepdim=True)
    table *= 1.0 - overflow_mass
    table[:, [0, -1]] += overflow_mass / 2
    return table


def noise_spread(second_differences: Tensor) -> Tensor:
    """Standard deviation (C,) of white noise from second differences (M, C): what no smooth signal explains."""
    return second_differences.abs().median(dim=0).values / _SECOND_DIFFERENCE


def bin_shares(points: Tensor, edges: Tensor) -> Tensor:
    """Share of points (M, C) in each bin of edges (C, V + 1): (C, V + 2), rows sum to 1."""
    bins = digitise(points.T, edges)  # (C, M)
    counts = torch.zeros(len(edges), edges.shape[1] + 1)
    counts.scatter_add_(1, bins, torch.ones(bins.shape))
    return counts / len(points)


def report_bins(edges: Tensor, shares: Tensor, noise: Tensor) -> None:
    """Log how fine the bins are: a fault smaller than a bin cannot be seen.

    Args:
        edges: (C, V + 1) float.
        shares: (C, V + 2) float, of the training points in each bin.
        noise: (C,) float, standard deviation of the noise.
    """
    n_bins = edges.shape[1] - 1
    width = (edges[:, -1] - edges[:, 0]) / n_bins
    ratio = width / noise.clamp(min=1e-12)  # (C,)
    entropy = torch.special.entr(shares).sum(dim=1)  # (C,)
    log.info(
        "%d bins: mean width %.2f of the noise sd (median channel), widest %.2f (channel %d), %d of %d channels over "
        "1/3; histogram entropy %.2f to %.2f nats of %.2f",
        n_bins,
        float(ratio.median()),
        float(ratio.max()),
        int(ratio.argmax()),
        int((ratio > 1 / 3).sum()),
        len(ratio),
        float(entropy.min()),
        float(entropy.max()),
        math.log(n_bins + OVERFLOW),
    )
