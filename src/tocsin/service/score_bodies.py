"""From the body of a request to a series: JSON rows or CSV text. What is wrong with it is said in one line."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tocsin.data.checks import check_finite, listed, nearest
from tocsin.data.series_data import SeriesData
from tocsin.data.tables import read_csv_text
from tocsin.errors import DataError

WHERE = "the request"


class Rows(BaseModel):
    """Rows of a series, one per time step."""

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
    try:
        given = Rows.model_validate_json(body)
    except ValidationError as error:
        raise DataError(f"{WHERE}: {first_fault(error)}") from error
    check_count(len(given.rows), limit)
    names = channels if given.channels is None else given.channels
    for index, row in enumerate(given.rows):
        if len(row) != len(names):
            raise DataError(
                f"{WHERE}: row {index} (from 0) has {len(row)} values, but there are {len(names)} channels: "
                f"{listed(names)}"
            )
    order = _order(names, channels)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        values = np.array(given.rows, dtype=np.float64).reshape(-1, len(names))[:, order].astype(np.float32)
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
    check_count(body.count(b"\n") - 1, limit)
    return read_csv_text(body, where=WHERE, channels=channels)


def check_count(n_rows: int, limit: int) -> None:
    """Refuse more rows than a request may have.

    Raises:
        DataError: There are more.
    """
    if n_rows > limit:
        raise DataError(f"{WHERE} has {n_rows} rows, more than limits.rows={limit}; send them in parts")


def first_fault(error: ValidationError) -> str:
    """What is wrong first, on one line."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, fault["loc"]))
    return f"{place}: {fault['msg']}" if place else str(fault["msg"])


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
