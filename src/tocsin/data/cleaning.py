"""Fill short gaps and bring channels to one scale, in linear time and without copying what is clean."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self, get_args

import numpy as np

from tocsin.data.checks import listed, row_chunks
from tocsin.errors import ConfigError, DataError

ScalerMethod = Literal["standard", "robust", "log", "none"]

IQR_OF_UNIT_NORMAL = 1.3489795
MAX_SAMPLE_ROWS = 1_000_000
FLOAT32_NOISE = 1e-6  # a relative range below about ten float32 roundings is no movement
LEVEL_FRACTION = 0.1
LOG_UNIT = 0.1  # of the mean of a channel: below it, a logarithm is nearly linear
STRIP_ELEMENTS = 1 << 15  # numbers scaled at a time: they fit into the processor's cache


def fill_missing(
    values: np.ndarray,
    limit: int,
    lengths: Sequence[int],
    channel_names: Sequence[str] | None = None,
    where: str = "the series",
) -> tuple[np.ndarray, np.ndarray]:
    """Fill NaN with the last known value of its channel, never across the border of two series.

    A gap at the start of a series is filled backwards from its first known value.

    Args:
        values: (N, C) float32; may be a memory map. NaN = missing.
        limit: Longest gap that may be filled, in steps; 0 = none.
        lengths: Steps of each series; they sum to N.
        channel_names: C names, for the message.
        where: File or part of the data, for the message.

    Returns:
        The values, the same array if nothing is missing, else a filled copy in memory; and (N, C) bool, true
        where a value was missing (a read-only view of one False if nothing is).

    Raises:
        ConfigError: `limit` is negative.
        DataError: A gap is longer than `limit`, or a channel of a series has no value at all.
    """
    if limit < 0:
        raise ConfigError(f"data.fill_limit must be 0 or more, got {limit}")
    incomplete = _incomplete_channels(values)
    if not len(incomplete):
        return values, np.broadcast_to(np.False_, values.shape)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)  # (S + 1,)
    filled = np.array(values, dtype=np.float32)
    missing = np.zeros(values.shape, dtype=bool)
    for channel in incomplete:
        missing[:, channel] = np.isnan(filled[:, channel])
        name = channel_names[channel] if channel_names else f"channel_{channel}"
        starts, ends = _gaps(missing[:, channel], offsets)
        source = _sources(starts, ends, offsets, limit=limit, name=f"{where}: column '{name}'")
        filled[missing[:, channel], channel] = filled[np.repeat(source, ends - starts), channel]
    return filled, missing


def _incomplete_channels(values: np.ndarray) -> np.ndarray:
    """Indices of the channels that hold a NaN."""
    found = np.zeros(values.shape[1], dtype=bool)
    for rows in row_chunks(values.shape):
        found |= np.isnan(values[rows].min(axis=0))  # a minimum is NaN if any of its values is
    return np.flatnonzero(found)


def _gaps(missing: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First steps and ends (exclusive) of the runs of missing steps, cut at the borders of the series."""
    border = np.zeros(len(missing) + 1, dtype=bool)
    border[offsets] = True
    padded = np.concatenate([[False], missing, [False]])
    before, here = padded[:-1], padded[1:]  # step i - 1 and step i, for i = 0..N
    starts = np.flatnonzero(here & (~before | border))
    ends = np.flatnonzero(before & (~here | border))
    return starts, ends


def _sources(
    starts: np.ndarray, ends: np.ndarray, offsets: np.ndarray, *, limit: int, name: str
) -> np.ndarray:
    """The step that fills each gap: the one before it, or after it at the start of a series."""
    sizes = ends - starts
    series = np.searchsorted(offsets, starts, side="right") - 1
    leading = starts == offsets[series]
    whole = leading & (ends == offsets[series + 1])
    too_long = whole | (sizes > limit)
    if too_long.any():
        gap = int(np.argmax(too_long))
        place = f"{name} misses {sizes[gap]} steps in a row from row {starts[gap]} (from 0)"
        if whole[gap]:
            raise DataError(
                f"{place}, the whole of series {series[gap]}; leave the column out with data.channels, or "
                f"that series"
            )
        raise DataError(f"{place}, and data.fill_limit is {limit}; raise data.fill_limit, or mend the file")
    return np.where(leading, ends, starts - 1)


@dataclass(frozen=True, eq=False)
class Scaler:
    """Per-channel shift and scale, learned from train: z = clip((x - center) / scale).

    A channel that moves in train has scale = max(spread, `min_scale` × range), so that a channel which is
    flat but for rare blips cannot divide by almost nothing. The rule does not change with the channel's unit
    or offset.

    A channel that is constant in train (range ≤ 1e-6 of its largest absolute value, the rounding of float32)
    has no spread, yet a change of it at test time tells something. Its scale is borrowed: a tenth of its
    level; or, if its level is 0, the median scale of the moving channels; or 1 if none moves. It is 0 in
    train, whatever the scale, and `clip` bounds it at test time.

    Attributes:
        method: `standard`: mean and standard deviation. `robust`: median and IQR / 1.349 (the standard
            deviation of normal data), of at most a million evenly spaced rows; the standard deviation where
            the IQR is 0. `log`: as `standard`, but of log(1 + x / unit) for channels that are never
            negative in train, because the noise of counts, rates and latencies grows with their level.
            `none`: values pass unchanged, and unclipped.
        center: (C,) float64 in the data's units.
        scale: (C,) float64 in the data's units, above 0.
        constant: (C,) bool, true where train is constant.
        clip: Largest absolute standardised value; None = unbounded.
        unit: (C,) float64 a tenth of the mean in train, for channels whose logarithm is taken; else NaN.
    """

    method: ScalerMethod
    center: np.ndarray
    scale: np.ndarray
    constant: np.ndarray
    clip: float | None = None
    unit: np.ndarray | None = None

    @classmethod
    def fit(
        cls,
        values: np.ndarray,
        *,
        method: ScalerMethod = "standard",
        min_scale: float = 1e-3,
        clip: float | None = 100.0,
    ) -> Self:
        """Learn center and scale, piece by piece in float64: a memory map is never loaded whole.

        Args:
            values: (N, C) float32 train values without NaN; may be a memory map.
            method: `standard`, `robust`, `log` or `none`.
            min_scale: Least scale of a moving channel, as a fraction of its range in train.
            clip: Largest absolute standardised value; None = unbounded. The default keeps one runaway channel
                from outweighing the others a millionfold; a tight bound such as 10 makes large anomalies look
                alike, and costs precision where the anomaly is a jump.

        Returns:
            The fitted scaler.

        Raises:
            ConfigError: An option is out of its range.
            DataError: There are no values, or some are NaN or infinite.
        """
        _check_options(method, min_scale, clip)
        if values.ndim != 2 or not values.size:
            raise DataError(
                f"cannot scale values of shape {values.shape}; give (steps, channels), at least one each"
            )
        with np.errstate(invalid="ignore"):  # refused in the next line, by name
            mean, deviation, low, high = _moments(values)
        if not np.isfinite(deviation).all():
            channel = int(np.argmin(np.isfinite(deviation)))
            raise DataError(
                f"channel {channel} holds NaN or infinite values; fill missing values before scaling"
            )
        constant = high - low <= FLOAT32_NOISE * np.maximum(np.abs(low), np.abs(high))
        if method == "none":
            return cls(method, np.zeros_like(mean), np.ones_like(mean), constant, clip)
        unit = None
        if method == "log":
            unit = np.where((low >= 0) & ~constant, LOG_UNIT * mean, np.nan)
            mean, deviation, low, high = _moments(values, unit)
        center, spread = _robust(values, deviation) if method == "robust" else (mean, deviation)
        scale = np.maximum(spread, min_scale * (high - low))
        typical = float(np.median(scale[~constant])) if not constant.all() else 1.0
        borrowed = np.where(mean == 0, typical, LEVEL_FRACTION * np.abs(mean))
        return cls(method, center, np.where(constant, borrowed, scale), constant, clip, unit)

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Standardise.

        Args:
            values: (..., C) in the data's units; may be a memory map.

        Returns:
            (..., C) float32 in units of `scale`, a new array; NaN stays NaN.

        Raises:
            DataError: The number of channels is not that of train.
        """
        self._check_channels(values)
        if self.method == "none":
            return np.array(values, dtype=np.float32)
        steps = values.reshape(-1, len(self.center))  # (N, C)
        scaled = np.empty(steps.shape, dtype=np.float32)
        center, scale = self._strip
        n_steps = len(center) // len(self.center)
        for begin in range(0, len(steps), n_steps):
            piece = _compressed(steps[begin : begin + n_steps], self.unit)
            # In float64: a float32 center of a large level would be off by more than a small scale.
            standard = piece.ravel() - center[: piece.size]
            standard /= scale[: piece.size]
            if self.clip is not None:
                np.clip(standard, -self.clip, self.clip, out=standard)
            scaled[begin : begin + n_steps] = standard.reshape(piece.shape)
        return scaled.reshape(values.shape)

    @cached_property
    def _strip(self) -> tuple[np.ndarray, np.ndarray]:
        """Center and scale of many steps end to end: one long run is faster than many rows of C numbers."""
        n_steps = max(1, STRIP_ELEMENTS // len(self.center))
        return np.tile(self.center, n_steps), np.tile(self.scale, n_steps)

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Undo `transform`, but for the clipping.

        Args:
            values: (..., C) in units of `scale`.

        Returns:
            (..., C) float32 in the data's units.

        Raises:
            DataError: The number of channels is not that of train.
        """
        self._check_channels(values)
        restored = values * self.scale + self.center
        if self.unit is not None:
            grown = np.sign(restored) * np.expm1(np.abs(restored)) * self.unit
            restored = np.where(np.isnan(self.unit), restored, grown)
        return np.asarray(restored, dtype=np.float32)

    def state(self) -> dict[str, Any]:
        """Everything that `from_state` needs, as plain strings, numbers and lists."""
        return {
            "method": self.method,
            "center": self.center.tolist(),
            "scale": self.scale.tolist(),
            "constant": self.constant.tolist(),
            "clip": self.clip,
            "unit": None if self.unit is None else self.unit.tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The scaler whose `state` was saved."""
        return cls(
            method=state["method"],
            center=np.array(state["center"], dtype=np.float64),
            scale=np.array(state["scale"], dtype=np.float64),
            constant=np.array(state["constant"], dtype=bool),
            clip=state["clip"],
            unit=None if state["unit"] is None else np.array(state["unit"], dtype=np.float64),
        )

    def describe(self, channel_names: Sequence[str] | None = None) -> str:
        """One line for the log: the method, and which of the C channels are constant in train."""
        names = channel_names or [f"channel_{i}" for i in range(len(self.center))]
        still = [name for name, constant in zip(names, self.constant, strict=True) if constant]
        bound = "" if self.clip is None or self.method == "none" else f", clipped at ±{self.clip:g}"
        constant = listed(still) or "none"
        return f"scaling {self.method}{bound}, {len(names)} channels; constant in train: {constant}"

    def _check_channels(self, values: np.ndarray) -> None:
        if values.shape[-1] != len(self.center):
            raise DataError(
                f"values have {values.shape[-1]} channels, but the scaler was fitted on {len(self.center)}; "
                "give the channels of train"
            )


def _check_options(method: str, min_scale: float, clip: float | None) -> None:
    if method not in get_args(ScalerMethod):
        raise ConfigError(f"unknown scaling method '{method}'; possible: {', '.join(get_args(ScalerMethod))}")
    if not 0 < min_scale < 1:
        raise ConfigError(
            f"min_scale must lie between 0 and 1 (a fraction of a channel's range), got {min_scale}"
        )
    if clip is not None and clip <= 0:
        raise ConfigError(f"clip must be above 0, or null for no clipping, got {clip}")


def _compressed(values: np.ndarray, unit: np.ndarray | None) -> np.ndarray:
    """Values (..., C) with sign(x) log(1 + |x| / unit) in the channels that have a unit."""
    if unit is None:
        return values
    logs = np.sign(values) * np.log1p(np.abs(values) / unit)
    return np.where(np.isnan(unit), values, logs)


def _moments(
    values: np.ndarray, unit: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation, minimum and maximum, each (C,) float64.

    Pieces are merged as in Chan, Golub and LeVeque (1979), which stays exact where a sum of squares cancels.
    """
    width = values.shape[1]
    mean, squares = np.zeros(width), np.zeros(width)
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for rows in row_chunks(values.shape):
        piece = _compressed(values[rows].astype(np.float64), unit)
        seen, new = rows.start, len(piece)
        piece_mean = piece.mean(axis=0)
        delta = piece_mean - mean
        squares += ((piece - piece_mean) ** 2).sum(axis=0) + delta**2 * seen * new / (seen + new)
        mean += delta * new / (seen + new)
        low, high = np.minimum(low, piece.min(axis=0)), np.maximum(high, piece.max(axis=0))
    return mean, np.sqrt(squares / len(values)), low, high


def _robust(values: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and IQR / 1.349, each (C,) float64, of evenly spaced rows."""
    sample = values[:: -(-len(values) // MAX_SAMPLE_ROWS)]
    quartiles = np.array(
        [np.percentile(sample[:, c], [25, 50, 75]) for c in range(values.shape[1])]
    )  # (C, 3)
    quartiles = quartiles.astype(np.float64)
    spread = (quartiles[:, 2] - quartiles[:, 0]) / IQR_OF_UNIT_NORMAL
    return quartiles[:, 1], np.where(spread > 0, spread, deviation)
