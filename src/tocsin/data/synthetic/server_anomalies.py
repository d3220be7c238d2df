"""The twelve anomaly types of the simulated server.

Source: time-series specification, section 9.4; kinds after TODS (Lai 2021) and GutenTAG (Wenig 2022). Each
injector edits the metrics of one event in place and tells which channels it touched and from which step on.
The metric's own noise is kept or drawn anew, never dropped; physical bounds and rounding are applied
afterwards.

Seven types stand out by their magnitude, and severity scales it so that the point ROC-AUC of max|z| is > .9
at easy, .6-.85 at medium and < .65 at hard: point_spike, level_shift, trend, memory_leak, noise_burst,
saturation, cascade. The other five stay inside the normal range by construction, so max|z| cannot reach .9 on
them however severe they are; severity is then the contrast to what was due, the factor, or the number of
channels:

- contextual and correlation_break show values that the metric really takes at another hour or on another day;
- flatline holds a value that the metric just had;
- frequency_change and amplitude_change replay or scale the seasonal curve.
"""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import uniform_filter1d

from tocsin.data.synthetic.server_load import (
    CPU,
    DAY,
    DISK,
    ERROR,
    LATENCY,
    MEMORY,
    NET,
    QUEUE,
    REQUESTS,
    RESOLUTION,
)
from tocsin.data.synthetic.server_site import SPILL, STRENGTH, Site, donor_block, envelope, room

_ALL = (REQUESTS, CPU, MEMORY, DISK, NET, LATENCY, QUEUE, ERROR)
_DRIFTING = (REQUESTS, DISK, NET, LATENCY, QUEUE, ERROR)  # percentages meet their ceiling before a trend ends
_PERIODIC = (REQUESTS, CPU, MEMORY, DISK, NET, LATENCY)
_COUPLED_GROUPS = ((REQUESTS,), (CPU,), (NET,), (REQUESTS, NET), (LATENCY, QUEUE))

Touched = dict[int, int]  # channel -> first touched step, counted from the start of the event
Injector = Callable[[Site], Touched]


def inject(kind: str, site: Site) -> Touched:
    """Edit `site.values` for one event of type `kind`; tell the touched channels and their first step."""
    return _INJECTORS[kind](site)


def _point_spike(site: Site) -> Touched:
    channels = site.channels(_ALL, 1, 2)
    for c in channels:
        site.add(c, np.full(site.length, site.signed(c, site.strength("point_spike"))))
    return dict.fromkeys(channels, 0)


def _contextual(site: Site) -> Touched:
    """Values of another hour of day, less than two days away."""
    channels = site.channels(_PERIODIC, 1, 3)
    shifts = site.rng.integers(3 * 60, 21 * 60, 24) + site.rng.choice((-2, -1, 0, 1), 24) * DAY
    donor = donor_block(site, channels, shifts, site.strength("contextual"))
    site.values[site.start : site.end, channels] = site.normal.values[donor : donor + site.length, channels]
    return dict.fromkeys(channels, 0)


def _level_shift(site: Site) -> Touched:
    channels = site.channels(_ALL, 1, 3)
    shape = envelope(site.length, int(site.rng.integers(11)), int(site.rng.integers(11)))
    for c in channels:
        site.add(c, site.signed(c, site.strength("level_shift")) * shape)
    return dict.fromkeys(channels, 0)


def _trend(site: Site) -> Touched:
    channels = site.channels(_DRIFTING, 1, 2)
    for c in channels:
        site.add(c, site.signed(c, site.strength("trend")) * np.linspace(0, 1, site.length))
    return dict.fromkeys(channels, 0)


def _memory_leak(site: Site) -> Touched:
    """Concave ramp that the collector frees less and less of; then swapping; a restart ends it."""
    restart = int(site.rng.integers(8, 21))
    grown = site.length - restart
    ramp = np.zeros(site.length)
    ramp[:grown] = np.linspace(0, 1, grown) ** 0.7
    size = site.strength("memory_leak")
    saw = site.normal.sawtooth[site.start : site.end]
    site.values[site.start : site.end, MEMORY] -= 0.8 * ramp * (saw - saw.mean())
    fresh = np.zeros(site.length)
    fresh[grown:] = -0.12 * size * np.linspace(1, 0, restart)
    site.add(MEMORY, size * ramp + fresh)
    swapping = int(0.35 * grown)
    swap = np.zeros(site.length)
    swap[swapping:grown] = np.linspace(0, 1, grown - swapping)
    site.add(DISK, 0.6 * size * swap)
    site.add(LATENCY, 0.5 * size * swap)
    return {MEMORY: 0, DISK: swapping, LATENCY: swapping}


def _frequency_change(site: Site) -> Touched:
    """The seasonal part runs too fast or too slowly; the residual stays."""
    channels = site.channels(_PERIODIC, 1, 3)
    factor = site.strength("frequency_change")
    factor = factor if site.rng.random() < 0.5 else 1 / factor
    warped = np.minimum(site.start + factor * np.arange(site.length), len(site.values) - 1)
    weight = envelope(site.length, 0, 10)
    for c in channels:
        seasonal = site.normal.seasonal[:, c]
        due = seasonal[site.start : site.end]
        played = np.interp(warped, np.arange(site.start, len(seasonal)), seasonal[site.start :])
        site.values[site.start : site.end, c] += weight * (played - due)
    return dict.fromkeys(channels, 0)


def _amplitude_change(site: Site) -> Touched:
    """The seasonal part swings more or less around its daily mean; the residual stays."""
    channels = site.channels(_PERIODIC, 1, 3)
    strength = site.strength("amplitude_change")
    wide = site.rng.random() < 0.5
    weight = envelope(site.length, 5, 5)
    for c in channels:
        seasonal = site.normal.seasonal[:, c]
        mean = seasonal[max(site.start - DAY // 2, 0) : site.start + DAY // 2].mean()
        swing = seasonal[site.start : site.end] - mean
        low, high = room(c, site.sd(c))
        fits = bool((mean + 2 * swing > low).all() and (mean + 2 * swing < high).all())
        factor = 1 + strength if wide and fits else 1 - 0.9 * strength
        site.values[site.start : site.end, c] += weight * (factor - 1) * swing
    return dict.fromkeys(channels, 0)


def _correlation_break(site: Site) -> Touched:
    """A metric, or a pair that belongs together, shows the same minutes of another day."""
    channels = list(_COUPLED_GROUPS[int(site.rng.integers(len(_COUPLED_GROUPS)))])
    days = np.concatenate([np.arange(-60, 0), np.arange(1, 61)])
    donor = donor_block(site, channels[:1], days * DAY, site.strength("correlation_break"))
    site.values[site.start : site.end, channels] = site.normal.values[donor : donor + site.length, channels]
    return dict.fromkeys(channels, 0)


def _noise_burst(site: Site) -> Touched:
    channels = site.channels(_ALL, 1, 3)
    factor = site.strength("noise_burst")
    for c in channels:
        extra = site.rng.normal(size=site.length) * np.sqrt(factor**2 - 1) * site.sd(c)
        site.values[site.start : site.end, c] += extra
    return dict.fromkeys(channels, 0)


def _flatline(site: Site) -> Touched:
    channels = site.channels(_ALL, *(int(k) for k in STRENGTH["flatline"][site.severity]))
    for c in channels:
        flicker = site.rng.choice((-1, 0, 1), site.length, p=(0.1, 0.8, 0.1)) * RESOLUTION[c]
        site.values[site.start : site.end, c] = site.values[site.start - 1, c] + flicker
    return dict.fromkeys(channels, 0)


def _saturation(site: Site) -> Touched:
    """The cpu runs into a ceiling (its quota); queue and latency follow with a lag and drain after it."""
    rng = site.rng
    rise, drain = int(rng.integers(2, 7)), int(rng.integers(5, 13))
    ceiling = site.strength("saturation")
    now = site.values[site.start : site.end, CPU]
    residual = now - uniform_filter1d(now, 15, mode="nearest")
    weight = envelope(site.length, rise, drain)
    plateau = ceiling + residual + rng.normal(0, 0.8, site.length)
    now += weight * (plateau - now)
    lag = int(rng.integers(2, 6))
    effect = np.zeros(site.length)
    effect[lag:] = envelope(site.length - lag, rise, drain)
    for c in (QUEUE, LATENCY):
        site.add(c, SPILL[site.severity] * effect)
    return {CPU: 0, QUEUE: lag, LATENCY: lag}


def _cascade(site: Site) -> Touched:
    """Errors cause retries, answers slow down, the queue fills, the cpu follows: each later and weaker."""
    size, onset = site.strength("cascade"), 0
    touched: Touched = {}
    for c in (ERROR, LATENCY, QUEUE, CPU):
        length = site.length - onset
        effect = np.zeros(site.length)
        effect[onset:] = envelope(length, 2, max(length // 3, 1))
        site.add(c, size * effect)
        touched[c] = onset
        size *= site.rng.uniform(0.65, 0.9)
        onset += int(site.rng.integers(1, min(15, max(site.length // 6, 2)) + 1))
    return touched


_INJECTORS: dict[str, Injector] = {
    "point_spike": _point_spike,
    "contextual": _contextual,
    "level_shift": _level_shift,
    "trend": _trend,
    "memory_leak": _memory_leak,
    "frequency_change": _frequency_change,
    "amplitude_change": _amplitude_change,
    "correlation_break": _correlation_break,
    "noise_burst": _noise_burst,
    "flatline": _flatline,
    "saturation": _saturation,
    "cascade": _cascade,
}
