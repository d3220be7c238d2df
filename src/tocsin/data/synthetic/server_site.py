"""Where and how strongly an anomaly acts: the tools that the injectors of `server_anomalies` share.

Source: time-series specification, section 9.4. Magnitudes are in units of the residual sd of the metric at
that hour of day (`NormalMetrics.residual_sd`), where the residual is what the seasonal curve does not
explain. Most normal steps have max|z| near 1.1, so the magnitudes of the specification (4-10 sd for a spike)
would be found by max|z| in every case: `STRENGTH` starts from them and is set so that the bands for max|z|
hold at each severity.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import uniform_filter1d

from tocsin.data.synthetic.server_load import LOWER, RESOLUTION, UPPER, NormalMetrics, hour_of_day

Severity = Literal["easy", "medium", "hard"]
SEVERITIES: tuple[Severity, ...] = ("easy", "medium", "hard")

# (low, high) of a uniform draw; residual sd unless the comment says otherwise
STRENGTH: dict[str, dict[Severity, tuple[float, float]]] = {
    "point_spike": {"easy": (8, 14), "medium": (2.5, 4.5), "hard": (0.7, 1.5)},
    "level_shift": {"easy": (6, 9), "medium": (1.5, 4), "hard": (0.6, 1.4)},
    "trend": {"easy": (26, 36), "medium": (3, 6), "hard": (1, 2)},
    "memory_leak": {"easy": (18, 26), "medium": (4, 7), "hard": (1, 2.5)},
    "cascade": {"easy": (10, 15), "medium": (2.5, 4), "hard": (0.6, 1.4)},
    # percent cpu: the machine, or the quota of its container, is exhausted
    "saturation": {"easy": (95, 99), "medium": (80, 90), "hard": (66, 74)},
    # times the residual sd
    "noise_burst": {"easy": (7, 10), "medium": (2.5, 5), "hard": (1.2, 1.6)},
    # rank, 0..1, of the contrast to what was due among the blocks that could take its place
    "contextual": {"easy": (0.9, 1.0), "medium": (0.6, 0.8), "hard": (0.3, 0.5)},
    "correlation_break": {"easy": (0.6, 0.8), "medium": (0.5, 0.7), "hard": (0.4, 0.6)},
    # time runs this much faster or slower
    "frequency_change": {"easy": (2.5, 3.0), "medium": (2.0, 2.5), "hard": (1.5, 2.0)},
    # s: the amplitude becomes 1 + s or 1 - .9 s of what it was
    "amplitude_change": {"easy": (0.9, 1.0), "medium": (0.6, 0.8), "hard": (0.3, 0.4)},
    # channels that hang
    "flatline": {"easy": (4, 4), "medium": (2, 3), "hard": (1, 1)},
}
# what queue and latency gain while the cpu is saturated, residual sd
SPILL: dict[Severity, float] = {"easy": 8.0, "medium": 1.0, "hard": 0.4}


_CHANNEL_COUNT: dict[Severity, float] = {
    "easy": 1.0,
    "medium": 0.5,
    "hard": 0.0,
}  # place between the least and the most channels


@dataclass(frozen=True)
class Site:
    """One event and what an injector needs to know about it.

    Attributes:
        values: (N, 8) float64, edited in place between `start` and `end`.
        normal: The same server without anomalies.
        start: First step of the event.
        end: Step after the last one.
        severity: One of `SEVERITIES`.
        rng: Source of all randomness of this event.
    """

    values: np.ndarray
    normal: NormalMetrics
    start: int
    end: int
    severity: Severity
    rng: np.random.Generator

    @property
    def length(self) -> int:
        """Steps of the event."""
        return self.end - self.start

    def strength(self, kind: str) -> float:
        """A draw from `STRENGTH`."""
        return float(self.rng.uniform(*STRENGTH[kind][self.severity]))

    def channels(self, among: tuple[int, ...], least: int, most: int) -> list[int]:
        """Draw channels; severe events touch more of them."""
        centre = least + _CHANNEL_COUNT[self.severity] * (most - least)
        count = int(np.clip(np.round(centre + self.rng.uniform(-0.5, 0.5)), least, most))
        return sorted(int(c) for c in self.rng.choice(among, count, replace=False))

    def sd(self, channel: int) -> np.ndarray:
        """Residual sd of a channel at each step of the event, (L,)."""
        hours = hour_of_day(np.arange(self.start, self.end))
        return np.asarray(self.normal.residual_sd[hours, channel])

    def add(self, channel: int, effect: np.ndarray) -> None:
        """Add an effect (L,) in residual sd, with noise of its own.

        Near a physical bound the effect yields and the noise stays.
        """
        effect = effect * (1 + 0.1 * self.rng.normal(size=self.length))
        now = self.values[self.start : self.end, channel]
        smooth = uniform_filter1d(now, 15, mode="nearest")
        low, high = room(channel, self.sd(channel))
        goal = smooth + effect * self.sd(channel)
        now += np.clip(goal, np.minimum(low, smooth), np.maximum(high, smooth)) - smooth

    def signed(self, channel: int, size: float) -> float:
        """Give a size in residual sd a random sign, turned where that side has no room for it."""
        sign = float(self.rng.choice((-1.0, 1.0)))
        level, sd = self.values[self.start : self.end, channel].mean(), self.sd(channel).mean()
        low, high = room(channel, sd)
        if not low <= level + sign * size * sd <= high:
            sign = 1.0 if level - low < high - level else -1.0
        return sign * size


def room(channel: int, sd: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest level around which a metric still shows its noise inside the physical bounds."""
    low = LOWER[channel] + np.maximum(0.5 * np.asarray(sd), 2 * RESOLUTION[channel])
    high = np.asarray(UPPER[channel] - (2.5 if UPPER[channel] == 100 else 0.0))
    return low, high


def envelope(length: int, rise: int, fall: int) -> np.ndarray:
    """0..1 over `length` steps: linear rise, plateau 1, linear recovery; (L,)."""
    step = np.arange(length)
    up = (step + 1) / (rise + 1)
    down = (length - step) / (fall + 1)
    return np.minimum(1.0, np.minimum(up, down))


def donor_block(site: Site, channels: list[int], shifts: np.ndarray, rank: float) -> int:
    """Start of the normal block whose contrast to the one at `site` has the given rank among 40.

    Args:
        site: The event whose values are to be replaced.
        channels: Channels that the contrast is measured on.
        shifts: (K,) int, distances in steps at which blocks may be taken; those outside the series are left
        out.
        rank: 0 takes the most similar block, 1 the most different one.
    """
    values, size = site.normal.values, site.length
    starts = site.start + site.rng.permutation(shifts)
    starts = starts[(starts >= 0) & (starts + size <= len(values))][:40]
    blocks = values[starts[:, None] + np.arange(size)][:, :, channels]  # (K, L, channels)
    sd = np.stack([site.sd(c) for c in channels], axis=1)
    contrast = (np.abs(blocks - values[site.start : site.end, channels]) / sd).mean(axis=(1, 2))
    return int(starts[np.argsort(contrast)[round(rank * (len(starts) - 1))]])
