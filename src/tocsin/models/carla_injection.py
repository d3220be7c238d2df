"""The synthetic anomalies that CARLA learns to tell from normal windows: five kinds, one per window.

Source: CARLA (see `models/carla.py`), section on anomaly injection. What differs: they are pasted into standardised
windows, because a step of one raw unit may be nothing or everything; points grow away from their local mean and
by at least some local standard deviations, because eight times zero is zero; at least one channel takes part and
channels are drawn without replacement; a kind that would change nothing, such as a faster flat line, becomes a
shift; no change begins at the first step, where a shift would have no onset. So no negative equals its anchor.

`tocsin.data.injection` holds the project's own, richer kinds; those here are the method's.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tocsin.models.batch_share import ALONE, BatchShare

KINDS = ("seasonal", "shift", "global", "contextual", "shapelet")
"""Names of the kinds, in the order of their ids; the paper calls `shift` trend."""

SPAN = (0.1, 0.9)  # shortest and longest part of the window
RATES = (2, 3, 4)  # how much faster `seasonal` runs
FACTORS = {"global": 8.0, "contextual": 3.0}  # growth of the deviation from the local mean
POINT_STEPS = {"global": 2, "contextual": 4}  # with several channels; one more with one
MIN_DEVIATION = 3.0  # of a changed point, in local standard deviations
MIN_SHIFT = 0.25  # standardised units
PLATEAU_OFFSET = 0.1
LOCAL = 8  # the surroundings of a point are 1 / LOCAL of the window
LEAST_SD = 0.01  # of a flat line, in standardised units
NO_CHANGE = 0.02  # largest change that counts as none, in standardised units


class Injected(NamedTuple):
    """Windows with one anomaly each.

    Attributes:
        x: (B, T, C) float, the changed copy.
        mask: (B, T, C) bool, true where a value was replaced.
        kind: (B,) int64, index into `KINDS`.
    """

    x: Tensor
    mask: Tensor
    kind: Tensor


class _Draw(NamedTuple):
    """Random numbers of a batch, on the device of the windows."""

    kind: Tensor  # (B,) int64
    start: Tensor  # (B,) int64, in [1, T - 1]
    length: Tensor  # (B,) int64
    channels: Tensor  # (B, C) bool
    rate: Tensor  # (B,) int64
    shift: Tensor  # (B,) signed
    offset: Tensor  # (B,) >= 0


def inject_negatives(
    x: Tensor, generator: torch.Generator | None = None, share: BatchShare = ALONE
) -> Injected:
    """Paste one anomaly into each window.

    Args:
        x: (B, T, C) float, standardised, T >= 8.
        generator: Source of randomness on the CPU; None = torch's own, or that of the share.
        share: What the windows are part of.

    Returns:
        Windows, masks and kinds. Each window differs from x at least once, inside its mask only.
    """
    x = x.float()
    B, T, C = x.shape
    draw = _draw(share.total(B), T, C, generator=generator or share.generator())
    draw = _Draw(*(share.own(field).to(x.device) for field in draw))
    changed = torch.stack(
        [_seasonal(x, draw), _shifted(x, draw), *_grown_points(x), _plateau(x, draw)]
    )  # (kinds, B, T, C)
    rows = torch.arange(len(x), device=x.device)
    spans = _span(x, draw, draw.kind == KINDS.index("shift"))
    out = torch.where(spans, changed[draw.kind, rows], x)
    shifts = _span(x, draw, torch.ones_like(draw.kind, dtype=torch.bool))
    shift = torch.full_like(draw.kind, KINDS.index("shift"))
    idle = (out - x).abs().flatten(1).amax(dim=1) < NO_CHANGE  # (B,)
    idle &= (draw.kind != KINDS.index("global")) & (draw.kind != KINDS.index("contextual"))  # always grow
    each = idle[:, None, None]
    return Injected(
        x=torch.where(each & shifts, changed[KINDS.index("shift")], torch.where(each, x, out)),
        mask=torch.where(each, shifts, spans),
        kind=torch.where(idle, shift, draw.kind),
    )


def _draw(batch: int, steps: int, n_channels: int, *, generator: torch.Generator | None) -> _Draw:
    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator)

    kind = torch.randint(len(KINDS), (batch,), generator=generator)
    low, high = (int(share * steps) for share in SPAN)
    length = low + (uniform() * (high - low + 1)).long()
    for name, n_steps in POINT_STEPS.items():
        length = torch.where(kind == KINDS.index(name), n_steps + (n_channels == 1), length)
    length = length.clamp(2, steps - 1)
    start = 1 + (uniform() * (steps - length)).long()
    count = 1 + (uniform(1) * max(1, n_channels // 2)).long()  # (B, 1), in [1, C / 2]
    rank = uniform(n_channels).argsort(dim=1).argsort(dim=1)
    sign = torch.randint(2, (batch,), generator=generator) * 2.0 - 1.0
    shift = (1.0 + 0.5 * torch.randn(batch, generator=generator)).abs().clamp(min=MIN_SHIFT)
    rate = torch.tensor(RATES)[torch.randint(len(RATES), (batch,), generator=generator)]
    return _Draw(kind, start, length, rank < count, rate, sign * shift, PLATEAU_OFFSET * uniform())


def _span(x: Tensor, draw: _Draw, to_the_end: Tensor) -> Tensor:
    """(B, T, C) bool: the drawn steps of the drawn channels; all steps from the start on if `to_the_end` (B,)."""
    time = torch.arange(x.shape[1], device=x.device)
    stop = torch.where(to_the_end, x.shape[1], draw.start + draw.length)
    inside = (time >= draw.start[:, None]) & (time < stop[:, None])  # (B, T)
    return inside[:, :, None] & draw.channels[:, None, :]


def _seasonal(x: Tensor, draw: _Draw) -> Tensor:
    """The sub-sequence `rate` times in a row, of which every `rate`-th value is kept."""
    since = torch.arange(x.shape[1], device=x.device) - draw.start[:, None]  # (B, T)
    source = draw.start[:, None] + (since * draw.rate[:, None]) % draw.length[:, None]
    return x.gather(1, source[:, :, None].expand_as(x))


def _shifted(x: Tensor, draw: _Draw) -> Tensor:
    return x + draw.shift[:, None, None]


def _grown_points(x: Tensor) -> tuple[Tensor, Tensor]:
    """Every point further from its local mean, as the kinds `global` and `contextual` want it."""
    mean, sd = _surroundings(x)
    deviation = x - mean
    sign = torch.where(deviation < 0, -1.0, 1.0)
    least = MIN_DEVIATION * sd
    grown = [mean + sign * torch.maximum(FACTORS[name] * deviation.abs(), least) for name in POINT_STEPS]
    return grown[0], grown[1]


def _surroundings(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the steps around each step, both (B, T, C)."""
    half = max(2, x.shape[1] // (2 * LOCAL))

    def average(values: Tensor) -> Tensor:
        pooled = functional.avg_pool1d(
            values.transpose(1, 2), 2 * half + 1, stride=1, padding=half, count_include_pad=False
        )
        return pooled.transpose(1, 2)  # (B, T, C)

    # About the window's mean: the difference of two large squares would leave nothing in float32.
    centered = x - x.mean(dim=1, keepdim=True)
    mean = average(centered)
    variance = (average(centered.square()) - mean.square()).clamp(min=LEAST_SD**2)
    return mean + x.mean(dim=1, keepdim=True), variance.sqrt()


def _plateau(x: Tensor, draw: _Draw) -> Tensor:
    first = x.gather(1, draw.start[:, None, None].expand(-1, 1, x.shape[2]))  # (B, 1, C)
    return (first + draw.offset[:, None, None]).expand_as(x)
