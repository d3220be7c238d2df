import numpy as np
import pytest
from matplotlib.figure import Figure

from tocsin.plots.lines import decimate, draw_line, time_axis, wants_log


def test_decimate_keeps_both_extremes_of_each_column_in_order():
    values = np.random.default_rng(0).normal(size=220_000)
    kept = decimate(values, columns=100)
    assert len(kept) <= 202
    assert (np.diff(kept) > 0).all()
    chosen = np.zeros(len(values), bool)
    chosen[kept] = True
    for column, picked in zip(values.reshape(100, 2200), chosen.reshape(100, 2200), strict=True):
        assert picked[column.argmin()]
        assert picked[column.argmax()]


@pytest.mark.parametrize("step", [0, 1, 110_003, 219_998, 219_999])
@pytest.mark.parametrize("height", [50.0, -50.0])
def test_a_spike_of_one_step_in_220_000_is_in_the_drawn_line(step, height):
    values = np.sin(np.arange(220_000) / 700)
    values[step] = height
    line = draw_line(Figure().subplots(), np.arange(220_000.0), values, "k")
    x, y = line.get_data()
    assert len(x) < 4000
    assert x[np.argmax(np.abs(y))] == step
    assert y[np.argmax(np.abs(y))] == height


def test_decimation_is_not_misled_by_missing_values():
    values = np.zeros(100_000)
    values[::7] = np.nan
    values[60_001] = 9.0
    values[40_000:50_000] = np.nan
    values[10] = np.inf
    line = draw_line(Figure().subplots(), np.arange(100_000.0), values, "k")
    x, y = line.get_data()
    assert np.nanmax(y) == 9.0
    assert np.isnan(y[(x > 40_100) & (x < 49_900)]).all()


def test_short_series_are_drawn_whole():
    np.testing.assert_array_equal(decimate(np.zeros(202), columns=100), np.arange(202))


@pytest.mark.parametrize(
    ("stamps", "label"),
    [
        (None, "time step"),
        (np.array([5.0, 6.0, 9.0]), "timestamp"),
        (np.array(["2024-01-01", "2024-01-02", "2024-01-03"], dtype="datetime64[s]"), "time"),
        (np.array(["2024-01-01 00:00", "2024-01-02 00:00", "2024-01-03 00:00"]), "time"),
        (np.array(["a", "b", "c"]), "time step"),
        (np.array([5.0, 6.0, 4.0]), "time step"),
        (np.array([5.0, np.nan, 6.0]), "time step"),
    ],
)
def test_time_axis_takes_only_timestamps_that_draw_a_right_line(stamps, label):
    time = time_axis(stamps, 3)
    assert time.label == label
    assert (np.diff(time.x) > 0).all()


def test_dates_are_days_whatever_their_resolution():
    days = np.array(["2024-01-01", "2024-01-02"])
    for unit in ("s", "ms", "ns"):
        np.testing.assert_allclose(time_axis(days.astype(f"datetime64[{unit}]"), 2).x, [19723.0, 19724.0])


def test_log_only_for_positive_heavy_tails():
    bulk = np.linspace(1, 2, 1000)
    assert wants_log(np.append(bulk, 100.0))
    assert not wants_log(np.append(bulk, 10.0))
    assert not wants_log(np.append(bulk, [100.0, -0.1]))
    assert not wants_log(np.concatenate([bulk, np.zeros(50), [100.0]]))
    assert not wants_log(np.full(3, np.nan))
