"""From per-point, per-channel errors to one anomaly score per time step: the same path for every detector.

Three explicit steps, each a pure function below: put the channels on one scale by what normal validation data
show, join the channels, smooth over time. Normalised errors follow Deng and Hooi, "Graph Neural Network-Based
Anomaly Detection in Multivariate Time Series", AAAI 2021 (section 3.6), temporal smoothing AED-MAE (Ristea et
al., CVPR 2024). No label is read.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

Normalize = Literal["none", "scale", "zscore", "robust", "tail"]
Channels = Literal["mean", "topk_mean", "max"]
Smooth = Literal["none", "mean", "gaussian", "ewma", "median"]

_FLOOR = 0.1  # smallest scale of a channel, as a share of the median channel's
_TINY = 1e-12
_TAIL_KNOTS = 64


def error_statistics(errors: Tensor, normalize: Normalize) -> tuple[Tensor, Tensor]:
    """Centre and scale of each channel's error on normal data.

    Args:
        errors: (N, C) float, normal.
        normalize: `none`: 0 and 1. `scale`: 0 and the mean. `zscore`: mean and standard deviation. `robust`:
            median and distance from there to the 95 % quantile.

    Returns:
        Centre (C,) and scale (C,) > 0. A channel that hardly errs gets a share of the median channel's scale.

    Raises:
        ValueError: If `normalize` has no centre and scale.
    """
    if normalize == "none":
        return torch.zeros_like(errors[0]), torch.ones_like(errors[0])
    if normalize == "scale":
        center, scale = torch.zeros_like(errors[0]), errors.abs().mean(dim=0)
    elif normalize == "zscore":
        center, scale = errors.mean(dim=0), errors.std(dim=0, correction=0)
    elif normalize == "robust":
        center = errors.quantile(0.5, dim=0)
        scale = errors.quantile(0.95, dim=0) - center
    else:
        raise ValueError(f"normalize={normalize!r} has no centre and scale")
    return center, scale.clamp(min=max(_TINY, _FLOOR * float(scale.median())))


def tail_knots(errors: Tensor) -> Tensor:
    """Errors at equal steps of surprise -log P(error is larger) on normal data.

    Args:
        errors: (N, C) float, normal.

    Returns:
        (C, K) float, increasing; the last knot is the largest error.
    """
    surprise = torch.linspace(0.0, 1.0, _TAIL_KNOTS, device=errors.device) * torch.log(
        torch.tensor(float(len(errors)))
    )
    levels = (1.0 - (-surprise).exp()).to(errors.dtype)
    levels[-1] = 1.0
    return errors.quantile(levels, dim=0).T.contiguous()  # (C, K)


def surprise(errors: Tensor, knots: Tensor) -> Tensor:
    """How unlikely errors are on normal data: -log P(error is larger), read off `tail_knots`.

    Beyond the largest normal error it goes on with the logarithm of the error, so that ranks are kept.

    Args:
        errors: (N, C) float.
        knots: (C, K) float, from `tail_knots`.

    Returns:
        (N, C) float >= 0, higher = more anomalous; NaN stays NaN.
    """
    n_knots = knots.shape[1]
    values = errors.T.contiguous()  # (C, N)
    right = torch.searchsorted(knots, values).clamp(1, n_knots - 1)  # (C, N)
    low, high = knots.gather(1, right - 1), knots.gather(1, right)
    inside = ((values - low) / (high - low).clamp(min=_TINY)).clamp(0.0, 1.0)
    beyond = (values / knots[:, -1:].clamp(min=_TINY)).clamp(min=1.0).log()
    return (right - 1 + inside + beyond).T  # (N, C)


def join_channels(values: Tensor, channels: Channels, top_share: float) -> Tensor:
    """One value per step from one per step and channel.

    Args:
        values: (N, C) float.
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


def smooth_over_time(scores: Tensor, smooth: Smooth, width: int, *, causal: bool = False) -> Tensor:
    """Weighted mean or median of each step and its neighbours, within one series.

    At the ends, and where neighbours are NaN, the steps that exist are used.

    Args:
        scores: (N,) float, one series; NaN = not scored, and stays so.
        smooth: `none`; `mean`; `median`; `gaussian` with a standard deviation of `width / 4`; `ewma` with
            weights that fall by e every `width / 4` steps.
        width: Steps looked at, odd unless `causal`.
        causal: Look at the step and those before it only, so that a score never changes later.

    Returns:
        (N,) float.
    """
    if smooth == "none" or width == 1 or not len(scores):
        return scores
    before = width - 1 if causal else width // 2
    known = ~scores.isnan()
    pad = (before, 0 if causal else before)
    if smooth == "median":
        padded = functional.pad(torch.where(known, scores, torch.nan), pad, value=torch.nan)
        return torch.where(known, padded.unfold(0, sum(pad) + 1, 1).nanmedian(dim=1).values, torch.nan)
    kernel = _kernel(smooth, width, pad).to(scores.device)
    total, weight = (
        functional.conv1d(functional.pad(part.double(), pad)[None, None], kernel[None, None])[0, 0]
        for part in (scores.nan_to_num(nan=0.0), known)
    )
    return torch.where(known, total / weight, torch.nan).to(scores.dtype)


def _kernel(smooth: Smooth, width: int, pad: tuple[int, int]) -> Tensor:
    """Weights (pad[0] + 1 + pad[1],) float64 by distance from the step itself."""
    distance = torch.arange(-pad[0], pad[1] + 1, dtype=torch.float64).abs() / (width / 4)
    if smooth == "gaussian":
        return (-0.5 * distance.square()).exp()
    return (-distance).exp() if smooth == "ewma" else torch.ones_like(distance)


class ErrorScorer(nn.Module):
    """Errors (N, C) to scores (N,), with the statistics of normal validation errors in its buffers.

    The buffers take the shape of what is fitted or loaded, so a fresh object loads any checkpoint. The
    defaults were chosen on anomalies injected into normal validation data of twelve server entities.

    Args:
        normalize: How channels get one scale. `none`; `scale`: divide by the mean error; `zscore`; `robust`:
            median and 95 % quantile; `tail`: -log of the share of normal errors that are larger.
        cap: Largest normalised value of a channel, so that none shouts down the rest; None = no limit.
        channels: `mean`, `topk_mean` or `max` over channels.
        top_share: Share of channels that `topk_mean` takes, in (0, 1].
        smooth: `none`, `mean`, `gaussian`, `ewma` or `median` over time.
        width: Steps the smoothing looks at.
        causal: Smooth over past steps only.

    Raises:
        ValueError: If a value is outside its range or unknown.
    """

    center: Tensor
    scale: Tensor
    knots: Tensor

    def __init__(
        self,
        *,
        normalize: Normalize = "zscore",
        cap: float | None = None,
        channels: Channels = "topk_mean",
        top_share: float = 0.1,
        smooth: Smooth = "mean",
        width: int = 11,
        causal: bool = False,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("normalize", normalize, get_args(Normalize)),
            ("channels", channels, get_args(Channels)),
            ("smooth", smooth, get_args(Smooth)),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, known))}")
        if not 0.0 < top_share <= 1.0:
            raise ValueError(f"top_share={top_share} is not in (0, 1]")
        if width < 1 or (not causal and width % 2 == 0):
            raise ValueError(f"width={width} is not a positive odd number (even ones need causal=true)")
        self.normalize = normalize
        self.cap = cap
        self.channels = channels
        self.top_share = top_share
        self.smooth = smooth
        self.width = width
        self.causal = causal
        for name in ("center", "scale", "knots"):
            self.register_buffer(name, torch.empty(0))

    def fit(self, errors: Tensor) -> "ErrorScorer":
        """Learn the scale of each channel.

        Args:
            errors: (N, C) float, of normal validation data; rows with NaN (not scored) are left out.

        Raises:
            ValueError: If no row is scored.
        """
        errors = errors[~errors.isnan().any(dim=1)]
        if not len(errors):
            raise ValueError("the scorer needs normal validation errors, but got none that are scored")
        if self.normalize == "tail":
            self.knots = tail_knots(errors)
        else:
            self.center, self.scale = error_statistics(errors, self.normalize)
        return self

    def forward(self, errors: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Score whole series.

        Args:
            errors: (N, C) float, higher = more anomalous.
            lengths: Steps of each series laid end to end; they sum to N. None = one series.

        Returns:
            (N,) float, higher = more anomalous; NaN where a step was not scored.

        Raises:
            RuntimeError: If not fitted.
        """
        return self.smoothed(self.joined(errors), lengths)

    def stream(self, errors: Tensor, carry: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score the next block of one series; block by block gives what `forward` gives on the whole.

        Args:
            errors: (n, C) float, the steps after those of the last block.
            carry: What the last block's call returned; None at the start of a series.

        Returns:
            Scores (n,), and the carry (up to width - 1,) for the next block.

        Raises:
            RuntimeError: If not causal, or not fitted.
        """
        if not self.causal and self.smooth != "none":
            raise RuntimeError("a centred scorer cannot stream: set causal=true or smooth='none'")
        joined = self.joined(errors)
        joined = joined if carry is None else torch.cat([carry, joined])
        scores = self._smooth(joined)[len(joined) - len(errors) :]
        return scores, joined[max(0, len(joined) - self.width + 1) :]

    def normalised(self, errors: Tensor) -> Tensor:
        """Errors (N, C) on the common scale: which channel is to blame, and by how much."""
        fitted = self.knots if self.normalize == "tail" else self.scale
        if not fitted.numel():
            raise RuntimeError("the scorer is not fitted")
        if len(fitted) != errors.shape[1]:
            raise ValueError(f"the scorer was fitted on {len(fitted)} channels, but got {errors.shape[1]}")
        tail = self.normalize == "tail"
        values = surprise(errors, self.knots) if tail else (errors - self.center) / self.scale
        return values if self.cap is None else values.clamp(max=self.cap)

    def joined(self, errors: Tensor) -> Tensor:
        """One value per step (N,) from errors (N, C), before smoothing."""
        return join_channels(self.normalised(errors), self.channels, self.top_share)

    def smoothed(self, joined: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Scores (N,) from joined errors (N,) of series laid end to end."""
        parts = torch.split(joined, list(lengths) if lengths is not None else [len(joined)])
        return torch.cat([self._smooth(part) for part in parts])

    def smoothed_last(self, joined: Tensor) -> Tensor:
        """Score () of the last step from joined errors up to it: what a stream can know."""
        return smooth_over_time(joined, self.smooth, self.width, causal=True)[-1]

    def _smooth(self, scores: Tensor) -> Tensor:
        return smooth_over_time(scores, self.smooth, self.width, causal=self.causal)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("center", "scale", "knots"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.scale.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
