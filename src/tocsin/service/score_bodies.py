"""From the body of a request to a series: JSON rows or CSV text. What is wrong with it is said in one line."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tocsin.data.checks import check_finite, listed, nearest
from tocsin.data.series_data import SeriesData
from tocsin.data.tables import read_csv_text
from tocsin.errors import DataError
from tocsin.service.json_rows import WHERE, parse_rows, too_many


class Rows(BaseModel):
    """Rows of a series, one per time step: what a JSON body may hold, for the description of the API."""

    model_config = ConfigDict(extra="forbid")

    rows: list[list[float | None]] = Field(description="One list of numbers per step; null: missing.")
    channels: list[str] | None = Field(
        default=None, description="Names of the columns; without, they are those of the model in its order."
    )


def rows_of_json(body: bytes, *, channels: Sequence[str], limit: int) -> SeriesData:
    """Read JSON rows.

    Args:
        body: Of the request, as `Rows`.
        channels: Of the model.
        limit: Most rows.

    Returns:
        The series, with the channels of the model in their order; values (N, C) float32, NaN = missing.

    Raises:
        DataError: It is no such JSON, a channel is missing or unknown, rows differ in length, or there are too many.
    """
    given = parse_rows(body, limit=limit)
    names = channels if given.channels is None else given.channels
    if (wrong := given.widths != len(names)).any():
        row = int(wrong.argmax())
        raise DataError(
            f"{WHERE}: row {row} (from 0) has {given.widths[row]} values, but there are {len(names)} channels: "
            f"{listed(names)}"
        )
    order = _order(names, channels)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        values = given.flat.reshape(-1, len(names))[:, order].astype(np.float32)
    check_finite(values, channels, where=WHERE)
    return SeriesData(values=values, channel_names=tuple(channels))


def rows_of_csv(body: bytes, *, channels: Sequence[str], limit: int) -> SeriesData:
    """Read CSV text with a header, as predict.py reads a file: columns that are no channels are left out.

    Args:
        body: Of the request.
        channels: Of the model.
        limit: Most rows.

    Raises:
        DataError: As for `rows_of_json`, or timestamps cannot be read.
    """
    if body.count(b"\n") > limit + 1:  # the header, and a line that is not ended
        raise too_many(limit)
    return read_csv_text(body, where=WHERE, channels=channels)


def _order(given: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Columns of the wanted channels."""
    for name in given:
        if name not in wanted:
            raise DataError(f"{WHERE}: the model has no channel {name!r}{nearest(name, list(wanted))}")
    if missing := [name for name in wanted if name not in given]:
        raise DataError(
            f"{WHERE} lacks the channels {listed(missing)}; the model reads {listed(list(wanted))}"
        )
    if len(given) != len(wanted):
        raise DataError(f"{WHERE}: a channel is named twice: {listed(list(given))}")
    return [list(given).index(name) for name in wanted]
