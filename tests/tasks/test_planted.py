"""Anomalies planted in a validation split."""

import numpy as np
import pytest

from tocsin.data.cleaning import Scaler
from tocsin.data.series_data import SeriesData
from tocsin.errors import ConfigError
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
