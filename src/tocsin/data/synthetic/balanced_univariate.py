"""Many short univariate series, each normal or with one anomaly of a known type.

Source: time-series specification, section 9.5 (own recipe). What differs from the usual recipe and why: the
onset is uniform over the window, so that position tells nothing; both signs occur; eight kinds of base signal
instead of a constant; classes are shuffled; a normal sample draws its base like an anomalous one, so that the
base tells nothing.

Noise: a sample draws a signal-to-noise ratio of 5-30 dB, and its noise sd is that share of the sd of its base
signal, but at least `noise`. Bases have amplitudes of .5-1.5 (the constant base is the level 1 and has no
signal, so its noise sd is `noise` itself). Magnitudes are in units of `hypot(noise sd, 0.3 x signal sd)`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tocsin.data.synthetic.univariate_bases import BASES, MOVING, PERIODIC, Wave, aperiodic, wave

TYPE_NAMES = (
    "normal",
    "point",
    "contextual",
    "level",
    "trend",
    "frequency",
    "amplitude",
    "variance",
    "shapelet",
    "complex",
)
MIN_LENGTH = 32

_ALLOWED = dict.fromkeys(TYPE_NAMES[1:], BASES) | {
    "contextual": MOVING,
    "frequency": PERIODIC,
    "amplitude": PERIODIC,
    "shapelet": PERIODIC,
}
# Shortest and longest share of the window that an anomaly of this type takes; a point takes 1-3 steps.
_SPAN = {
    "contextual": (0.03, 0.12),
    "level": (0.08, 0.4),
    "trend": (0.12, 0.4),
    "frequency": (0.15, 0.4),
    "amplitude": (0.15, 0.4),
    "variance": (0.1, 0.4),
    "shapelet": (0.1, 0.4),
}
_SIMPLE = ("point", "level", "trend", "variance")  # those that any base can show, for "complex"


@dataclass(frozen=True)
class BalancedUnivariate:
    """`n` series of `L` steps.

    Attributes:
        data: (n, L, 1) float32.
        clean: (n, L, 1) float32, the twins without anomaly, with the same noise.
        point_labels: (n, L) int64, index into `type_names` at each step; 0 = normal.
        sample_labels: (n,) int64, index into `type_names`.
        type_names: Names of the classes.
        severity: (n,) float32, greatest |data - clean| in units of the noise sd; 0 = normal.
        noise_sd: (n,) float32, noise sd in the units of `data`.
    """

    data: np.ndarray
    clean: np.ndarray
    point_labels: np.ndarray
    sample_labels: np.ndarray
    type_names: tuple[str, ...]
    severity: np.ndarray
    noise_sd: np.ndarray


@dataclass(frozen=True)
class _Sample:
    """One series before its anomaly."""

    clean: np.ndarray  # (L,) signal, trend and noise
    signal: np.ndarray  # (L,) the base alone
    noise: np.ndarray  # (L,)
    noise_sd: float
    unit: float
    wave: Wave | None  # the base at any times, if it is periodic


def balanced_univariate(
    *,
    n_samples: int = 800,
    seq_len: int = 128,
    normal_ratio: float | None = 0.75,
    noise: float = 0.01,
    seed: int = 42,
    normalize_per_sample: bool = False,
) -> BalancedUnivariate:
    """Draw the samples; sample i depends on (seed, i, seq_len, noise) and its class alone.

    Args:
        n_samples: Number of series.
        seq_len: Steps of each.
        normal_ratio: Share of normal samples, the rest split evenly over the nine anomaly types; None
            makes all ten classes equally frequent. Counts are exact; where a share is not whole, the first
            types get one sample more.
        noise: Least noise sd, for bases of amplitude 1; see the module docstring.
        seed: Seed of everything.
        normalize_per_sample: Whether to give each series mean 0 and sd 1. Its twin is scaled alike. This
            weakens level faults, which is why it is off.

    Raises:
        ValueError: If an argument is out of range.
    """
    _check(n_samples, seq_len, normal_ratio, noise)
    labels = _classes(n_samples, normal_ratio, seed)
    data = np.empty((n_samples, seq_len))
    clean = np.empty((n_samples, seq_len))
    points = np.zeros((n_samples, seq_len), dtype=np.int64)
    noise_sd = np.empty(n_samples)
    for i, label in enumerate(labels.tolist()):
        rng = np.random.default_rng((seed, i))
        borrowed = int(rng.integers(1, len(TYPE_NAMES)))  # a normal sample draws its base as this type would
        kind = TYPE_NAMES[label or borrowed]
        sample = _draw_sample(str(rng.choice(_ALLOWED[kind])), seq_len, noise, rng)
        data[i], clean[i], noise_sd[i] = sample.clean, sample.clean, sample.noise_sd
        if label:
            data[i], touched = _with_anomaly(kind, sample, rng)
            points[i, touched] = label

    severity = np.abs(data - clean).max(axis=1) / noise_sd
    if normalize_per_sample:
        mean, sd = data.mean(axis=1, keepdims=True), data.std(axis=1, keepdims=True)
        data, clean, noise_sd = (data - mean) / sd, (clean - mean) / sd, noise_sd / sd[:, 0]
    return BalancedUnivariate(
        data=data[:, :, None].astype(np.float32),
        clean=clean[:, :, None].astype(np.float32),
        point_labels=points,
        sample_labels=labels,
        type_names=TYPE_NAMES,
        severity=severity.astype(np.float32),
        noise_sd=noise_sd.astype(np.float32),
    )


def _check(n_samples: int, seq_len: int, normal_ratio: float | None, noise: float) -> None:
    if n_samples < 1:
        raise ValueError(f"n_samples is {n_samples}, but must be >= 1")
    if seq_len < MIN_LENGTH:
        raise ValueError(f"seq_len is {seq_len}, but must be >= {MIN_LENGTH}")
    if normal_ratio is not None and not 0 <= normal_ratio <= 1:
        raise ValueError(
            f"normal_ratio is {normal_ratio}, but must be in [0, 1], or None for balanced classes"
        )
    if not 0 < noise <= 0.5:
        raise ValueError(f"noise is {noise}, but must be in (0, 0.5]")


def _classes(n: int, normal_ratio: float | None, seed: int) -> np.ndarray:
    """Shuffled class numbers (n,) int64 with exact counts."""
    if normal_ratio is None:
        labels = np.arange(n) % len(TYPE_NAMES)
    else:
        normal = round(n * normal_ratio)
        labels = np.concatenate([np.zeros(normal, int), 1 + np.arange(n - normal) % (len(TYPE_NAMES) - 1)])
    return np.random.default_rng(seed).permutation(labels).astype(np.int64)


def _draw_sample(base: str, n: int, noise: float, rng: np.random.Generator) -> _Sample:
    """Draw base, mild trend and noise."""
    played = wave(base, n, rng) if base in PERIODIC else None
    signal = played(np.arange(n, dtype=float)) if played else aperiodic(base, n, rng)
    signal_sd = float(signal.std())
    noise_sd = max(noise, 10 ** (-rng.uniform(5, 30) / 20) * signal_sd)
    drift = rng.uniform(-0.5, 0.5) * signal_sd * np.linspace(-1, 1, n) if rng.random() < 0.5 else np.zeros(n)
    draws = rng.normal(0, noise_sd, n)
    return _Sample(
        signal + drift + draws, signal, draws, noise_sd, float(np.hypot(noise_sd, 0.3 * signal_sd)), played
    )


def _with_anomaly(kind: str, sample: _Sample, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Add an anomaly of which at least one step is 2.2 noise sd off; (L,) values and (L,) bool touched steps.

    A draw that would be lost in the noise is drawn again; after 20 such draws the change is made larger.
    """
    parts = rng.choice(_SIMPLE, 2, replace=False).tolist() if kind == "complex" else [kind]
    n = len(sample.clean)
    change, touched = np.zeros(n), np.zeros(n, dtype=bool)
    for part in parts:
        for attempt in range(200):
            steps = _steps(part, n, rng)
            one = max(1.0, 1 + 0.1 * (attempt - 20)) * _CHANGES[part](sample, steps, rng)
            after = np.abs(change[steps] + one).max()
            if after > 2.2 * sample.noise_sd:
                break
        change[steps] += one
        touched[steps] = True
    return sample.clean + change, touched


def _steps(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Consecutive steps of an anomaly. It may begin before the window or end after it.

    So every step of the window is equally likely to be anomalous, but for the third of it that must show.
    """
    if kind == "point":
        size = int(rng.integers(1, 4))
    else:
        low, high = _SPAN[kind]
        size = max(int(n * rng.uniform(low, high)), 2)
    shown = max(size // 3, 1)
    start = int(rng.integers(shown - size, n - shown + 1))
    return np.arange(max(start, 0), min(start + size, n))


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice((-1.0, 1.0)))


def _point(sample: _Sample, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _sign(rng) * sample.unit * rng.uniform(4, 8, len(steps))


def _contextual(sample: _Sample, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What the series shows at another place of the window, noise included."""
    n = len(sample.clean)
    source = int(rng.integers(0, n - len(steps) + 1))
    return np.asarray(sample.clean[source : source + len(steps)] - sample.clean[steps])


def _level(sample: _Sample, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.full(len(steps), _sign(rng) * sample.unit * rng.uniform(2.5, 5))


def _trend(sample: _Sample, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _sign(rng) * sample.unit * rng.uniform(4, 7) * np.linspace(0, 1, len(steps) + 1)[1:]


def _frequency(sample: _Sample, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Time runs 1.5-3 times faster or 1.4-2.5 times slower."""
    factor = rng.uniform(1.5, 3) if rng.random() < 0.5 else rng.uniform(0.4, 0.7)
    return np.asarray(_played(sample, steps[0] + factor * (steps - steps[0])) - sample.signal[steps])


def _amplitude(sample: _Sample, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    factor = rng.uniform(1.8, 3) if rng.random() < 0.5 else rng.uniform(0.0, 0.4)
    return np.asarray((factor - 1) * (sample.signal - sample.signal.mean())[steps])


def _variance(sample: _Sample, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray((rng.uniform(3, 6) - 1) * sample.noise[steps])


def _shapelet(sample: _Sample, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another periodic base within the same range."""
    other = wave(str(rng.choice(PERIODIC)), len(sample.signal), rng)(
        np.arange(len(sample.signal), dtype=float)
    )
    low, high = sample.signal.min(), sample.signal.max()
    fitted = low + (high - low) * (other - other.min()) / (other.max() - other.min())
    return np.asarray((fitted - sample.signal)[steps])


def _played(sample: _Sample, times: np.ndarray) -> np.ndarray:
    if sample.wave is None:
        raise ValueError("a base without period has no other frequency")
    return np.asarray(sample.wave(times))


_CHANGES: dict[str, Callable[[_Sample, np.ndarray, np.random.Generator], np.ndarray]] = {
    "point": _point,
    "contextual": _contextual,
    "level": _level,
    "trend": _trend,
    "frequency": _frequency,
    "amplitude": _amplitude,
    "variance": _variance,
    "shapelet": _shapelet,
}
