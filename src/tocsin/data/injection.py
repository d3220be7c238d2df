"""Synthetic anomalies pasted into normal series, without labels.

Used as pseudo anomalies in training and as the proxy on which score settings are chosen: real labels are
never read. The seven kinds follow the taxonomies of TODS (Lai et al., NeurIPS Datasets 2021) and GutenTAG
(Wenig et al., VLDB 2022). By default durations are heavy-tailed and few channels take part, as measured on
the labels of the Server Machine Dataset (median 11 steps, 4 of 38 metrics). What differs from those
generators: nothing is noise-free, no kind leaves an offset behind, and both signs occur.

Everything is torch, vectorised over the batch and deterministic under a given generator.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

KINDS = ("spike", "level", "trend", "noise", "flatline", "warp", "swap")
"""Names of the kinds of anomaly, in the order of their ids."""

_SPIKE_STEPS = 3  # longest spike
_JITTER = 0.1  # noise on a flat line, in units of the channel's typical step
_WARP_RATES = (0.5, 2.0, 3.0)


class Plan(NamedTuple):
    """What is done to each window of a batch.

    Attributes:
        kind: (B,) int64, index into `KINDS`.
        start: (B,) int64, first affected step.
        duration: (B,) int64 >= 1, affected steps.
        channels: (B, C) bool, affected channels.
        magnitude: (B, C) float32, signed size in units of a channel's standard deviation.
    """

    kind: Tensor
    start: Tensor
    duration: Tensor
    channels: Tensor
    magnitude: Tensor


def draw_plan(
    batch: int,
    steps: int,
    n_channels: int,
    *,
    generator: torch.Generator | None = None,
    median_duration: float = 11.0,
    log_sd: float = 1.8,
    magnitude: tuple[float, float] = (1.0, 5.0),
) -> Plan:
    """Draw one anomaly per window.

    Args:
        batch: Number of windows B.
        steps: Steps T of each window.
        n_channels: Channels C.
        generator: Source of randomness on the CPU; None = torch's own.
        median_duration: Median of the log-normal duration, in steps; clipped to [2, T].
        log_sd: Standard deviation of the log-duration.
        magnitude: Smallest and largest size, in standard deviations; log-uniform between them.

    Returns:
        A plan on the CPU. About one channel in eight takes part (log-uniform between 1 and C / 2).
    """
    kind = torch.randint(len(KINDS), (batch,), generator=generator)
    duration = (math.log(median_duration) + log_sd * torch.randn(batch, generator=generator)).exp()
    duration = duration.round().clamp(min(2, steps), steps).long()
    spike_duration = torch.randint(1, min(_SPIKE_STEPS, steps) + 1, (batch,), generator=generator)
    duration = torch.where(kind == KINDS.index("spike"), spike_duration, duration)
    start = (torch.rand(batch, generator=generator) * (steps - duration + 1)).long()

    most = max(1, n_channels // 2)
    count = most ** torch.rand(batch, 1, generator=generator)  # log-uniform in [1, C / 2]
    rank = torch.rand(batch, n_channels, generator=generator).argsort(dim=1)
    low, high = (math.log(value) for value in magnitude)
    size = (low + (high - low) * torch.rand(batch, 1, generator=generator)).exp()
    sign = torch.randint(2, (batch, n_channels), generator=generator) * 2.0 - 1.0
    return Plan(kind, start, duration, rank < count.round(), size * sign)


def apply_plan(
    x: Tensor, plan: Plan, donor: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Paste the planned anomalies into windows.

    Args:
        x: (B, T, C) float, standardised, normal.
        plan: One anomaly per window.
        donor: (B, T, C) float, normal values from another time, for the broken correlation.
        generator: Source of randomness on the CPU; None = torch's own.

    Returns:
        The changed copy of `x`, and its mask (B, T, C) bool, true where a value was replaced.
    """
    n_steps = x.shape[1]
    plan = Plan(*(field.to(x.device) for field in plan))
    time = torch.arange(n_steps, device=x.device).expand(len(x), n_steps)  # (B, T)
    since = time - plan.start[:, None]
    inside = (since >= 0) & (since < plan.duration[:, None])
    mask = inside[:, :, None] & plan.channels[:, None, :]  # (B, T, C)

    noise = torch.randn(x.shape, generator=generator).to(x)
    step = x.diff(dim=1).abs().mean(dim=1, keepdim=True) if n_steps > 1 else torch.zeros_like(x)  # (B, 1, C)
    size = plan.magnitude[:, None, :]
    progress = (since + 1).clamp(min=0) / plan.duration[:, None]
    rates = torch.tensor(_WARP_RATES, device=x.device)[plan.start % len(_WARP_RATES)]
    warped = (plan.start[:, None] + (since * rates[:, None]).long()).clamp(0, n_steps - 1)

    def at(index: Tensor) -> Tensor:
        return x.gather(1, index[:, :, None].expand_as(x))

    changed = {
        "spike": x + size,
        "level": x + size,
        "trend": x + size * progress[:, :, None],
        "noise": x + size * noise,
        "flatline": at(plan.start[:, None].expand_as(time)) + _JITTER * step * noise,
        "warp": at(warped) + _JITTER * step * noise,
        "swap": donor,
    }
    kinds = torch.stack([changed[name] for name in KINDS])  # (kinds, B, T, C)
    chosen = kinds[plan.kind, torch.arange(len(x), device=x.device)]
    return torch.where(mask, chosen, x), mask


def inject_windows(
    x: Tensor, probability: float = 1.0, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Paste at most one anomaly into each window of a batch.

    Args:
        x: (B, T, C) float, standardised, normal.
        probability: Chance in [0, 1] that a window is changed.
        generator: Source of randomness on the CPU; None = torch's own.

    Returns:
        The changed copy of `x`, and its mask (B, T, C) bool, true where a value was replaced.
    """
    batch, n_steps, n_channels = x.shape
    plan = draw_plan(batch, n_steps, n_channels, generator=generator)
    chosen = torch.rand(batch, generator=generator) < probability
    plan = plan._replace(channels=plan.channels & chosen[:, None])
    return apply_plan(x, plan, x.roll(shifts=1, dims=0), generator)


def inject_series(
    values: Tensor,
    generator: torch.Generator | None = None,
    *,
    ratio: float = 0.05,
    gap: int = 50,
    magnitude: tuple[float, float] = (1.0, 5.0),
) -> tuple[Tensor, Tensor]:
    """Paste several anomalies into one long normal series, at least `gap` steps apart.

    Args:
        values: (N, C) float, standardised, normal.
        generator: Source of randomness on the CPU; None = torch's own.
        ratio: Rough share of steps to change; at least one anomaly is pasted.
        gap: Fewest normal steps before, between and after anomalies.
        magnitude: Smallest and largest size, in standard deviations.

    Returns:
        The changed copy of `values`, and its mask (N, C) bool, true where a value was replaced.

    Raises:
        ValueError: If the series is too short for one anomaly with its gaps.
    """
    n_steps, n_channels = values.shape
    longest = (n_steps - 2 * gap) // 4
    if longest < 1:
        raise ValueError(f"{n_steps} steps are too few to inject anomalies with gaps of {gap} steps")
    n_drawn = max(8, n_steps // gap)
    plan = draw_plan(n_drawn, longest, n_channels, generator=generator, magnitude=magnitude)
    wanted = int((plan.duration.cumsum(0) < ratio * n_steps).sum()) + 1
    durations = plan.duration[:wanted].tolist()
    while sum(durations) + gap * (len(durations) + 1) > n_steps:
        durations.pop()
    slack = n_steps - sum(durations) - gap * (len(durations) + 1)
    cuts = (torch.rand(len(durations), generator=generator).sort().values * (slack + 1)).long().tolist()

    changed, mask = values.clone(), torch.zeros_like(values, dtype=torch.bool)
    begin = 0
    for index, (duration, cut) in enumerate(zip(durations, cuts, strict=True)):
        start = begin + cut + gap
        begin += duration + gap
        stop = min(n_steps, start + 4 * duration)  # the time-warp reads ahead
        part = values[None, start:stop]
        shift = n_steps // 3 + start % gap
        donor = values.roll(shift, dims=0)[None, start:stop]
        one = Plan(*(field[index : index + 1] for field in plan))._replace(
            start=torch.zeros(1, dtype=torch.long)
        )
        pasted, where = apply_plan(part, one, donor, generator)
        changed[start:stop] = torch.where(where[0], pasted[0], changed[start:stop])
        mask[start:stop] |= where[0]
    return changed, mask
