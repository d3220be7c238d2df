"""Cutting series into parts in order of time, with a gap between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from tocsin.data.series_data import SeriesData


@dataclass(frozen=True)
class Splits:
    """Train, validation and test part of a data set, in this order in time."""

    train: SeriesData
    val: SeriesData
    test: SeriesData


def split_in_time(series: SeriesData, fractions: Sequence[float], *, gap: int) -> list[SeriesData]:
    """Cut every series into consecutive parts with a gap between them.

    The gap keeps overlapping windows, and what a filter remembers, from lying on both sides of a cut.

    Args:
        series: One or several series.
        fractions: Share of each part, in order of time; they sum to 1.
        gap: Steps dropped at the start of every part but the first.

    Returns:
        One `SeriesData` per fraction.
    """
    bounds = np.concatenate([[0.0], np.cumsum(fractions)])
    begins, ends = series.offsets[:-1], series.offsets[1:]
    lengths = ends - begins
    parts = []
    for low, high in pairwise(bounds):
        first = begins + np.round(low * lengths).astype(np.int64) + (gap if low > 0 else 0)
        last = begins + np.round(high * lengths).astype(np.int64)
        parts.append(cut(series, first, np.maximum(first, last)))
    return parts


def cut(series: SeriesData, first: np.ndarray, last: np.ndarray) -> SeriesData:
    """Part [first[i], last[i]) of every series i; a single series stays a view."""
    slices = [slice(int(a), int(b)) for a, b in zip(first, last, strict=True)]

    def take(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        return array[slices[0]] if len(slices) == 1 else np.concatenate([array[s] for s in slices])

    values = take(series.values)
    assert values is not None
    lengths = tuple(int(b - a) for a, b in zip(first, last, strict=True))
    return SeriesData(
        values=values,
        channel_names=series.channel_names,
        labels=take(series.labels),
        timestamps=take(series.timestamps),
        lengths=lengths,
        names=series.names,
        events=_cut_events(series, first, last, lengths),
    )


def spread_parts(series: SeriesData, *, steps: int, piece: int) -> SeriesData:
    """Pieces of series that are spread evenly over all of their time, without timestamps and events.

    Args:
        series: One or several series.
        steps: About so many steps in all; where there are no more than that, the series comes back as it is.
        piece: Steps of a piece; a shorter series is one piece.
    """
    if len(series.values) <= steps:
        return series
    first, last = [], []
    for begin, end in pairwise(series.offsets.tolist()):
        own = range(begin, max(begin + 1, end - piece + 1), piece)
        first += list(own)
        last += [min(start + piece, end) for start in own]
    total = np.cumsum(np.subtract(last, first))
    wanted = max(1, round(len(first) * steps / int(total[-1])))
    chosen = np.unique(np.linspace(0, len(first) - 1, wanted).round().astype(int)).tolist()

    def take(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array[first[index] : last[index]] for index in chosen])

    return SeriesData(
        values=take(series.values),
        channel_names=series.channel_names,
        labels=None if series.labels is None else take(series.labels),
        lengths=tuple(last[index] - first[index] for index in chosen),
    )


def _cut_events(
    series: SeriesData, first: np.ndarray, last: np.ndarray, lengths: tuple[int, ...]
) -> pd.DataFrame | None:
    if series.events is None:
        return None
    own = np.searchsorted(series.offsets, series.events["start"].to_numpy(), side="right") - 1
    start = np.maximum(series.events["start"].to_numpy(), first[own])
    end = np.minimum(series.events["end"].to_numpy(), last[own])
    shift = np.concatenate([[0], np.cumsum(lengths)])[own] - first[own]
    inside = end > start
    events: pd.DataFrame = series.events.assign(start=start + shift, end=end + shift)[inside]
    return events.reset_index(drop=True)
