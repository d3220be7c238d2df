"""Base signals of `balanced_univariate`: what a series does while nothing is wrong.

Source: time-series specification, section 9.5 (own recipe); kinds after TODS (Lai 2021) and
GutenTAG (Wenig 2022).
"""

from collections.abc import Callable

import numpy as np
from scipy.signal import lfilter

PERIODIC = ("sine_mix", "sawtooth", "square", "ecg")
MOVING = (*PERIODIC, "random_walk", "ar2", "cylinder_bell_funnel")
BASES = (*MOVING, "constant")

Wave = Callable[[np.ndarray], np.ndarray]  # times in steps -> values


def wave(base: str, n: int, rng: np.random.Generator) -> Wave:
    """A periodic base of amplitude .5-1.5 and 3-10 periods per window, as a function of time in steps."""
    period, phase, amplitude = n / rng.uniform(3, 10), rng.uniform(), rng.uniform(0.5, 1.5)
    weights, shifts = rng.uniform(0.1, 0.6, 2), rng.uniform(0, 2 * np.pi, 2)

    def cycle(t: np.ndarray) -> np.ndarray:
        return (t / period + phase) % 1.0

    def sine_mix(t: np.ndarray) -> np.ndarray:
        angle = 2 * np.pi * cycle(t)
        second, third = (w * np.sin(k * angle + s) for k, w, s in zip((2, 3), weights, shifts, strict=True))
        return np.asarray(amplitude * (np.sin(angle) + second + third))

    def ecg(t: np.ndarray) -> np.ndarray:
        u = cycle(t)
        bumps = (
            (0.15, 0.2, 0.03),
            (-0.2, 0.36, 0.015),
            (1.5, 0.4, 0.025),
            (-0.3, 0.45, 0.015),
            (0.35, 0.65, 0.05),
        )
        return np.asarray(
            amplitude * np.sum([a * np.exp(-0.5 * ((u - m) / s) ** 2) for a, m, s in bumps], axis=0)
        )

    return {
        "sine_mix": sine_mix,
        "sawtooth": lambda t: amplitude * (2 * cycle(t) - 1),
        "square": lambda t: amplitude * np.tanh(8 * np.sin(2 * np.pi * cycle(t))),
        "ecg": ecg,
    }[base]


def aperiodic(base: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """A base without period, (n,), scaled to amplitude .5-1.5 unless constant."""
    if base == "constant":
        return np.ones(n)
    if base == "random_walk":
        signal = np.cumsum(rng.normal(size=n))
    elif base == "ar2":
        radius, angle = rng.uniform(0.9, 0.98), 2 * np.pi * rng.uniform(3, 12) / n
        signal = lfilter([1.0], [1.0, -2 * radius * np.cos(angle), radius**2], rng.normal(size=n + 200))[200:]
    else:  # cylinder, bell or funnel: flat, rising or falling between two random steps
        start, stop = np.sort(rng.choice(np.arange(n // 10, n - n // 10), 2, replace=False))
        stop = max(stop, start + n // 8)
        ramp = np.linspace(0, 1, stop - start)[: n - start]
        shape = (np.ones_like(ramp), ramp, 1 - ramp)[int(rng.integers(3))]
        signal = np.zeros(n)
        signal[start : start + len(shape)] = shape
    signal = signal - signal.mean()
    return np.asarray(rng.uniform(0.5, 1.5) * signal / (np.sqrt(2) * signal.std()))
