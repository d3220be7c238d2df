"""NPY and NPZ arrays. Pickled objects are never loaded: a data file must not be able to run code."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from tocsin.data.checks import (
    check_finite,
    check_labels,
    check_names,
    check_timestamps,
    listed,
    one_line,
)
from tocsin.data.series_data import SeriesData
from tocsin.errors import DataError

VALUES_KEY = "values"
LABEL_KEY = "label"


def read_npy(path: Path, *, channels: Sequence[str] | None = None) -> SeriesData:
    """Map one series from a `.npy` file.

    Args:
        path: A file with an array (N, C), or (N,) for one channel.
        channels: Channels to keep, by the names `channel_0`, `channel_1`, ...

    Returns:
        The series. Values stay a memory map if the file holds float32 and `channels` is None; else they
        are copied into memory as (N, C) float32.

    Raises:
        DataError: The file is damaged, holds objects, has another shape, or holds infinite values.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as NPY: {one_line(error)}; save plain numbers with np.save"
        ) from error
    return _series(array, path=path, key=None, channels=channels)


def read_npz(
    path: Path,
    *,
    timestamp_key: str | None = None,
    label_key: str | None = None,
    channels: Sequence[str] | None = None,
) -> SeriesData:
    """Read one series from a `.npz` file.

    Args:
        path: A file with one array, or with an array called `values` and, if known, `label` (N,).
        timestamp_key: Array of timestamps (N,), if there is one.
        label_key: Array of labels; `label` if None, and then it may be absent.
        channels: Channels to keep, by the names `channel_0`, `channel_1`, ...

    Returns:
        The series, in memory.

    Raises:
        DataError: The file is damaged, an array is missing, holds objects, or has another shape.
    """
    arrays = load_npz(path)
    for option, name in (("data.timestamp_column", timestamp_key), ("data.label_column", label_key)):
        if name is not None:
            check_names([name], list(arrays), where=str(path), option=option)
    label_key = label_key or LABEL_KEY
    free = [key for key in arrays if key not in (timestamp_key, label_key)]
    key = VALUES_KEY if VALUES_KEY in free else free[0] if len(free) == 1 else None
    if key is None and {"train", "test"} <= set(arrays):
        raise DataError(
            f"{path}: holds 'train' and 'test'; give it alone, as data.train without data.test, "
            f"or save the one to read as '{VALUES_KEY}'"
        )
    if key is None:
        raise DataError(
            f"{path}: cannot tell which array is the series among {listed(list(arrays))}; save it as "
            f"'{VALUES_KEY}' (N, C), with '{LABEL_KEY}' (N,) if known, or as 'train', 'test' and "
            f"'{LABEL_KEY}'"
        )
    return _series(
        arrays[key],
        path=path,
        key=key,
        channels=channels,
        labels=arrays.get(label_key),
        label_key=label_key,
        timestamps=arrays[timestamp_key] if timestamp_key else None,
    )


def read_split_npz(
    path: Path, *, label_key: str | None = None, channels: Sequence[str] | None = None
) -> tuple[SeriesData, SeriesData]:
    """Read train and test from one `.npz` file.

    Args:
        path: A file with arrays `train` (N, C), `test` (M, C) and `label` (M,); others are left alone.
        label_key: Array of the test labels; `label` if None.
        channels: Channels to keep, by the names `channel_0`, `channel_1`, ...

    Returns:
        Train without labels, and test with labels.

    Raises:
        DataError: As for `read_npz`, or train and test differ in their number of columns.
    """
    label_key = label_key or LABEL_KEY
    arrays = load_npz(path, keys=("train", "test", label_key))
    train = _series(arrays["train"], path=path, key="train", channels=None)
    test = _series(
        arrays["test"], path=path, key="test", channels=None, labels=arrays[label_key], label_key=label_key
    )
    if train.channel_names != test.channel_names:
        raise DataError(
            f"{path}: 'train' has {len(train.channel_names)} columns and 'test' {len(test.channel_names)}; "
            "both must hold the same channels in the same order"
        )
    return _select(train, channels, path), _select(test, channels, path)


def load_npz_keys(path: Path) -> list[str]:
    """The keys of an `.npz` file, without reading its arrays.

    Raises:
        DataError: The file is damaged.
    """
    with _open_npz(path) as archive:
        return list(archive.files)


def load_npz(path: Path, keys: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Load arrays of an `.npz` file by key.

    Args:
        path: The file.
        keys: Keys to load; all if None. Only these are read, so that other arrays may be anything.

    Returns:
        The arrays, any shape and dtype but objects.

    Raises:
        DataError: The file is damaged, empty, lacks a key, or an array holds objects.
    """
    with _open_npz(path) as archive:
        if not archive.files:
            raise DataError(f"{path}: holds no arrays; save at least '{VALUES_KEY}' (N, C)")
        check_names(keys or (), archive.files, where=str(path), option="a train and test split")
        return {key: _member(archive, key, path) for key in keys or archive.files}


def _open_npz(path: Path) -> NpzFile:
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: is not a readable NPZ ({one_line(error)}); save it with np.savez"
        ) from error
    if not isinstance(archive, NpzFile):
        raise DataError(f"{path}: is a single array, not an NPZ; rename it to {path.stem}.npy")
    return archive


def _member(archive: NpzFile, key: str, path: Path) -> np.ndarray:
    try:
        array = archive[key]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: array '{key}' cannot be read: {one_line(error)}; save plain numbers with np.savez"
        ) from error
    if not isinstance(array, np.ndarray):  # a zip member that is not an array comes as bytes
        raise DataError(f"{path}: '{key}' is not an array; save plain numbers with np.savez")
    return array


def _series(
    array: np.ndarray,
    *,
    path: Path,
    key: str | None,
    channels: Sequence[str] | None,
    labels: np.ndarray | None = None,
    label_key: str = LABEL_KEY,
    timestamps: np.ndarray | None = None,
) -> SeriesData:
    where = f"{path}, array '{key}'" if key else str(path)
    values = _values(array, where)
    steps, width = values.shape
    for name, column in ((label_key, labels), ("timestamps", timestamps)):
        if column is not None and column.shape not in {(steps,), (steps, 1)}:
            raise DataError(
                f"{path}: '{name}' has shape {column.shape}, but the series has {steps} steps; give one per "
                f"step"
            )
    names = tuple(f"channel_{i}" for i in range(width))
    check_finite(values, names, where=where)
    if timestamps is not None:
        timestamps = timestamps.reshape(-1)
        check_timestamps(timestamps, where=str(path), name="timestamps")
    series = SeriesData(
        values=values,
        channel_names=names,
        labels=None if labels is None else check_labels(labels.reshape(-1), where=str(path), name=label_key),
        timestamps=timestamps,
        names=(path.stem,),
    )
    return _select(series, channels, path)


def _values(array: np.ndarray, where: str) -> np.ndarray:
    """(N, C) float32 of an array (N, C) or (N,); a float32 memory map stays one."""
    if array.dtype.kind not in "fiub":
        raise DataError(f"{where}: holds {array.dtype}, not numbers; save real numbers, such as float32")
    if array.ndim not in (1, 2):
        raise DataError(
            f"{where}: has shape {array.shape}; give (steps, channels), or (steps,) for one channel"
        )
    values = array.reshape(len(array), -1) if array.size else array
    if not array.size:
        raise DataError(
            f"{where}: is empty, with shape {array.shape}; give at least one step and one channel"
        )
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _select(series: SeriesData, channels: Sequence[str] | None, path: Path) -> SeriesData:
    if channels is None:
        return series
    if not channels:
        raise DataError(f"{path}: data.channels is an empty list; name at least one column, or leave it out")
    check_names(channels, series.channel_names, where=str(path), option="data.channels")
    columns = [series.channel_names.index(name) for name in channels]
    return SeriesData(
        values=np.ascontiguousarray(series.values[:, columns]),
        channel_names=tuple(channels),
        labels=series.labels,
        timestamps=series.timestamps,
        names=series.names,
    )
