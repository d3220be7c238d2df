"""Which channels are worth a panel, and the shape checks that all figures of series share."""

from collections.abc import Sequence

import numpy as np

ENOUGH_ROWS = 20_000  # statistics for a choice of panels need no more
ENOUGH_FOR_SPREAD = 8
EPSILON = 1e-9


def check_lengths(steps: int, **arrays: np.ndarray | None) -> None:
    """Refuse arrays that are not (N,).

    Args:
        steps: N, the length of `values`.
        arrays: By their name in the message; None passes.

    Raises:
        ValueError: Names the array, its shape and the shape wanted.
    """
    for name, array in arrays.items():
        if array is not None and np.shape(array) != (steps,):
            raise ValueError(
                f"{name} has shape {np.shape(array)}, but values has {steps} steps: give ({steps},)"
            )


def check_table(values: np.ndarray, name: str = "values") -> tuple[int, int]:
    """Refuse arrays that are not (N, C) with at least one step and channel; returns N and C.

    Raises:
        ValueError: Names the array and its shape.
    """
    shape = np.shape(values)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{name} has shape {shape}: give (steps, channels) with at least one of each")
    return int(shape[0]), int(shape[1])


def check_names(names: Sequence[str] | None, channels: int) -> tuple[str, ...]:
    """The names given, or `channel 0`, `channel 1`, ... for None.

    Raises:
        ValueError: There are not C names.
    """
    if names is None:
        return tuple(f"channel {i}" for i in range(channels))
    if len(names) != channels:
        raise ValueError(f"{len(names)} channel names for {channels} channels")
    return tuple(names)


def most_affected(values: np.ndarray, mask: np.ndarray | None, count: int) -> np.ndarray:
    """The channels that differ most between the steps inside and outside a mask.

    A channel's measure is its root mean square deviation inside, in units of its standard deviation
    outside, plus the absolute log ratio of both standard deviations (at most 3), so that a spike, a shift,
    a burst and a flat line all count, whatever the channel's unit. Without a mask, or if all or no steps
    are inside, channels rank by variance.

    Args:
        values: (N, C) numbers; what is not finite is left out.
        mask: (N,) bool, or None.
        count: How many channels; all C if there are fewer.

    Returns:
        (min(count, C),) int64 channel indices in ascending order.
    """
    C = values.shape[1]
    if count >= C:
        return np.arange(C)
    inside = np.zeros(len(values), bool) if mask is None else np.asarray(mask).astype(bool)
    if inside.all() or not inside.any():
        _, spread, _ = _moments(_thin(values))
        return np.sort(np.argsort(-spread, kind="stable")[:count])
    hit = _thin(values[inside])
    rest_mean, rest_spread, _ = _moments(_thin(values[~inside]))
    mean, spread, known = _moments(hit)
    unit = rest_spread + EPSILON
    measure = np.sqrt((mean - rest_mean) ** 2 + spread**2) / unit
    ratio = np.abs(np.log((spread + EPSILON) / unit)).clip(max=3.0)
    measure += np.where((known >= ENOUGH_FOR_SPREAD) & (rest_spread > 0), ratio, 0.0)
    return np.sort(np.argsort(-measure, kind="stable")[:count])


def _thin(values: np.ndarray) -> np.ndarray:
    """Evenly chosen rows, at most about `ENOUGH_ROWS`, float64."""
    return np.asarray(values[:: max(1, len(values) // ENOUGH_ROWS)], dtype=np.float64)


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation and number of the finite values of each channel: three (C,) arrays."""
    finite = np.isfinite(values)
    known = finite.sum(axis=0)
    mean = np.where(finite, values, 0.0).sum(axis=0) / np.maximum(known, 1)
    square = np.where(finite, values - mean, 0.0) ** 2
    return mean, np.sqrt(square.sum(axis=0) / np.maximum(known, 1)), known
