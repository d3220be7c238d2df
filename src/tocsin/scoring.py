"""From deviations of each step and channel to one anomaly score per time step: the same path for every method.

Five explicit steps:

1. average the deviations over several widths of time. Where they have a sign, noise cancels and a shift does
   not: what no single step shows, a hundred steps do. Their energy is averaged too: it shows a noise that grows.
   In a mean each step counts with a limited size (as in Huber, "Robust Estimation of a Location Parameter", Annals of
   Mathematical Statistics 1964), or a short burst would raise the score of all steps around it;
2. put every channel and width on one scale, by what normal data show (as Deng and Hooi, "Graph
   Neural Network-Based Anomaly Detection in Multivariate Time Series", AAAI 2021, section 3.6, do for steps);
3. take the largest of all these means, and join the channels;
4. smooth over time;
5. set beside it the sharpest channel of each step alone, because a spike drowns in the mean over channels and in the
   smoothing. Both count in units of what one normal step in a thousand exceeds; the higher one is the score.

No label is read.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from tocsin.errors import ConfigError

Normalize = Literal["none", "zscore", "robust"]
Channels = Literal["mean", "topk_mean", "max"]

_FLOOR = 0.1  # smallest scale of a channel, as a share of the median channel's
_TINY = 1e-12
_TAIL = 0.999  # share of normal steps below the unit of a score


def moving_mean(x: Tensor, width: int, *, causal: bool = False, partial: bool = True) -> Tensor:
    """Mean over the steps around each step.

    Args:
        x: (N, ...) float, one series.
        width: Steps averaged, odd unless `causal`.
        causal: Average the step and those before it.
        partial: Near the ends, average the steps that exist; else count missing ones as 0.

    Returns:
        As x.
    """
    if width == 1:
        return x
    n = len(x)
    total = torch.cat([x.new_zeros(1, *x.shape[1:], dtype=torch.float64), x.double().cumsum(dim=0)])
    step = torch.arange(n, device=x.device)
    first = (step - (width - 1 if causal else width // 2)).clamp(min=0)
    last = (step + (1 if causal else width // 2 + 1)).clamp(max=n)
    count = (last - first).reshape(-1, *[1] * (x.dim() - 1)) if partial else width
    return ((total[last] - total[first]) / count).to(x.dtype)


def center_and_scale(values: Tensor, normalize: Normalize) -> tuple[Tensor, Tensor]:
    """Where normal values of each column lie and how far they spread.

    Args:
        values: (N, K) float, normal.
        normalize: `none`: 0 and 1. `zscore`: mean and standard deviation. `robust`: median, and the distance from
            there within which 95 % of the values lie, halved.

    Returns:
        Center (K,) and scale (K,) > 0. A column that hardly varies gets a share of the median column's scale.
    """
    if normalize == "none":
        return torch.zeros_like(values[0]), torch.ones_like(values[0])
    if normalize == "zscore":
        center, scale = values.mean(dim=0), values.std(dim=0, correction=0)
    else:
        center = values.median(dim=0).values
        ordered = (values - center).abs().sort(dim=0).values
        scale = ordered[round(0.95 * (len(values) - 1))] / 2
    return center, scale.clamp(min=max(_TINY, _FLOOR * float(scale.median())))


def tail_of(values: Tensor) -> Tensor:
    """What one normal value in a thousand exceeds, in each column (K,) of values (N, K); > 0.

    A column that hardly varies gets a share of the median column's tail.
    """
    ordered = values.sort(dim=0).values
    tail = ordered[round(_TAIL * (len(values) - 1))]
    return tail.clamp(min=max(_TINY, _FLOOR**2 * float(tail.median())))


def join_channels(values: Tensor, channels: Channels, top_share: float) -> Tensor:
    """One value per step from one per step and channel.

    Args:
        values: (N, K) float.
        channels: `mean`; `max`; or `topk_mean`: the mean of the largest.
        top_share: Share of channels that `topk_mean` takes, in (0, 1]; at least one channel.

    Returns:
        (N,) float.
    """
    if channels == "mean":
        return values.mean(dim=1)
    if channels == "max":
        return values.amax(dim=1)
    top = max(1, round(top_share * values.shape[1]))
    return values.topk(top, dim=1).values.mean(dim=1)


class Scorer(nn.Module):
    """Deviations (N, K) to scores (N,), with the statistics of normal data in its buffers.

    The buffers take the shape of what is fitted or loaded, so a fresh object loads any checkpoint.
    """

    SHAPED: ClassVar[tuple[str, ...]]  # the buffers whose shape is known once they are fitted

    @property
    def reach(self) -> int:
        """Steps on either side that a score depends on."""
        raise NotImplementedError

    def fit(self, deviations: Tensor, lengths: Sequence[int] | None = None) -> "Scorer":
        """Learn from deviations (N, K) of normal data; `lengths` as in `forward`.

        Raises:
            ValueError: If there are none, or some are not finite.
        """
        raise NotImplementedError

    def normalised(self, deviations: Tensor, *, causal: bool = False) -> Tensor:
        """How unusual each channel is (N, K), in units of its spread on normal data: which one is to blame."""
        raise NotImplementedError

    def score(self, deviations: Tensor, *, causal: bool = False) -> Tensor:
        """Score (N,) of one series (N, K); `causal` looks back only."""
        raise NotImplementedError

    def forward(self, deviations: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Score whole series.

        Args:
            deviations: (N, K) float.
            lengths: Steps of each series laid end to end; they sum to N. None = one series.

        Returns:
            (N,) float, higher = more anomalous.

        Raises:
            RuntimeError: If not fitted.
        """
        return torch.cat([self.score(part) for part in _parts(deviations, lengths)])

    def score_last(self, deviations: Tensor) -> Tensor:
        """Score () of the last of some steps (N, K) of a series: what a stream can know."""
        return self.score(deviations, causal=True)[-1]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.SHAPED:
            if prefix + name in state_dict:
                old = getattr(self, name)
                setattr(self, name, old.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


class ErrorScorer(Scorer):
    """The five steps above.

    Args:
        widths: Steps over which deviations are averaged before they are measured; odd.
        normalize: `none`, `zscore` or `robust`.
        channels: `mean`, `topk_mean` or `max` over channels.
        top_share: Share of channels that `topk_mean` takes, in (0, 1].
        smooth: Steps of the moving mean over scores, odd; 1 for none.
        clip: Largest size of a step in a mean over several, in units of the spread of single steps, > 0; a width of 1
            counts in full.

    Raises:
        ValueError: If a value is outside its range or unknown.
    """

    SHAPED = ("center", "limit", "scale", "spread", "sharp_tail")
    center: Tensor
    limit: Tensor
    scale: Tensor
    spread: Tensor
    sharp_tail: Tensor
    units: Tensor
    signed: Tensor

    def __init__(
        self,
        *,
        widths: Sequence[int] = (1, 5, 21, 61),
        normalize: Normalize = "zscore",
        channels: Channels = "topk_mean",
        top_share: float = 0.25,
        smooth: int = 11,
        clip: float = 4.0,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("normalize", normalize, get_args(Normalize)),
            ("channels", channels, get_args(Channels)),
        ):
            if value not in known:
                raise ConfigError(f"{name}={value!r} is not one of {', '.join(map(repr, known))}")
        if not 0.0 < top_share <= 1.0:
            raise ConfigError(f"top_share={top_share} is not in (0, 1]")
        if not clip > 0.0:
            raise ConfigError(f"clip={clip} is not a positive number")
        for name, width in (*(("widths", width) for width in widths), ("smooth", smooth)):
            if width < 1 or width % 2 == 0:
                raise ConfigError(f"{name}: {width} is not a positive odd number")
        self.widths = tuple(widths)
        self.normalize = normalize
        self.channels = channels
        self.top_share = top_share
        self.smooth = smooth
        self.clip = clip
        self.register_buffer("center", torch.empty(0))  # (views, K)
        self.register_buffer("limit", torch.empty(0))  # (views, K)
        self.register_buffer("scale", torch.empty(0))  # (views, widths, K)
        self.register_buffer("spread", torch.empty(0))  # (views, K)
        self.register_buffer("sharp_tail", torch.empty(0))  # (K,)
        self.register_buffer("units", torch.ones(2))  # of what lasts, and of what is sharp
        self.register_buffer("signed", torch.tensor(False))

    @property
    def reach(self) -> int:
        """Steps on either side that a score depends on."""
        return max(self.widths) // 2 + self.smooth // 2

    def fit(self, deviations: Tensor, lengths: Sequence[int] | None = None) -> "ErrorScorer":
        """Learn the scale of each channel and width.

        Args:
            deviations: (N, K) float, of normal data, finite.
            lengths: Steps of each series laid end to end; None = one series.

        Raises:
            ValueError: If there are none, or some are not finite.
        """
        if not len(deviations) or not torch.isfinite(deviations).all():
            raise ConfigError("the scorer needs finite deviations of normal data")
        self.signed.fill_(bool((deviations < 0).any()))
        fitted: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for view in self._views(deviations):
            center, unit = center_and_scale(view, self.normalize)
            limit = self.clip * unit
            parts = _parts(view - center, lengths)
            means = [
                torch.cat([_clipped_mean(part, width, limit) for part in parts]) for width in self.widths
            ]
            scale = torch.stack([center_and_scale(values, self.normalize)[1] for values in means])
            is_signed = bool(self.signed) and not fitted
            largest = torch.cat([self._largest(part, limit, scale, squared=is_signed) for part in parts])
            fitted.append((center, limit, scale, center_and_scale(largest, "zscore")[1]))
        self.center, self.limit, self.scale, self.spread = map(torch.stack, zip(*fitted, strict=True))
        self.sharp_tail = tail_of(self._sharp(deviations))
        lasting = torch.cat([self._lasting(part) for part in _parts(deviations, lengths)])
        self.units = tail_of(torch.stack([lasting, self._sharpest(deviations)], dim=1))
        return self

    def _views(self, deviations: Tensor) -> list[Tensor]:
        """What is averaged over time: signed deviations and their energy, or errors without a sign as they are.

        Signed means show a small shift that lasts, mean energy a noise that grows; neither shows the other.
        """
        return [deviations, deviations.square()] if self.signed else [deviations]

    def _largest(
        self, centered: Tensor, limit: Tensor, scale: Tensor, *, squared: bool, causal: bool = False
    ) -> Tensor:
        """Largest of the widths (N, K): on either side of 0 if `squared`, else above it."""
        largest: Tensor | None = None
        for width, width_scale in zip(self.widths, scale, strict=True):
            # Steps beyond the ends count as normal: the mean of few steps would look unusual too easily.
            values = _clipped_mean(centered, width, limit, causal=causal) / width_scale
            values = values.square() if squared else values
            largest = values if largest is None else torch.maximum(largest, values)
        assert largest is not None
        return largest

    def normalised(self, deviations: Tensor, *, causal: bool = False) -> Tensor:
        """How unusual each channel is (N, K), in units of its spread on normal data: which one is to blame."""
        if not self.scale.numel():
            raise RuntimeError("the scorer is not fitted")
        if self.center.shape[1] != deviations.shape[1]:
            raise ConfigError(
                f"the scorer was fitted on {self.center.shape[1]} channels, but got {deviations.shape[1]}"
            )
        found: list[Tensor] = []
        for index, view in enumerate(self._views(deviations)):
            centered = view - self.center[index]
            is_signed = bool(self.signed) and index == 0
            largest = self._largest(
                centered, self.limit[index], self.scale[index], squared=is_signed, causal=causal
            )
            found.append(largest / self.spread[index])
        return torch.stack(found).amax(dim=0)

    def _lasting(self, deviations: Tensor, *, causal: bool = False) -> Tensor:
        """How unusual the steps around each step are (N,), all channels together."""
        joined = join_channels(self.normalised(deviations, causal=causal), self.channels, self.top_share)
        return moving_mean(joined, self.smooth, causal=causal)

    def _sharp(self, deviations: Tensor) -> Tensor:
        """Size of each step alone (N, K), squared: what is far out shall outweigh what lasts."""
        centered = deviations - self.center[0]
        return centered.square() if self.signed else centered * centered.abs()

    def _sharpest(self, deviations: Tensor) -> Tensor:
        """The channel that is furthest out at each step (N,), in units of its own tail."""
        return (self._sharp(deviations) / self.sharp_tail).amax(dim=1)

    def score(self, deviations: Tensor, *, causal: bool = False) -> Tensor:
        """Score (N,) of one series (N, K); `causal` looks back only."""
        parts = torch.stack([self._lasting(deviations, causal=causal), self._sharpest(deviations)], dim=1)
        return (parts / self.units).amax(dim=1)


def _clipped_mean(centered: Tensor, width: int, limit: Tensor, *, causal: bool = False) -> Tensor:
    """Mean over `width` steps of values within ± limit; single steps as they are. Missing steps count as 0."""
    if width > 1:
        centered = centered.clamp(-limit, limit)
    return moving_mean(centered, width, causal=causal, partial=False)


def _parts(values: Tensor, lengths: Sequence[int] | None) -> tuple[Tensor, ...]:
    if lengths is None:
        return (values,)
    return torch.split(values, list(lengths))
