"""Anomalies planted in a validation split."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from tocsin import cli
from tocsin.config import conf_dir
from tocsin.data.cleaning import Scaler
from tocsin.data.series_data import SeriesData
from tocsin.errors import ConfigError
from tocsin.pipeline import train
from tocsin.tasks.planted import plant


def normal(*lengths: int, labels: bool = False) -> SeriesData:
    rng = np.random.default_rng(0)
    values = (100 + 10 * rng.standard_normal((sum(lengths), 3))).astype(np.float32)
    marks = np.zeros(len(values), dtype=bool)
    marks[7] = True
    return SeriesData(values, ("a", "b", "c"), labels=marks if labels else None, lengths=lengths)


@pytest.mark.parametrize("method", ["standard", "log"])
def test_only_marked_steps_are_changed_and_by_what_is_to_be_seen(method: str) -> None:
    series = normal(4000)
    planted = plant(series, Scaler.fit(series.values, method=method))
    assert planted.labels is not None
    changed = (planted.values != series.values).any(axis=1)
    assert not changed[~planted.labels].any()
    assert changed[planted.labels].mean() > 0.95
    assert 0.02 < planted.labels.mean() < 0.12
    # Sizes are those of the train part's units: a level of 100 with a deviation of 10.
    assert 10 < np.abs(planted.values - series.values).max() < 200


def test_all_runs_on_the_same_data_get_the_same_anomalies() -> None:
    series = normal(1000)
    scaler = Scaler.fit(series.values)
    first, again = plant(series, scaler), plant(series, scaler)
    np.testing.assert_array_equal(first.values, again.values)
    assert series.labels is None  # what was given stays as it is


def test_short_series_stay_normal_and_known_labels_are_kept() -> None:
    series = normal(60, 600, 60, labels=True)
    planted = plant(series, Scaler.fit(series.values))
    assert planted.labels is not None
    assert np.flatnonzero(planted.labels[:60]).tolist() == [7]
    assert planted.labels[60:660].any()
    assert not planted.labels[660:].any()
    np.testing.assert_array_equal(planted.values[660:], series.values[660:])


def test_series_too_short_for_any_anomaly() -> None:
    series = normal(60, 60)
    with pytest.raises(ConfigError, match="at most 60 steps are too short for planted anomalies"):
        plant(series, Scaler.fit(series.values))


# --- in a run -----------------------------------------------------------------------------------------------


@pytest.fixture
def registered() -> Iterator[None]:
    store = ConfigStore.instance()
    before = dict(store.repo)
    cli.register()
    yield
    store.repo = before


def sections(folder: Path, planted: bool) -> dict[str, dict[str, float]]:
    settings = [
        *(
            "model=pca",
            "data=series",
            f"data.path={folder}/a.csv",
            "++data.label_column=label",
            "trainer=cpu",
        ),
        *(
            "++data.window=20",
            "logger=none",
            "~callbacks.report",
            "cache_dir=null",
            f"task.planted={planted}",
        ),
        f"trainer.default_root_dir={folder}/{planted}",
    ]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        train(compose("train", settings))
    found = json.loads((folder / str(planted) / "metrics.json").read_text())
    assert isinstance(found, dict)
    return found


def test_run_measures_them_beside_what_it_would_measure_without(registered: None, tmp_path: Path) -> None:
    """Planted anomalies are found or not; neither thresholds nor test metrics know of them."""
    rng = np.random.default_rng(0)
    load = np.sin(np.arange(4000) / 8) + 0.05 * rng.standard_normal(4000)
    frame = pd.DataFrame({"a": load, "b": 2 * load + 0.05 * rng.standard_normal(4000), "label": 0})
    frame.loc[3500:3520, "b"] = 5.0
    frame.loc[3500:3520, "label"] = 1
    frame.to_csv(tmp_path / "a.csv", index=False)
    without, with_planted = sections(tmp_path, False), sections(tmp_path, True)
    assert "planted" not in without
    assert 0.2 < with_planted["planted"]["vus_pr"] < 1.0
    assert with_planted["planted"]["auc_roc"] > 0.6  # they are real: better than chance
    assert with_planted["val"] == {}
    assert with_planted["threshold"] == without["threshold"]
    assert with_planted["test"] == without["test"]
