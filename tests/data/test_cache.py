"""Generated data that several processes need at once are made once."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tocsin.data.cache import cached_folder, cached_series
from tocsin.data.series_data import SeriesData

NAME = "tocsin.data.synthetic.server_load"


def together(call: object) -> list[object]:
    """Results of two callers who come at the same time; a lock of a file is between openings, not processes."""
    both = threading.Barrier(2)

    def run(_: int) -> object:
        both.wait()
        return call()  # type: ignore[operator]

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(2)))


def test_series_are_drawn_once(tmp_path: Path) -> None:
    made: list[float] = []

    def make() -> SeriesData:
        made.append(time.monotonic())
        time.sleep(0.2)
        return SeriesData(values=np.full((5, 1), len(made), np.float32), channel_names=("a",))

    found = together(lambda: cached_series(make, name=NAME, arguments={"n": 5}, cache_dir=tmp_path))
    assert len(made) == 1
    assert [float(series.values[0, 0]) for series in found] == [1.0, 1.0]  # type: ignore[attr-defined]
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]  # and no lock is left


def test_folders_are_written_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def write(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.2)
        (folder / "file").write_text(str(len(made)))

    found = together(lambda: cached_folder(write, name=NAME, arguments={"n": 5}, cache_dir=tmp_path))
    assert len(made) == 1
    assert [(path / "file").read_text() for path in found] == ["1", "1"]  # type: ignore[operator]
    assert len(list(tmp_path.iterdir())) == 1


def test_who_waits_makes_it_if_the_first_one_fails(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> SeriesData:
        made.append(len(made))
        if len(made) == 1:
            time.sleep(0.2)
            raise OSError("disk full")
        return SeriesData(values=np.zeros((5, 1), np.float32), channel_names=("a",))

    def call() -> object:
        return cached_series(make, name=NAME, arguments={"n": 5}, cache_dir=tmp_path)

    with pytest.raises(OSError, match="disk full"):
        together(call)
    assert len(made) == 2
    assert call().values.shape == (5, 1)  # type: ignore[attr-defined]
