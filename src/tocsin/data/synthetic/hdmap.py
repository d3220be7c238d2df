"""A stand-in for the Health Data Map: tooth-by-tooth vibration maps of a planetary gearbox in four domains.

Source: image specification, section 5.1 (layout, statistics and recipe). A map has one row for each tooth of a planet
gear and one column for each tooth of the ring gear. A damaged planet tooth meets every ring tooth, so its row is
brighter: that faint, horizontal line is the fault.

What the real maps have and these have too: mean, spread and quantiles of each domain's normal maps, the darker and
wider test maps, cold maps before warm ones, a texture that is fixed by the teeth, rows whose level varies from map to
map. What these do not have: the darker faults of domain B, which brightness alone would give away. What the real set
lacks: the row and contrast of every fault.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

ROWS, COLUMNS = 31, 95  # teeth of the planet and of the ring


@dataclass(frozen=True)
class Domain:
    """What tells a domain from the others.

    Attributes:
        mean: Of the pixels of normal training maps; the largest is .75 to 1.
        sd: Of the same pixels.
        cold: Brightness of cold test maps, training maps being 1.
        warm: Brightness of warm test maps.
        noise: Standard deviation of the speckle of test maps, training maps being 1.
        row_jitter: Standard deviation of a row's level from map to map, relative to the level.
        contrast: Least and largest brightness of a faulty row, its normal brightness being 1.
        fault_row: The damaged tooth.
        waves: Spatial frequency of each grating: cycles over all rows, cycles over all columns.
    """

    mean: float
    sd: float
    cold: float
    warm: float
    noise: float
    row_jitter: float
    contrast: tuple[float, float]
    fault_row: int
    waves: tuple[tuple[float, float], ...]


# Gratings run nearly along the rows, or along the diagonal: the next mesh is the next tooth of both gears.
DOMAINS = {
    "domain_A": Domain(0.248, 0.084, 0.70, 1.04, 1.32, 0.045, (1.15, 1.5), 11, ((0.5, 9.0), (3.0, 9.2))),
    "domain_B": Domain(0.252, 0.084, 0.71, 1.05, 1.32, 0.045, (1.15, 1.5), 19, ((0.0, 14.0), (4.0, 12.3))),
    "domain_C": Domain(
        0.246, 0.072, 0.80, 1.05, 1.10, 0.03, (1.05, 1.25), 7, ((1.0, 6.0), (2.0, 6.1), (5.0, 15.3))
    ),
    "domain_D": Domain(0.218, 0.080, 0.74, 1.04, 1.25, 0.045, (1.15, 1.5), 23, ((0.3, 11.0), (2.5, 7.7))),
}
TRAIN_COLD, TRAIN_WARM, TRAIN_WARM_SHARE = 0.87, 1.06, 0.7  # normal operation is mostly warm

WAVE_SD, PROFILE_SD, SPECKLE_SD = 0.2, 0.08, 0.2  # of the logarithm of a pixel
LEVEL_JITTER = 0.05  # of a whole map
COLD_SPECKLE, WARM_SPECKLE = 0.85, 1.15


@dataclass(frozen=True)
class DomainMaps:
    """The maps of one domain.

    Attributes:
        maps: (N, 31, 95) float32, about 0 to 1 and above where a fault is bright; never clipped.
        masks: (N, 31, 95) bool, true where a fault adds at least half of its largest addition to a row.
        table: N rows: `split` and `class` (folders), `condition` (cold or warm), `severity` (contrast of the faulty
            row less 1; 0 where there is none), `row` (of the fault, from 0; -1 where there is none).
    """

    maps: np.ndarray
    masks: np.ndarray
    table: pd.DataFrame


def domain_maps(name: str, *, n_train: int, n_test: int, seed: int) -> DomainMaps:
    """Draw a domain; the same arguments give the same maps, bit for bit.

    Args:
        name: One of `DOMAINS`.
        n_train: Normal training maps, at least 2.
        n_test: Test maps of each class, cold ones first, at least 2.
        seed: Of everything. The texture of the domain is drawn from it, too.

    Raises:
        ValueError: An argument is out of range.
    """
    if name not in DOMAINS:
        raise ValueError(f"domain={name!r} is not one of {', '.join(map(repr, DOMAINS))}")
    for option, value in (("n_train", n_train), ("n_test", n_test)):
        if value < 2:
            raise ValueError(f"{option}={value} is fewer than 2 maps")
    domain = DOMAINS[name]
    texture_rng, train_rng, good_rng, fault_rng, line_rng = np.random.default_rng(
        [seed, list(DOMAINS).index(name)]
    ).spawn(5)
    texture = _texture(domain, texture_rng)

    train_warm = train_rng.random(n_train) < TRAIN_WARM_SHARE
    test_warm = np.arange(n_test) >= n_test // 2
    level = np.where(train_warm, TRAIN_WARM, TRAIN_COLD)
    train = _log_maps(domain, texture, level, train_warm, 1.0, train_rng)
    offset, exponent = _calibration(train, domain.mean, domain.sd)
    level = np.where(test_warm, domain.warm, domain.cold)
    good = _log_maps(domain, texture, level, test_warm, domain.noise, good_rng)
    fault = _log_maps(domain, texture, level, test_warm, domain.noise, fault_rng)
    maps = np.exp(offset + exponent * np.concatenate([train, good, fault]))  # (N, 31, 95)

    line, rows, contrast = _lines(domain, n_test, line_rng)
    maps[-n_test:] *= 1 + line
    masks = np.zeros(maps.shape, dtype=bool)
    masks[-n_test:] = line >= line.max(axis=1, keepdims=True).clip(1e-9) / 2
    return DomainMaps(
        maps=maps.astype(np.float32),
        masks=masks,
        table=pd.DataFrame(
            {
                "split": ["train"] * n_train + ["test"] * 2 * n_test,
                "class": ["good"] * (n_train + n_test) + ["fault"] * n_test,
                "condition": np.where(np.concatenate([train_warm, test_warm, test_warm]), "warm", "cold"),
                "severity": np.concatenate([np.zeros(n_train + n_test), contrast - 1]),
                "row": np.concatenate([np.full(n_train + n_test, -1), rows]),
            }
        ),
    )


@dataclass(frozen=True)
class _Texture:
    """What the teeth of a domain fix: phases (W,) of its gratings and profile (31, 95), a logarithm."""

    phases: np.ndarray
    profile: np.ndarray


def _texture(domain: Domain, rng: np.random.Generator) -> _Texture:
    phases = rng.uniform(0, 2 * np.pi, len(domain.waves))
    rows, columns = (_smooth_walk(length, rng) for length in (ROWS, COLUMNS))
    return _Texture(phases=phases, profile=PROFILE_SD * (rows[:, None] + columns))


def _smooth_walk(length: int, rng: np.random.Generator) -> np.ndarray:
    """(length,) first-order autoregression of standard deviation 1."""
    steps = rng.normal(size=length)
    values = np.empty(length)
    values[0] = steps[0]
    for index in range(1, length):
        values[index] = 0.8 * values[index - 1] + 0.6 * steps[index]
    return values


def _log_maps(
    domain: Domain,
    texture: _Texture,
    level: np.ndarray,
    warm: np.ndarray,
    noise: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """(N, 31, 95) logarithms of normal maps of brightness `level` (N,), before calibration."""
    n_maps = len(level)
    rows, columns = np.arange(ROWS)[:, None] / ROWS, np.arange(COLUMNS) / COLUMNS
    maps: np.ndarray = (
        texture.profile + np.log(level)[:, None, None] + rng.normal(0, LEVEL_JITTER, (n_maps, 1, 1))
    )
    maps = maps + rng.normal(0, domain.row_jitter, (n_maps, ROWS, 1))
    amplitude = WAVE_SD * np.sqrt(2 / len(domain.waves))
    for (over_rows, over_columns), phase in zip(domain.waves, texture.phases, strict=True):
        strength = amplitude * rng.normal(1, 0.15, (n_maps, 1, 1))
        turn = phase + rng.normal(0, 0.3, (n_maps, 1, 1))
        maps = maps + strength * np.cos(2 * np.pi * (over_rows * rows + over_columns * columns) + turn)
    scale = noise * np.where(warm, WARM_SPECKLE, COLD_SPECKLE)
    maps += scale[:, None, None] * _log_speckle(n_maps, rng)
    return maps


def _log_speckle(n_maps: int, rng: np.random.Generator) -> np.ndarray:
    """(N, 31, 95) logarithm of Rayleigh speckle smoothed over about a pixel; mean 0, standard deviation .2."""
    side, centre = np.exp(-0.5 * (np.array([1, 0]) / 0.6) ** 2)  # of a Gaussian kernel of three pixels
    speckle = rng.rayleigh(size=(n_maps, ROWS + 2, COLUMNS + 2))
    speckle = centre * speckle[:, 1:-1] + side * (speckle[:, :-2] + speckle[:, 2:])
    speckle = centre * speckle[:, :, 1:-1] + side * (speckle[:, :, :-2] + speckle[:, :, 2:])  # (N, 31, 95)
    logs = np.log(speckle)
    standardised: np.ndarray = (logs - logs.mean()) / logs.std()
    return SPECKLE_SD * standardised


def _calibration(logs: np.ndarray, mean: float, sd: float) -> tuple[float, float]:
    """Offset and exponent for which exp(offset + exponent * logs) has this mean and standard deviation."""
    low, high = 0.1, 10.0
    for _ in range(40):  # the relative spread grows with the exponent
        exponent = (low + high) / 2
        maps = np.exp(exponent * logs)
        low, high = (exponent, high) if maps.std() / maps.mean() < sd / mean else (low, exponent)
    return float(np.log(mean / np.exp(exponent * logs).mean())), exponent


def _lines(
    domain: Domain, n_maps: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faults: what they add (N, 31, 95) relative to the background, their rows (N,) and contrasts (N,)."""
    rows = domain.fault_row + rng.integers(-1, 2, n_maps)
    contrast = rng.uniform(*domain.contrast, n_maps)
    width = rng.uniform(0.6, 0.9, (n_maps, 1))
    across = np.exp(-0.5 * ((np.arange(ROWS) - rows[:, None]) / width) ** 2)  # (N, 31)
    turns, phase = rng.uniform(1, 6, (n_maps, 1)), rng.uniform(0, 2 * np.pi, (n_maps, 1))
    along = 1 + 0.3 * np.sin(2 * np.pi * turns * np.arange(COLUMNS) / COLUMNS + phase)  # (N, 95)
    along *= 1 + 0.15 * rng.normal(size=along.shape)
    # One map in four misses a part: the tooth does not touch all the way round.
    begin, length = rng.integers(0, COLUMNS, (n_maps, 1)), rng.integers(8, 25, (n_maps, 1))
    gap = ((np.arange(COLUMNS) - begin) % COLUMNS < length) & (rng.random((n_maps, 1)) < 0.25)
    along = np.where(gap, 0.0, along.clip(0))
    line = (contrast - 1)[:, None, None] * across[:, :, None] * along[:, None, :]
    return line, rows, contrast
