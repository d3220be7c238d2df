"""Promises that every datamodule for series makes: no leak between splits, same seed same batches."""

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from tocsin.batch import SeriesBatch
from tocsin.data.base import SeriesDataModule
from tocsin.data.cache import cached_series
from tocsin.data.samples import SyntheticSamples
from tocsin.data.series import UserSeries
from tocsin.data.series_data import SeriesData
from tocsin.data.sliding import SlidingServerMetrics
from tocsin.data.splits import Splits
from tocsin.data.synthetic import server_metrics as generator
from tocsin.errors import ConfigError, DataError

Make = Callable[..., SeriesDataModule]


def table(n_steps: int = 2_000) -> pd.DataFrame:
    """A series whose first channel counts steps; a few labelled anomalies in every part."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "timestamp": pd.date_range("2026-01-01", periods=n_steps, freq="min"),
            "step": np.arange(n_steps, dtype=np.float64),
            "load": rng.normal(size=n_steps),
            "label": (np.arange(n_steps) % 400 >= 395).astype(int),
        }
    )


@pytest.fixture(params=["sliding", "contaminated", "samples", "user"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes a datamodule of each kind, with changed options where a test gives some."""

    def built(**options: object) -> SeriesDataModule:
        if request.param == "user":
            path = tmp_path / "own.csv"
            if not path.exists():
                table().to_csv(path, index=False)
            module: SeriesDataModule = UserSeries(
                path=str(path), label_column="label", **{"window": 50, **options}
            )
        elif request.param == "samples":
            module = SyntheticSamples(n_samples=60, seq_len=64, **options)
        else:
            share = 0.01 if request.param == "contaminated" else 0.0
            module = SlidingServerMetrics(
                total_length=20_000, contamination=share, cache_dir=tmp_path, **options
            )
        return module

    return built


def ready(module: SeriesDataModule) -> SeriesDataModule:
    module.setup()
    return module


def parts(module: SeriesDataModule) -> tuple[SeriesData, SeriesData, SeriesData]:
    return module.ready.train, module.ready.val, module.ready.test


def starts_of(loader: DataLoader[SeriesBatch]) -> list[int]:
    return torch.cat([batch.start for batch in loader]).tolist()


# --- splits and scaling -------------------------------------------------------------------------------------


def test_splits_do_not_share_a_step(make: Make) -> None:
    module = ready(make())
    if isinstance(module, SyntheticSamples):
        names = [set(part.names) for part in parts(module)]
        n_train, n_val, n_test = map(len, names)
        assert n_val + n_test == 60 - 33
        assert n_train < 33  # the anomalous samples of the train part are left out
        assert len(set.union(*names)) == n_train + n_val + n_test
        return
    if isinstance(module, UserSeries):
        steps = [part.values[:, 0] for part in parts(module)]
    else:
        times = [part.timestamps for part in parts(module)]
        assert all(t is not None for t in times)
        steps = [(t - times[0][0]).astype("timedelta64[m]").astype(int) for t in times]
    for before, after in pairwise(steps):
        assert after[0] - before[-1] == module.window + 1
        assert (np.diff(after) == 1).all()


def test_scaler_sees_train_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    module, changed = make(), make()
    splits = module.load()
    expected = splits.train.values.astype(np.float64)

    def with_other_values() -> Splits:
        for part in (splits.val, splits.test):
            part.values[:] = part.values * 7 - 1_000
        return splits

    module.setup()
    monkeypatch.setattr(changed, "load", with_other_values)
    changed.setup()
    assert module.scaler is not None
    assert changed.scaler is not None
    np.testing.assert_array_equal(module.scaler.center, changed.scaler.center)
    np.testing.assert_array_equal(module.scaler.scale, changed.scaler.scale)
    np.testing.assert_allclose(module.scaler.center, expected.mean(axis=0), rtol=1e-6, atol=1e-9)
    moving = ~module.scaler.constant
    np.testing.assert_allclose(module.scaler.scale[moving], expected.std(axis=0)[moving], rtol=1e-5)


def test_restored_scaler_is_used_on_other_data(make: Make) -> None:
    module = ready(make())
    other = make()
    other.restore(module.scoring_state() | {"scaler": module.scaler.state() | {"center": [5.0]}})  # type: ignore[union-attr]
    other.setup()
    assert other.scaler is not None
    assert other.scaler.center.tolist() == [5.0]


def test_scoring_state_is_plain_data(make: Make) -> None:
    module = ready(make())
    state = module.scoring_state()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True) == state
    assert state["channel_names"] == list(module.ready.train.channel_names)


# --- loaders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train", "val"])
def test_no_labelled_anomaly_is_trained_or_validated_on(make: Make, name: str) -> None:
    module = ready(make())
    loader = module.train_dataloader() if name == "train" else module.val_dataloader()
    series = getattr(module.ready, name)
    seen = 0
    for batch in loader:
        assert batch.labels is not None
        assert not batch.labels.any()
        for start in batch.start.tolist():
            assert not series.labels[start : start + module.window].any()
        seen += len(batch.start)
    assert seen > 0


def test_anomalies_are_left_out_where_the_train_part_has_some(tmp_path: Path) -> None:
    module = ready(SlidingServerMetrics(total_length=20_000, contamination=0.01, cache_dir=tmp_path))
    labels = module.ready.train.labels
    assert labels is not None
    assert labels.any()
    starts = set(starts_of(module.train_dataloader()))
    normal = {s for s in range(0, len(labels) - 99, 10) if not labels[s : s + 100].any()}
    assert starts == normal
    assert len(normal) < len(range(0, len(labels) - 99, 10))


def test_an_epoch_goes_through_the_windows_as_often_as_asked(make: Make) -> None:
    once, thrice = (starts_of(ready(make(passes=n)).train_dataloader()) for n in (1, 3))
    assert sorted(thrice) == sorted(3 * once)
    with pytest.raises(DataError, match=r"data.passes=0 is not a positive number"):
        make(passes=0)


def test_validation_windows_do_not_overlap(make: Make) -> None:
    module = ready(make())
    starts = starts_of(module.val_dataloader())
    assert min(np.diff(starts), default=module.window) >= module.window
    assert starts == sorted(starts)


def test_score_loader_covers_every_step_in_order(make: Make) -> None:
    module = ready(make(score_batch_size=7, score_stride=13))
    for series in parts(module):
        starts = starts_of(module.score_dataloader(series))
        assert starts == sorted(set(starts))
        covered = np.zeros(len(series.values), dtype=bool)
        for start in starts:
            covered[start : start + module.window] = True
            own = np.searchsorted(series.offsets, start, side="right") - 1
            assert start + module.window <= series.offsets[own + 1]
        assert covered.all()


def test_batches_are_standardised_slices(make: Make) -> None:
    module = ready(make())
    batch = next(iter(module.train_dataloader()))
    assert module.scaler is not None
    for row, start in zip(batch.x, batch.start.tolist(), strict=True):
        raw = module.ready.train.values[start : start + module.window]
        np.testing.assert_allclose(row.numpy(), module.scaler.transform(raw), rtol=1e-6)
    assert batch.x.dtype == torch.float32


def test_same_seed_same_batches(make: Make) -> None:
    first, second = (next(iter(ready(make(seed=3)).train_dataloader())) for _ in range(2))
    assert torch.equal(first.x, second.x)
    other = next(iter(ready(make(seed=4)).train_dataloader()))
    assert not torch.equal(first.start, other.start)


def test_each_epoch_has_its_order_also_after_a_resume(make: Make) -> None:
    def epoch(loader: DataLoader[SeriesBatch], number: int) -> list[int]:
        assert isinstance(loader.sampler, DistributedSampler)
        loader.sampler.set_epoch(number)
        return starts_of(loader)

    loader = ready(make()).train_dataloader()
    orders = [epoch(loader, number) for number in range(3)]
    assert orders[0] != orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert epoch(ready(make()).train_dataloader(), 2) == orders[2]


@pytest.mark.parametrize(("step", "start"), [(0, 0), (100, 75), (949, 900)])
def test_window_around_a_step(step: int, start: int, tmp_path: Path) -> None:
    table(950).to_csv(tmp_path / "a.csv", index=False)
    module = ready(
        UserSeries(path=str(tmp_path / "a.csv"), label_column="label", window=50, val_fraction=0.3)
    )
    series = SeriesData(values=np.zeros((950, 2), np.float32), channel_names=("step", "load"))
    assert module.window_around(series, step).start.tolist() == [start]


# --- identity -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_fingerprint_tells_of_every_value_and_label(make: Make, name: str) -> None:
    module = ready(make())
    before = module.fingerprint()
    assert ready(make()).fingerprint() == before
    part = getattr(module.ready, name)
    part.values[-1, 0] += 1
    changed = module.fingerprint()
    part.values[-1, 0] -= 1
    part.labels[-1] ^= True
    relabelled = module.fingerprint()
    assert len({before, changed, relabelled}) == 3


def test_summary_counts(make: Make) -> None:
    module = ready(make())
    summary = module.summary()
    train, val, test = parts(module)
    sizes = (summary["n_train"], summary["n_val"], summary["n_test"])
    assert sizes == (len(train.values), len(val.values), len(test.values))
    assert test.labels is not None
    assert summary["anomaly_rate"] == pytest.approx(test.labels.sum() / len(test.labels))
    assert module.dims() == {"window": module.window, "n_channels": train.values.shape[1]}


def test_largest_deviation_is_that_of_numpy(make: Make) -> None:
    module = ready(make(clip=None))
    train, _, test = parts(module)
    z = (test.values - train.values.mean(axis=0, dtype=np.float64)) / train.values.std(
        axis=0, dtype=np.float64
    )
    np.testing.assert_allclose(module.abs_z(test), np.abs(z).max(axis=1), rtol=1e-4)


# --- cache --------------------------------------------------------------------------------------------------


def test_cached_series_comes_back_identical(tmp_path: Path) -> None:
    options = {"total_length": 20_000, "contamination": 0.01}
    drawn = ready(SlidingServerMetrics(**options, cache_dir=tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
    read = ready(SlidingServerMetrics(**options, cache_dir=tmp_path))
    for before, after in zip(parts(drawn), parts(read), strict=True):
        np.testing.assert_array_equal(after.values, before.values)
        np.testing.assert_array_equal(after.labels, before.labels)
        np.testing.assert_array_equal(after.timestamps, before.timestamps)
        assert after.values.dtype == np.float32
        assert after.events is not None
        pd.testing.assert_frame_equal(after.events, before.events)
        assert (after.names, after.channel_names, after.lengths) == (
            before.names,
            before.channel_names,
            before.lengths,
        )
    assert drawn.fingerprint() == read.fingerprint()


def test_cache_is_read_not_drawn_again(tmp_path: Path) -> None:
    series = SeriesData(values=np.ones((5, 1), np.float32), channel_names=("a",))

    def fail() -> SeriesData:
        raise AssertionError("drawn again")

    where = {"name": generator.__name__, "cache_dir": tmp_path}
    cached_series(lambda: series, arguments={"seed": 1}, **where)
    assert cached_series(fail, arguments={"seed": 1}, **where).labels is None
    with pytest.raises(AssertionError, match="drawn again"):
        cached_series(fail, arguments={"seed": 2}, **where)
    with pytest.raises(AssertionError, match="drawn again"):
        cached_series(fail, name=generator.__name__, arguments={"seed": 1}, cache_dir=None)


@pytest.mark.parametrize("change", [{"data_seed": 1}, {"severity": "hard"}, {"contamination": 0.01}])
def test_changed_argument_gives_another_file(tmp_path: Path, change: dict[str, object]) -> None:
    one = ready(SlidingServerMetrics(total_length=20_000, cache_dir=tmp_path))
    other = ready(SlidingServerMetrics(total_length=20_000, cache_dir=tmp_path, **change))
    assert len(list(tmp_path.iterdir())) == 2
    assert one.fingerprint() != other.fingerprint()


def test_options_the_generator_cannot_meet_are_one_line_of_the_users() -> None:
    with pytest.raises(ConfigError, match="severity is 'mild', but must be one of easy, medium, hard"):
        SlidingServerMetrics(total_length=20_000, severity="mild").setup()


# --- the user's own data ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [{}, {"path": "a", "train": "b"}, {"path": "a", "test": "b"}, {"train": "b"}, {"test": "b"}]
)
def test_user_series_needs_one_way_to_its_files(given: dict[str, str]) -> None:
    message = r"needs either data\.path=<file or folder>, or data\.train=<file> and data\.test=<file>"
    with pytest.raises(ConfigError, match=message):
        UserSeries(**given).setup()


def test_user_train_and_test_files(tmp_path: Path) -> None:
    whole = table(1_000)
    whole[:600].drop(columns="label").to_csv(tmp_path / "train.csv", index=False)
    whole[600:].to_csv(tmp_path / "test.csv", index=False)
    module = ready(
        UserSeries(
            train=str(tmp_path / "train.csv"),
            test=str(tmp_path / "test.csv"),
            label_column="label",
            window=20,
            val_fraction=0.2,
        )
    )
    train, val, test = parts(module)
    assert train.values[:, 0].tolist() == list(range(480))
    assert val.values[:, 0].tolist() == list(range(500, 600))
    assert test.values[:, 0].tolist() == list(range(600, 1_000))
    assert test.labels is not None
    assert test.labels.tolist() == whole["label"][600:].astype(bool).tolist()
    assert train.channel_names == ("step", "load")


def test_user_folder_keeps_entities_apart(tmp_path: Path) -> None:
    for name, n_steps in (("a", 800), ("b", 1_200)):
        table(n_steps).to_csv(tmp_path / f"{name}.csv", index=False)
    module = ready(UserSeries(path=str(tmp_path), label_column="label", window=20))
    assert [part.names for part in parts(module)] == [("a", "b")] * 3
    assert module.ready.train.lengths == (round(800 * 0.595), round(1_200 * 0.595))


def test_unknown_label_column_names_the_nearest(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=r"data\.label_column asks for 'labl'.*did you mean 'label'"):
        UserSeries(path=str(tmp_path / "a.csv"), label_column="labl").setup()


def test_labels_as_a_channel_are_refused(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=r"'label' would become a channel.*set data\.label_column=label"):
        UserSeries(path=str(tmp_path / "a.csv")).setup()


def test_short_series_is_refused_before_training(tmp_path: Path) -> None:
    table(300).to_csv(tmp_path / "a.csv", index=False)
    message = r"the validation part has a series of 0 steps, fewer than data\.window=50"
    with pytest.raises(DataError, match=message):
        UserSeries(path=str(tmp_path / "a.csv"), label_column="label", window=50).setup()


def test_train_part_without_a_normal_window_is_refused(tmp_path: Path) -> None:
    frame = table(1_000)
    frame["label"] = (frame.index % 10 == 0).astype(int)
    frame.to_csv(tmp_path / "a.csv", index=False)
    module = ready(UserSeries(path=str(tmp_path / "a.csv"), label_column="label", window=40))
    with pytest.raises(DataError, match="the train part has no window of 40 steps without a labelled"):
        module.train_dataloader()


def test_score_stride_beyond_the_window_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"data\.score_stride=30 is larger than data\.window=20.*set it to 20"
    ):
        UserSeries(window=20, score_stride=30)


@pytest.mark.parametrize("option", ["window", "stride", "score_stride", "batch_size", "passes"])
def test_option_that_must_be_positive(option: str) -> None:
    with pytest.raises(DataError, match=rf"^data\.{option}=0 is not a positive number$"):
        UserSeries(**{option: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": -3}, r"^data\.n_samples=-3 is not a positive number$"),
        ({"noise": 0.9}, r"^data=synthetic: noise is 0\.9, but must be in"),
    ],
)
def test_samples_that_cannot_be_drawn(options: dict[str, float], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        ready(SyntheticSamples(**options))  # type: ignore[arg-type]


def test_gap_that_is_too_long_names_the_part(tmp_path: Path) -> None:
    frame = table(1_000).drop(columns="label")
    frame.iloc[900:990, 1] = float("nan")
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=r"^the test part: column '.*' misses 90 steps in a row"):
        ready(UserSeries(path=str(tmp_path / "a.csv"), window=40))


def test_splits_before_setup_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"call setup\(\) before"):
        _ = UserSeries().ready
