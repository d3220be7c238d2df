"""Read the user's own series: a file, a folder of entities, or a train and test pair.

Every fault of a file is one `DataError` line that names the file, the row (counted from 0) or key, and the
fix. Nothing is guessed that could change a number silently: labels are never found by name, infinities and
text are refused, and missing values stay NaN for `tocsin.data.cleaning`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tocsin.data.arrays import load_npz_keys, read_npy, read_npz, read_split_npz
from tocsin.data.checks import listed, nearest
from tocsin.data.series_data import SeriesData
from tocsin.data.tables import read_table, table_columns
from tocsin.errors import DataError

SUFFIXES = (".csv", ".parquet", ".npy", ".npz")


class TrainAndTest(NamedTuple):
    """What to learn from and what to judge by; both have the same channels in the same order."""

    train: SeriesData
    test: SeriesData


def read_series(
    path: str | Path,
    *,
    timestamp_column: str | None = None,
    label_column: str | None = None,
    channels: Sequence[str] | None = None,
) -> SeriesData:
    """Read a series from a file, or several from a folder (see `read_folder`).

    Args:
        path: `.csv` or `.parquet` with one row per step; `.npy` with (N, C) or (N,); `.npz` with one array,
            or with `values` and, if known, `label`. A float32 `.npy` is memory-mapped and not copied.
        timestamp_column: Column or key of the timestamps. If None, a table's first non-numeric column is
            taken if it is called timestamp, time, date, datetime or ds (see `read_table`). They must rise
            strictly. An empty string leaves time out and goes by the order of rows.
        label_column: Column or key of the labels (0, 1, false, true). If None, a table has no labels.
        channels: Columns to keep, in this order. If None, all but time and label. Arrays call theirs
            `channel_0`, `channel_1`, ...

    Returns:
        The series. Values are (N, C) float32 in the file's own units, NaN where missing.

    Raises:
        DataError: The file is absent, empty, damaged, of an unknown kind, or does not hold what it should.
    """
    path = _existing(path)
    if path.is_dir():
        return read_folder(
            path, timestamp_column=timestamp_column, label_column=label_column, channels=channels
        )
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: '{path.suffix}' files cannot be read; supported: {', '.join(SUFFIXES)}")
    if suffix == ".npz":
        return read_npz(
            path, timestamp_key=timestamp_column or None, label_key=label_column, channels=channels
        )
    if suffix == ".npy":
        if timestamp_column or label_column:
            option = "data.label_column" if label_column else "data.timestamp_column"
            raise DataError(
                f"{path}: an NPY array has no named columns for {option}; save an .npz with keys instead"
            )
        return read_npy(path, channels=channels)
    return read_table(path, timestamp_column=timestamp_column, label_column=label_column, channels=channels)


def read_folder(
    path: str | Path,
    *,
    timestamp_column: str | None = None,
    label_column: str | None = None,
    channels: Sequence[str] | None = None,
) -> SeriesData:
    """Read a folder of entities, one file each, and lay them end to end.

    Args:
        path: Folder whose readable files all have one suffix. Other files, hidden files and sub-folders are
            left alone.
        timestamp_column: As in `read_series`.
        label_column: As in `read_series`; every file must have it.
        channels: As in `read_series`.

    Returns:
        The series sorted by file name; `names` are the file names without suffix. Values are (N, C) float32
        in memory (a single memory-mapped file stays mapped).

    Raises:
        DataError: As for `read_series`, or the files differ in suffix, channels, or in having labels or
            timestamps.
    """
    return join_series(
        [
            read_series(file, timestamp_column=timestamp_column, label_column=label_column, channels=channels)
            for file in _entity_files(_existing(path))
        ],
        where=str(path),
    )


def read_train_and_test(
    path: str | Path,
    test_path: str | Path | None = None,
    *,
    timestamp_column: str | None = None,
    label_column: str | None = None,
    channels: Sequence[str] | None = None,
) -> TrainAndTest:
    """Read train and test.

    Args:
        path: With `test_path`, the train file or folder; labels are optional there. Without, an `.npz` file
            that holds `train` (N, C), `test` (M, C) and `label` (M,), or a folder of such files, one per
            entity.
        test_path: The test file or folder.
        timestamp_column: As in `read_series`.
        label_column: As in `read_series`; required in the test file if given.
        channels: As in `read_series`.

    Returns:
        Train and test; test columns are put in the order of train.

    Raises:
        DataError: As for `read_series` and `read_folder`, or train and test differ in their columns.
    """
    path = _existing(path)
    if test_path is None:
        return _read_split_files(path, label_column=label_column, channels=channels)
    test_path = _existing(test_path)
    train_label = label_column if label_column in stored_names(path) else None
    train = read_series(path, timestamp_column=timestamp_column, label_column=train_label, channels=channels)
    test = read_series(
        test_path, timestamp_column=timestamp_column, label_column=label_column, channels=channels
    )
    return TrainAndTest(train, _align(test, train.channel_names, where=str(test_path), other=str(path)))


def holds_train_and_test(path: str | Path) -> bool:
    """Whether a file, or the first file of a folder, is an NPZ with arrays `train` and `test`."""
    return {"train", "test"} <= set(stored_names(path))


def join_series(parts: Sequence[SeriesData], *, where: str) -> SeriesData:
    """Lay series end to end.

    Args:
        parts: Series with the same channels, in any order; the first one's order counts. Events are dropped.
        where: Folder or file, for the message.

    Returns:
        One `SeriesData` whose `lengths` and `names` are those of the parts, copied unless there is one part.

    Raises:
        DataError: Channels differ, or only some parts have labels or timestamps.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    aligned = [
        _align(part, first.channel_names, where=f"{where}, {part.names[0]}", other=first.names[0])
        for part in parts
    ]
    return SeriesData(
        values=np.concatenate([part.values for part in aligned]),
        channel_names=first.channel_names,
        labels=_joined([part.labels for part in aligned], parts, "labels", where),
        timestamps=_joined([part.timestamps for part in aligned], parts, "timestamps", where),
        lengths=tuple(length for part in aligned for length in part.lengths),
        names=tuple(name for part in aligned for name in part.names),
    )


def _joined(
    arrays: Sequence[np.ndarray | None], parts: Sequence[SeriesData], what: str, where: str
) -> np.ndarray | None:
    known = [array for array in arrays if array is not None]
    if not known:
        return None
    if len(known) < len(arrays):
        lacking = next(part.names[0] for part, array in zip(parts, arrays, strict=True) if array is None)
        raise DataError(
            f"{where}: {lacking} has no {what}, but other files have; give them to every file or to none"
        )
    if len({array.dtype.kind for array in known}) > 1:
        raise DataError(
            f"{where}: {what} are dates in some files and numbers in others; write them in one form"
        )
    return np.concatenate(known)


def _align(series: SeriesData, names: tuple[str, ...], *, where: str, other: str) -> SeriesData:
    """The series with its columns in the order of `names`."""
    if series.channel_names == names:
        return series
    missing = [name for name in names if name not in series.channel_names]
    extra = [name for name in series.channel_names if name not in names]
    if missing or extra:
        faults = [f"lacks {listed(missing)}"] * bool(missing) + [f"has also {listed(extra)}"] * bool(extra)
        raise DataError(
            f"{where}: has {len(series.channel_names)} columns and {other} has {len(names)}: "
            f"it {' and '.join(faults)}; "
            "give both the same columns, or list the common ones in data.channels"
        )
    order = [series.channel_names.index(name) for name in names]
    return replace(series, values=np.ascontiguousarray(series.values[:, order]), channel_names=names)


def _read_split_files(
    path: Path, *, label_column: str | None, channels: Sequence[str] | None
) -> TrainAndTest:
    files = _entity_files(path) if path.is_dir() else [path]
    if any(file.suffix.lower() != ".npz" for file in files):
        raise DataError(
            f"{path}: holds no split into train and test; give data.train and data.test, "
            "or an .npz with arrays 'train', 'test' and 'label'"
        )
    splits = [read_split_npz(file, label_key=label_column, channels=channels) for file in files]
    return TrainAndTest(
        train=join_series([train for train, _ in splits], where=f"{path} (train)"),
        test=join_series([test for _, test in splits], where=f"{path} (test)"),
    )


def stored_names(path: str | Path) -> list[str]:
    """Columns or keys of a file, or of the first file of a folder; empty for arrays without names."""
    path = _existing(path)
    if path.is_dir():
        return stored_names(_entity_files(path)[0])
    suffix = path.suffix.lower()
    if suffix in {".csv", ".parquet"}:
        return table_columns(path)
    return load_npz_keys(path) if suffix == ".npz" else []


def _entity_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give a folder with one file per entity")
    files = sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )
    kinds = sorted({file.suffix.lower() for file in files})
    if not files:
        raise DataError(f"{folder}: holds no file that can be read; supported: {', '.join(SUFFIXES)}")
    if len(kinds) > 1:
        raise DataError(f"{folder}: mixes {' and '.join(kinds)} files; keep one kind per folder")
    return files


def _existing(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if path.exists():
        return path
    parent = path.absolute().parent
    if not parent.is_dir():
        raise DataError(f"{path}: not found, and neither is its folder {parent}; check the path")
    raise DataError(
        f"{path}: not found in {parent}{nearest(path.name, [file.name for file in parent.iterdir()])}"
    )
