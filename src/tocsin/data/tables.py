"""CSV and Parquet tables: which column is time, which is the label, which are channels.

Time may be found by itself, labels never: a label column that slips in among the channels hands the answer to
the detector, so names that look like one are refused until the user decides.
"""

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api import types

from tocsin.data.checks import check_finite, check_labels, check_names, check_timestamps, one_line
from tocsin.data.series_data import SeriesData
from tocsin.errors import DataError

TIMESTAMP_NAMES = ("timestamp", "time", "date", "datetime", "ds")
LABEL_NAMES = ("label", "labels", "is_anomaly", "anomaly")
UNNAMED_FIRST = "Unnamed: 0"  # what pandas calls a first column with an empty header: a saved row index


def read_table(
    path: Path,
    *,
    timestamp_column: str | None = None,
    label_column: str | None = None,
    channels: Sequence[str] | None = None,
) -> SeriesData:
    """Read one series from a CSV or Parquet table with one row per step.

    Args:
        path: A `.csv` file with a header line, or a `.parquet` file.
        timestamp_column: Column of timestamps. If None, the first non-numeric column is taken if it is called
            timestamp, time, date, datetime or ds (any case), or is the unnamed first column of a saved data
            frame, or if the Parquet index holds dates; else there are no timestamps. Text is parsed by pandas
            and kept as UTC without time zone; numbers are kept as they are. An
            empty string: no timestamps, and the column that would have been taken is left out.
        label_column: Column of labels: 0, 1, false, true. If None, there are no labels; they are never
            guessed.
        channels: Columns to keep, in this order. If None, every column that is neither time nor label. An
            unnamed first column that counts 0, 1, 2, ... is a saved row index and is left out.

    Returns:
        The series. Values are (N, C) float32 with NaN where a cell is empty.

    Raises:
        DataError: The table is empty or damaged, a name is not there, or a row holds what it should not.
    """
    frame = _load_parquet(path) if path.suffix.lower() == ".parquet" else _load_csv(path, path)
    return _series_of(frame, path, timestamp_column, label_column, channels)


def read_csv_text(text: bytes, *, where: str, channels: Sequence[str] | None = None) -> SeriesData:
    """Read one series from the text of a CSV table, as `read_table` reads a file.

    Args:
        text: UTF-8, with a header line.
        where: What to call it in messages.
        channels: As for `read_table`.

    Raises:
        DataError: As for `read_table`.
    """
    return _series_of(_load_csv(io.BytesIO(text), Path(where)), Path(where), None, None, channels)


def _series_of(
    frame: pd.DataFrame,
    path: Path,
    timestamp_column: str | None,
    label_column: str | None,
    channels: Sequence[str] | None,
) -> SeriesData:
    if frame.empty:
        raise DataError(
            f"{path}: has no rows below its header ({len(frame.columns)} columns); give a file with data"
        )
    frame = _drop_row_index(frame, path)
    names = list(frame.columns)
    if timestamp_column:
        check_names([timestamp_column], names, where=str(path), option="data.timestamp_column")
    if label_column is not None:
        check_names([label_column], names, where=str(path), option="data.label_column")
    if not timestamp_column:
        found = _find_timestamps(frame, excluded=label_column)
        if timestamp_column == "" and found:
            frame, found = frame.drop(columns=found), None
        timestamp_column = found
    chosen = _choose_channels(frame, path, timestamp_column, label_column, channels)
    values = np.empty((len(frame), len(chosen)), dtype=np.float32)  # (N, C)
    for i, name in enumerate(chosen):
        values[:, i] = _numbers(frame[name], path)
    check_finite(values, chosen, where=str(path))
    return SeriesData(
        values=values,
        channel_names=tuple(chosen),
        labels=None
        if label_column is None
        else check_labels(frame[label_column], where=str(path), name=label_column),
        timestamps=None if timestamp_column is None else _timestamps(frame[timestamp_column], path),
        names=(path.stem,),
    )


def table_columns(path: Path) -> list[str]:
    """The column names of a `.csv` or `.parquet` file, without reading its rows where that is possible."""
    if path.suffix.lower() == ".parquet":
        return [str(name) for name in _load_parquet(path).columns]
    return list(_load_csv(path, path, rows=0).columns)


def _load_csv(source: Path | io.BytesIO, path: Path, rows: int | None = None) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", pd.errors.ParserWarning
            )  # more fields than names: they would be cut
            frame = pd.read_csv(source, skipinitialspace=True, low_memory=False, nrows=rows, index_col=False)
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: is empty; give a file with a header line and rows") from None
    except pd.errors.ParserWarning:
        raise DataError(
            f"{path}: rows have more fields than the header has names; name every column in the first line"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({one_line(error)}); save it as a UTF-8 CSV") from error
    except (pd.errors.ParserError, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as CSV: {one_line(error)}; mend or leave out that line"
        ) from error
    frame.columns = frame.columns.str.strip()
    _check_header(list(frame.columns), path)
    return frame


def _check_header(names: list[str], path: Path) -> None:
    if len(names) == 1 and (other := re.search(r"[;\t|]", names[0])):
        raise DataError(f"{path}: columns are separated by {other.group()!r}; save it separated by commas")
    numbers = [_as_number(name) for name in (names[1:] or names)]
    known = [number for number in numbers if number is not None]
    counted = all(number.is_integer() for number in known) and known == sorted(set(known))
    if len(known) == len(numbers) and not counted:
        raise DataError(
            f"{path}: the first line holds numbers, not column names ({names[-1]}); add a header line"
        )


def _as_number(name: str) -> float | None:
    """The number that a header cell holds, without the `.1` that pandas adds to repeated names."""
    match = re.fullmatch(r"([+-]?\d*\.?\d+(?:[eE][+-]?\d+)?)(?:\.\d+)?", name)
    return float(match.group(1)) if match else None


def _load_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except (ValueError, OSError) as error:  # pyarrow's own errors derive from these two
        raise DataError(
            f"{path}: cannot be read as Parquet: {one_line(error)}; write the file again"
        ) from error
    if isinstance(frame.index, pd.DatetimeIndex):
        frame = frame.rename_axis(str(frame.index.name or "timestamp")).reset_index()
    elif frame.index.name is not None:
        frame = frame.reset_index()
    frame.columns = frame.columns.map(str)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"{path}: has two columns called '{twice}'; rename one")
    return frame


def _drop_row_index(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    if UNNAMED_FIRST not in frame or not types.is_numeric_dtype(frame[UNNAMED_FIRST].dtype):
        return frame
    if len(frame.columns) == 1 or not np.array_equal(frame[UNNAMED_FIRST].to_numpy(), np.arange(len(frame))):
        raise DataError(f"{path}: the first column has no name; name it in the header line")
    return frame.drop(columns=UNNAMED_FIRST)


def _find_timestamps(frame: pd.DataFrame, excluded: str | None) -> str | None:
    for name, dtype in frame.dtypes.items():
        if not types.is_numeric_dtype(dtype) and name != excluded:
            found = str(name).lower() in TIMESTAMP_NAMES or name == UNNAMED_FIRST
            return str(name) if found else None
    return None


def _timestamps(column: "pd.Series", path: Path) -> np.ndarray:
    """(N,) datetime64 in UTC, or the column's own numbers; strictly rising."""
    name = str(column.name)
    if types.is_numeric_dtype(column.dtype):
        stamps = column.to_numpy()
    else:
        # Reading everything as UTC also joins the two offsets of a summer-time change.
        parsed = pd.to_datetime(column, utc=True, errors="coerce")
        unread = (parsed.isna() & column.notna()).to_numpy()
        if unread.any():
            row = int(np.argmax(unread))
            raise DataError(
                f"{path}: timestamp column '{name}' cannot be read in row {row} (from 0), "
                f"'{column.iloc[row]}', "
                f"where row 0 is '{column.iloc[0]}'; write every timestamp in one format, such as "
                f"2026-01-31 23:59:00"
            )
        stamps = parsed.dt.tz_localize(None).to_numpy()
    check_timestamps(stamps, where=str(path), name=name)
    return stamps


def _choose_channels(
    frame: pd.DataFrame,
    path: Path,
    timestamp_column: str | None,
    label_column: str | None,
    channels: Sequence[str] | None,
) -> list[str]:
    if channels is not None:
        if not channels:
            raise DataError(
                f"{path}: data.channels is an empty list; name at least one column, or leave it out"
            )
        available = [name for name in frame.columns if name not in (timestamp_column, label_column)]
        check_names(channels, available, where=str(path), option="data.channels")
        return list(channels)
    chosen = [str(name) for name in frame.columns if name not in (timestamp_column, label_column)]
    for suspects, option, harm in (
        (LABEL_NAMES, "label_column", "and give the answer away"),
        (TIMESTAMP_NAMES, "timestamp_column", "an ever-rising one"),
    ):
        suspect = next((name for name in chosen if name.lower() in suspects), None)
        if suspect is not None:
            raise DataError(
                f"{path}: column '{suspect}' would become a channel, {harm}; "
                f"set data.{option}={suspect}, or list the channels to use in data.channels"
            )
    if not chosen:
        raise DataError(f"{path}: no column is left for channels besides time and label; add at least one")
    return chosen


def _numbers(column: "pd.Series", path: Path) -> np.ndarray:
    """(N,) float32 with NaN for empty cells; what float32 cannot hold becomes infinite."""
    text = types.is_object_dtype(column.dtype) or types.is_string_dtype(column.dtype)
    numeric = pd.to_numeric(column, errors="coerce") if text else column
    bad = (numeric.isna() & column.notna()).to_numpy()
    if not types.is_numeric_dtype(numeric.dtype) or types.is_complex_dtype(numeric.dtype):
        bad = column.notna().to_numpy()
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{path}: column '{column.name}' is not numeric: row {row} (from 0) holds '{column.iloc[row]}'; "
            "mend that cell, or list the numeric columns to use in data.channels"
        )
    with np.errstate(over="ignore"):
        return numeric.to_numpy(dtype=np.float32, na_value=np.nan)
