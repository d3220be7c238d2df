"""One trace per row."""

from pathlib import Path

import numpy as np
import pytest

from tocsin.data.series import UserSeries
from tocsin.data.series_data import SeriesData
from tocsin.data.traces import as_traces, split_rows
from tocsin.errors import ConfigError, DataError


def rows(n: int = 40, steps: int = 12) -> SeriesData:
    values = np.arange(n * steps, dtype=np.float32).reshape(n, steps)
    names = tuple(f"channel_{i}" for i in range(steps))
    return SeriesData(values=values, channel_names=names, labels=np.arange(n) % 10 == 3, lengths=(n,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    table = rows()
    np.savez(tmp_path / "traces.npz", values=table.values, label=table.labels)
    return tmp_path / "traces.npz"


def test_every_row_becomes_a_series_with_its_label_on_all_steps() -> None:
    traces = as_traces(rows(), where="file")
    assert traces.values.shape == (480, 1)
    assert traces.lengths == (12,) * 40
    np.testing.assert_array_equal(traces.values[36:48, 0], rows().values[3])
    assert traces.labels is not None
    np.testing.assert_array_equal(np.flatnonzero(traces.labels)[:12], np.arange(36, 48))


def test_parts_follow_each_other_and_share_no_row() -> None:
    parts = split_rows(as_traces(rows(), where="file"), (0.5, 0.25, 0.25), where="file")
    assert [len(part.lengths) for part in parts] == [20, 10, 10]
    assert [part.names[0] for part in parts] == ["row_0", "row_20", "row_30"]
    np.testing.assert_array_equal(np.concatenate([part.values[:, 0] for part in parts]), np.arange(480))


def test_a_window_is_a_whole_trace_and_training_sees_no_labelled_one(path: Path) -> None:
    module = UserSeries(path=str(path), layout="traces")
    module.setup()
    assert module.dims() == {"window": 12, "n_channels": 1}
    starts = np.concatenate([batch.start.numpy() for batch in module.train_dataloader()])
    assert (starts % 12 == 0).all()
    assert not np.isin(starts // 12, np.flatnonzero(np.arange(40) % 10 == 3)).any()
    scored = np.concatenate([batch.start.numpy() for batch in module.test_dataloader()])
    np.testing.assert_array_equal(scored, np.arange(12) * 12)  # the last 30 % of 40 rows, one window each


def test_faults_are_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.layout='rows' is not one of 'steps', 'traces'"):
        UserSeries(path=str(path), layout="rows").load()  # type: ignore[arg-type]
    np.save(tmp_path / "one.npy", np.zeros((30, 1), np.float32))
    with pytest.raises(DataError, match="needs a column for each step, but there is one"):
        UserSeries(path=str(tmp_path / "one.npy"), layout="traces").load()
    np.save(tmp_path / "few.npy", np.random.default_rng(0).random((2, 9)).astype(np.float32))
    with pytest.raises(DataError, match="2 rows are too few"):
        UserSeries(path=str(tmp_path / "few.npy"), layout="traces").load()
