"""Checks shared by the readers: each passes, or raises one line that names file, row or key and the fix.

Rows are counted from 0 everywhere, and messages say so; a table's header is not a row.
"""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

import numpy as np
import pandas as pd
from pandas.api import types

from tocsin.errors import DataError

CHUNK_ELEMENTS = 1 << 20
MAX_LISTED = 12
LABEL_TEXT = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


def row_chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of the first axis that cover `shape` in pieces of about a million elements."""
    rows = max(1, CHUNK_ELEMENTS // max(1, int(np.prod(shape[1:], dtype=np.int64))))
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


def one_line(error: BaseException) -> str:
    """The text of an error from another library, on one line."""
    return " ".join(str(error).split()).rstrip(".")


def listed(names: Sequence[str]) -> str:
    """The names, comma-separated; long lists are cut."""
    shown = ", ".join(map(str, names[:MAX_LISTED]))
    return f"{shown}, ... ({len(names)} in all)" if len(names) > MAX_LISTED else shown


def nearest(asked: str, available: Sequence[str]) -> str:
    """` (did you mean 'x'?)` for the most similar available name, else an empty string."""
    by_lower = {name.lower(): name for name in available}
    match = get_close_matches(asked.lower(), by_lower, n=1, cutoff=0.5)
    return f" (did you mean '{by_lower[match[0]]}'?)" if match else ""


def check_names(asked: Sequence[str], available: Sequence[str], *, where: str, option: str) -> None:
    """Check that every asked name is available, and asked once.

    Args:
        asked: Names that the user gave.
        available: Names that the file holds.
        where: File, for the message.
        option: Option that holds the asked names, for the message.

    Raises:
        DataError: A name is unknown or repeated.
    """
    for name in asked:
        if name not in available:
            raise DataError(
                f"{where}: {option} asks for '{name}', which is not there{nearest(name, available)}; "
                f"available: {listed(available)}"
            )
    if len(set(asked)) < len(asked):
        twice = next(name for i, name in enumerate(asked) if name in asked[:i])
        raise DataError(f"{where}: {option} lists '{twice}' twice; list it once")


def check_labels(column: "pd.Series | np.ndarray", *, where: str, name: str) -> np.ndarray:
    """Turn a label column into booleans.

    Args:
        column: (N,) holding 0, 1, false or true; anything else is refused.
        where: File, for the message.
        name: Column or key, for the message.

    Returns:
        (N,) bool, true = anomalous.

    Raises:
        DataError: A row holds another value, or none.
    """
    series = pd.Series(column)
    text = types.is_object_dtype(series.dtype) or types.is_string_dtype(series.dtype)
    known = (
        series.astype(str).str.strip().str.lower().map(LABEL_TEXT)
        if text
        else series.where(series.isin([0, 1]))
    )
    good = known.notna().to_numpy(dtype=bool)
    if not good.all():
        row = int(np.argmin(good))
        value = series.iloc[row]
        held = "is empty" if pd.isna(value) else f"holds {value!s}"
        raise DataError(
            f"{where}: label column '{name}' must hold 0 (normal) or 1 (anomalous), but row {row} (from 0) "
            f"{held}; "
            "recode it, or leave data.label_column out if it is not the label"
        )
    return known.to_numpy(dtype=bool)


def check_timestamps(timestamps: np.ndarray, *, where: str, name: str) -> None:
    """Check that timestamps are known and rise strictly.

    Args:
        timestamps: (N,) datetime64 or numbers.
        where: File, for the message.
        name: Column or key, for the message.

    Raises:
        DataError: A timestamp is missing, repeated or earlier than the one before.
    """
    unknown = np.asarray(pd.isna(timestamps))
    if unknown.any():
        raise DataError(
            f"{where}: timestamp column '{name}' is empty in row {int(np.argmax(unknown))} (from 0); fill it"
        )
    rises = timestamps[1:] > timestamps[:-1]
    if not rises.all():
        row = int(np.argmin(rises)) + 1
        fault = "repeats" if timestamps[row] == timestamps[row - 1] else "is earlier than"
        raise DataError(
            f"{where}: timestamps must rise, but '{name}' in row {row} (from 0), {timestamps[row]}, {fault} "
            f"row {row - 1}, {timestamps[row - 1]}; sort the file by time and keep one row per timestamp, "
            "or set data.timestamp_column='' to go by the order of rows"
        )


def check_finite(values: np.ndarray, channel_names: Sequence[str], *, where: str) -> None:
    """Check, piece by piece, that no value is infinite. NaN passes: it means missing.

    Args:
        values: (N, C) float32; may be a memory map.
        channel_names: C names, for the message.
        where: File, for the message.

    Raises:
        DataError: A value is infinite, or was beyond the range of float32 (about 3.4e38).
    """
    for rows in row_chunks(values.shape):
        infinite = np.isinf(values[rows])
        if infinite.any():
            row, channel = np.argwhere(infinite)[0]
            raise DataError(
                f"{where}: column '{channel_names[channel]}' is infinite (or beyond float32) in row "
                f"{rows.start + int(row)} (from 0); mend it, or leave it empty (NaN) if the value is missing"
            )
