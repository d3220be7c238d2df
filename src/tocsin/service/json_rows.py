"""Reads JSON rows block by block.

A parser that reads a body at once keeps the interpreter for itself as long as that takes (a second for 16 MB), and
the server answers nobody. This one reads row after row, so that others get their turn in between.
"""

import json
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError

from tocsin.errors import DataError

WHERE = "the request"
BLOCK = 512  # rows checked at a time

_DECODER = json.JSONDecoder()
_ROWS = TypeAdapter(list[list[float | None]])
_NAMES = TypeAdapter(list[str] | None)
_SPACE = re.compile(r"[ \t\n\r]*")


class JsonRows(NamedTuple):
    """Rows as they were sent.

    Attributes:
        flat: All their values one after another, float64, NaN = missing.
        widths: (N,) values of each row.
        channels: Names of the columns; None where none were given.
    """

    flat: np.ndarray
    widths: np.ndarray
    channels: list[str] | None


def parse_rows(body: bytes, *, limit: int) -> JsonRows:
    """Read `{"rows": [[...], ...], "channels": [...]}`.

    Args:
        body: Of a request.
        limit: Most rows.

    Raises:
        DataError: It is no JSON, or another one, or there are more rows.
    """
    try:
        return _object(body.decode(), limit)
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f'{WHERE} is no JSON ({error}); send {{"rows": [[1, 2], [3, 4]]}}') from error


def too_many(limit: int) -> DataError:
    """What to say of more rows than a request may have."""
    return DataError(f"{WHERE} has more rows than limits.rows={limit}; send them in parts")


def _object(text: str, limit: int) -> JsonRows:
    found: dict[str, Any] = {}
    at = _after(text, 0, "{")
    while not found or text[at : at + 1] == ",":
        key, at = _DECODER.raw_decode(text, _after(text, at, ",") if found else at)
        at = _after(text, at, ":")
        if key == "rows":
            found[key], at = _rows(text, at, limit)
        elif key == "channels":
            value, at = _DECODER.raw_decode(text, at)
            found[key] = _checked(_NAMES, value, "channels", 0)
            "".join(found[key] or []).encode()  # half a character can be written in JSON, but in no answer
        else:
            raise DataError(f"{WHERE}: there is no key {str(key)[:100]!r}; there are: channels, rows")
        at = _skip(text, at)
    if _after(text, at, "}") != len(text):
        raise DataError(f"{WHERE}: something follows the end of the JSON; send one object")
    if "rows" not in found:
        raise DataError(f'{WHERE} has no rows; send {{"rows": [[1, 2], [3, 4]]}}')
    flat, widths = found["rows"]
    return JsonRows(flat, widths, found.get("channels"))


def _rows(text: str, at: int, limit: int) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """Values and widths of a list of rows, and where it ends."""
    values, widths = [np.empty(0)], [np.empty(0, dtype=np.int64)]
    block: list[Any] = []
    n_rows = 0
    at = _after(text, at, "[")
    while text[at : at + 1] != "]":
        row, at = _DECODER.raw_decode(text, _after(text, at, ",") if n_rows else at)
        block.append(row)
        n_rows += 1
        if n_rows > limit:
            raise too_many(limit)
        if len(block) == BLOCK:
            _flush(block, n_rows, values, widths)
        at = _skip(text, at)
    _flush(block, n_rows, values, widths)
    return (np.concatenate(values), np.concatenate(widths)), _skip(text, at + 1)


def _flush(block: list[Any], n_rows: int, values: list[np.ndarray], widths: list[np.ndarray]) -> None:
    rows: Sequence[Sequence[float | None]] = _checked(_ROWS, block, "rows", n_rows - len(block))
    values.append(np.array(list(chain.from_iterable(rows)), dtype=np.float64))
    widths.append(np.array([len(row) for row in rows], dtype=np.int64))
    block.clear()


def _checked(kind: TypeAdapter[Any], value: Any, key: str, first: int) -> Any:
    """The value, if it is of the kind; a fault is told with its place."""
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = [
            part + first if index == 0 and isinstance(part, int) else part
            for index, part in enumerate(fault["loc"])
        ]
        raise DataError(f"{WHERE}: {'.'.join(map(str, [key, *place]))}: {fault['msg']}") from error


def _skip(text: str, at: int) -> int:
    """The next place that is no space."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _after(text: str, at: int, mark: str) -> int:
    """The next place that is no space, after a mark that must come first."""
    at = _skip(text, at)
    if not text.startswith(mark, at):
        raise DataError(f"{WHERE} is no JSON of rows: {mark} is missing at character {at}")
    return _skip(text, at + 1)
