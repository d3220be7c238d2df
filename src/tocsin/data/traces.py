"""Files with one trace per row: each row is a whole short series of one sensor, with one label."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tocsin.data.series_data import SeriesData
from tocsin.errors import DataError

CHANNEL = ("value",)


def as_traces(rows: SeriesData, *, where: str) -> SeriesData:
    """Lay the rows of a table end to end, each a series of its own.

    Args:
        rows: Values (S, T), read as if rows were steps and columns channels; labels (S,) or None.
        where: File, for the message.

    Returns:
        Values (S * T, 1); the label of a row holds for all its steps.

    Raises:
        DataError: There is one column only, so rows can be no traces.
    """
    n_rows, n_steps = rows.values.shape
    if n_steps < 2:
        raise DataError(
            f"{where}: data.layout=traces needs a column for each step, but there is one; use data.layout=steps"
        )
    return SeriesData(
        values=np.ascontiguousarray(rows.values).reshape(-1, 1),  # (S * T, 1)
        channel_names=CHANNEL,
        labels=None if rows.labels is None else np.repeat(rows.labels, n_steps),
        lengths=(n_steps,) * n_rows,
        names=tuple(f"row_{index}" for index in range(n_rows)),
    )


def split_rows(traces: SeriesData, fractions: Sequence[float], *, where: str) -> list[SeriesData]:
    """Cut traces into consecutive parts, in the order of their rows.

    Args:
        traces: As from `as_traces`.
        fractions: Share of each part; they sum to 1.
        where: File, for the message.

    Raises:
        DataError: A part would be empty.
    """
    bounds = np.round(np.cumsum([0.0, *fractions]) * len(traces.lengths)).astype(int)
    parts = []
    for low, high in pairwise(bounds):
        if low == high:
            raise DataError(
                f"{where}: {len(traces.lengths)} rows are too few for shares of {list(fractions)}"
            )
        steps = slice(traces.offsets[low], traces.offsets[high])
        parts.append(
            SeriesData(
                values=traces.values[steps],
                channel_names=traces.channel_names,
                labels=None if traces.labels is None else traces.labels[steps],
                lengths=traces.lengths[low:high],
                names=traces.names[low:high],
            )
        )
    return parts
