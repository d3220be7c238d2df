"""Normal behaviour of one simulated server: a latent load and the eight metrics that answer to it.

Source: time-series specification, section 9.4 (own recipe; no outside code). The parts:

- load u_t = (business curve + regime level) x (1 + AR(1), phi .98) + Poisson bursts with exponential decay +
  flash crowds; the curve has daily and weekly harmonics, the regimes are semi-Markov (3 states, sojourn 1-5
  days);
- a causal chain with lags and saturation: requests -> cpu -> latency, queue -> error rate, and memory, disk
  and network beside it. The queueing law rho / (1 - rho) makes latency and queue skewed.

The chain runs twice, with the same schedules (garbage collection, batch jobs, deploys): once on the full
load with noise, which is the data, and once on the business curve and regimes alone without noise, which is
the *seasonal* part. What remains between the two is the *residual*; anomaly magnitudes are told in its sd by
hour of day.

One addition to the specification: an hourly cycle (scheduled jobs, clients that poll on the hour) of 10 % of
the load. Without a cycle shorter than a day nobody could see a change of frequency that lasts 100-600
minutes.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.ndimage import uniform_filter1d
from scipy.signal import lfilter

CHANNELS = ("requests", "cpu", "memory", "disk_io", "net", "latency", "queue", "error_rate")
REQUESTS, CPU, MEMORY, DISK, NET, LATENCY, QUEUE, ERROR = range(8)

UNITS = ("1/min", "%", "%", "MB/s", "MB/min", "ms", "jobs", "%")
LOWER = np.zeros(8)
UPPER = np.array([np.inf, 100.0, 100.0, np.inf, np.inf, np.inf, np.inf, 100.0])
RESOLUTION = np.array([1.0, 0.1, 0.1, 0.1, 0.1, 0.1, 1.0, 0.01])

DAY = 1440
WEEK = 7 * DAY

REQUESTS_PER_LOAD = 1500.0
CPU_GAIN = 0.85
LATENCY_BASE = 20.0

HARD_NEGATIVE_TYPES = ("deploy", "batch_job", "flash_crowd", "gc_sawtooth", "regime_change")

Rows = list[tuple[int, int, str]]  # start, end, type


@dataclass(frozen=True)
class NormalMetrics:
    """Anomaly-free metrics before rounding.

    Attributes:
        values: (N, 8) float64 in `UNITS`, inside `LOWER` and `UPPER`.
        seasonal: (N, 8) float64, the noise-free answer to business curve and regimes: the deterministic part.
        sawtooth: (N,) float64, the part of memory that the garbage collector frees, percent.
        residual_sd: (24, 8) float64, sd of `values - seasonal` by hour of day.
        hard_negatives: `start`, `end` (exclusive), `type` of what is unusual but normal.
    """

    values: np.ndarray
    seasonal: np.ndarray
    sawtooth: np.ndarray
    residual_sd: np.ndarray
    hard_negatives: pd.DataFrame


@dataclass(frozen=True)
class _Schedule:
    """What the machine does by itself, whatever the load; every array is (N,) float64."""

    sawtooth: np.ndarray  # memory waiting for garbage collection, percent
    batch: np.ndarray  # daily batch job, 0..1
    deploy_latency: np.ndarray  # factor on the base latency of the running release
    deploy_write: np.ndarray  # disk writes that announce a deploy, MB/s


def quantise(values: np.ndarray) -> np.ndarray:
    """Bring metrics into their physical bounds and to the resolution of their counters.

    Args:
        values: (..., 8) float64.

    Returns:
        (..., 8) float32.
    """
    rounded = np.round(np.clip(values, LOWER, UPPER) / RESOLUTION) * RESOLUTION
    return np.asarray(rounded, dtype=np.float32)


def hour_of_day(steps: np.ndarray) -> np.ndarray:
    """Hour 0-23 of each step; step 0 is Monday midnight and a step is one minute."""
    return np.asarray(steps % DAY // 60)


def normal_metrics(n: int, n_reference: int, rng: np.random.Generator) -> NormalMetrics:
    """Draw `n` minutes of a healthy server.

    Args:
        n: Steps of one minute.
        n_reference: Leading steps from which the residual sd is measured (the train part).
        rng: Source of all randomness.
    """
    steps = np.arange(n)
    base, regime_changes = _seasonal_load(steps, rng)
    crowd, crowds = _flash_crowds(n, rng)
    load = base * (1 + _ar1(n, 0.98, 0.16, rng)) + _bursts(n, 1 / 300, 0.22, 12.0, rng) + crowd
    schedule, planned = _schedule(n, rng)

    values = _chain(np.maximum(load, 0.06), schedule, rng)
    seasonal = _chain(base, schedule, None)
    residual, hours = (values - seasonal)[:n_reference], hour_of_day(steps[:n_reference])
    residual_sd = np.stack([residual[hours == h].std(axis=0) for h in range(24)])

    table = pd.DataFrame([*planned, *crowds, *regime_changes], columns=["start", "end", "type"])
    table = table.sort_values("start", ignore_index=True)
    return NormalMetrics(values, seasonal, schedule.sawtooth, residual_sd, table)


def _seasonal_load(steps: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Rows]:
    """Business curve plus regime level (N,) > 0, about 1 on average; and the regime changes."""
    n = len(steps)
    peak = 2 * np.pi * rng.uniform(11, 16) / 24  # the busiest hour is in the day; the other phases are free
    curve = 0.46 * np.cos(2 * np.pi * steps / DAY - peak)
    for period, amplitude in ((DAY / 2, 0.14), (DAY / 3, 0.06), (WEEK, 0.10), (WEEK / 2, 0.06)):
        curve += amplitude * np.cos(2 * np.pi * steps / period + rng.uniform(0, 2 * np.pi))
    curve = np.logaddexp(0, 6 * (0.85 + curve)) / 6  # a soft floor: nights are quiet, never negative
    curve *= 1 + 0.10 * np.cos(2 * np.pi * steps / 60 + rng.uniform(0, 2 * np.pi))

    levels: list[float] = []
    starts: list[int] = []
    position, state = 0, int(rng.integers(3))
    while position < n:  # one turn per sojourn of 1-5 days
        starts.append(position)
        levels.append((-0.10, 0.05, 0.25)[state])
        position += int(rng.integers(DAY, 5 * DAY))
        state = (state + int(rng.integers(1, 3))) % 3
    lengths = np.diff([*starts, n])
    regime = uniform_filter1d(np.repeat(levels, lengths), 31, mode="nearest")
    changes = [(s - 15, min(s + 16, n), "regime_change") for s in starts[1:]]
    return np.maximum(curve + regime, 0.08), changes


def _flash_crowds(n: int, rng: np.random.Generator) -> tuple[np.ndarray, Rows]:
    """Extra load (N,) of visitors who come within minutes and leave within an hour or two."""
    impulses = np.zeros(n)
    starts = np.flatnonzero(rng.random(n) < 1 / (3 * DAY))
    impulses[starts] = rng.uniform(0.5, 1.1, len(starts))
    shape = np.exp(-np.arange(400) / 60) - np.exp(-np.arange(400) / 5)
    crowd = lfilter(shape / shape.max(), [1.0], impulses) if len(starts) else impulses
    return crowd, [(s, min(s + 150, n), "flash_crowd") for s in starts.tolist()]


def _bursts(n: int, rate: float, size: float, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Poisson arrivals of log-normal size that decay exponentially, (N,) >= 0."""
    impulses = rng.poisson(rate, n) * size * rng.lognormal(0, 0.5, n)
    bursts: np.ndarray = lfilter([1.0], [1.0, -np.exp(-1 / decay)], impulses)
    return bursts


def _ar1(n: int, phi: float, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Stationary AR(1) of the given marginal sd, (N,)."""
    innovations = rng.normal(0, sd * np.sqrt(1 - phi**2), n)
    innovations[0] = rng.normal(0, sd)
    noise: np.ndarray = lfilter([1.0], [1.0, -phi], innovations)
    return noise


def _schedule(n: int, rng: np.random.Generator) -> tuple[_Schedule, Rows]:
    """Garbage collection, daily batch job and deploys, with their rows for the hard-negative table."""
    periods = rng.integers(200, 601, n // 200 + 2)
    ends = np.cumsum(periods)
    cycles = int((ends < n).sum()) + 1
    drops = rng.uniform(5, 15, cycles)
    phase = np.concatenate([np.arange(p) / p for p in periods[:cycles]])[:n]
    sawtooth = np.repeat(drops, periods[:cycles])[:n] * phase
    rows = [(int(e), int(e) + 1, "gc_sawtooth") for e in ends[: cycles - 1]]

    batch = np.zeros(n)
    hour = rng.uniform(1, 4)
    for day in range(n // DAY + 1):
        start = day * DAY + int(60 * hour + rng.integers(-8, 9))
        stop = start + int(rng.integers(40, 75))
        batch[start:stop] = rng.uniform(0.7, 1.1)
        if stop <= n:
            rows.append((start, stop, "batch_job"))

    factor, write = np.ones(n), np.zeros(n)
    for week in range(n // WEEK + 1):  # one release a week, on a working day between 9 and 12 o'clock
        start = week * WEEK + int(rng.integers(5)) * DAY + int(rng.integers(9 * 60, 12 * 60))
        factor[start:] = rng.uniform(0.9, 1.12)
        write[start - 8 : start] = 25.0  # the announcement: the new release is written to disk
        if start + 10 <= n:
            rows.append((start - 8, start + 10, "deploy"))
    return _Schedule(sawtooth, uniform_filter1d(batch, 5), factor, write), rows


def _chain(load: np.ndarray, schedule: _Schedule, rng: np.random.Generator | None) -> np.ndarray:
    """Answer of the eight metrics (N, 8) to a load (N,) > 0; without `rng` the noise-free answer."""
    n = len(load)

    def noise(phi: float, sd: float) -> np.ndarray:
        return np.zeros(n) if rng is None else _ar1(n, phi, sd, rng)

    expected = REQUESTS_PER_LOAD * load
    requests = expected
    if rng is not None:  # over-dispersed Poisson: clients retry and arrive in groups
        requests = np.maximum(rng.poisson(expected * np.exp(rng.normal(0, 0.04, n))), 1).astype(float)
    served = lfilter([0.6, 0.4], [1.0], requests, zi=[0.4 * requests[0]])[0] / REQUESTS_PER_LOAD
    cpu = 100 * (1 - np.exp(-CPU_GAIN * served)) + 6 * schedule.batch + noise(0.3, 1.8)
    cpu = np.clip(cpu, 0.5, 98.0)

    smooth = lfilter([1 / 45], [1, -(1 - 1 / 45)], load, zi=[(1 - 1 / 45) * load[0]])[0]
    memory = 14 + 30 * smooth + schedule.sawtooth + noise(0.999, 2.5) + noise(0.0, 1.4)
    memory = 96 - 3 * np.logaddexp(0, (96 - memory) / 3)  # a soft ceiling: the kernel reclaims pages
    bursts = np.full(n, 1.1) if rng is None else _bursts(n, 1 / 40, 6.0, 6.0, rng)
    disk = 30 * load * np.exp(noise(0.5, 0.07)) + 28 * schedule.batch + schedule.deploy_write + bursts + 2
    payload = 0.025 * np.exp(noise(0.9, 0.09))  # MB per answer
    net = requests * payload

    rho = np.concatenate([cpu[:1], cpu[:-1]]) / 100  # queueing feels the cpu of one minute ago
    latency = LATENCY_BASE * schedule.deploy_latency * (1 + rho / (1 - rho)) * np.exp(noise(0.3, 0.09))
    waiting = 1 + 6 * rho / (1 - rho)
    queue = waiting if rng is None else rng.poisson(waiting).astype(float)
    failing = 0.001 + 0.03 / (1 + np.exp(-(latency - 75) / 15))
    failed = requests * failing if rng is None else rng.binomial(requests.astype(np.int64), failing)
    error_rate = 100 * failed / requests
    return np.stack([requests, cpu, memory, disk, net, latency, queue, error_rate], axis=1)
