import dataclasses

import numpy as np
import pandas as pd
import pytest

from tocsin.data.series_data import SeriesData
from tocsin.plots.overview import data_overview, samples_overview

COLUMNS = ["start", "end", "type", "channels", "severity"]


@pytest.fixture
def series():
    values = np.random.default_rng(0).normal(size=(3000, 6)).astype(np.float32)
    rows = [
        (200, 201, "spike", (1,), "easy"),
        (400, 403, "spike", (2,), "easy"),
        (600, 610, "spike", (3,), "easy"),
        (1005, 1105, "shift", (0, 2, 3, 5), "hard"),
    ]
    values[1005:1105, [0, 3, 5]] += 8
    return SeriesData(
        values, tuple("abcdef"), lengths=(1000, 2000), events=pd.DataFrame(rows, columns=COLUMNS)
    )


def tick_names(axes):
    return [text.get_text() for text in axes.get_yticklabels()]


def test_overview_has_one_panel_per_type_with_the_most_affected_channels(series):
    shift, spike = data_overview(series).axes
    assert shift.get_title(loc="left") == "shift (1 event)"
    assert tick_names(shift) == ["a", "d", "f"]
    assert tick_names(spike)[0] == "c"  # the event of median length
    assert [(area.get_x(), area.get_width()) for area in shift.patches] == [(1004.5, 100.0)]


def test_a_channel_affected_alone_is_shown_with_the_one_it_goes_with(series):
    values = series.values.copy()
    values[:, 4] = -values[:, 2] + 0.1 * values[:, 0]
    figure = data_overview(dataclasses.replace(series, values=values))
    assert tick_names(figure.axes[1]) == ["c", "e"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["true anomaly", "unaffected, most correlated channel"]


def test_overview_stays_inside_the_series_of_the_event(series):
    assert data_overview(series).axes[0].get_xlim() == (1000, 1254)


def test_overview_shows_as_many_examples_as_there_are(series):
    assert len(data_overview(series, examples_per_type=2).axes) == 3
    assert len(data_overview(series, examples_per_type=9).axes) == 4


def test_a_single_point_is_a_line(series):
    only = dataclasses.replace(series, events=series.events[:1])
    (axes,) = data_overview(only).axes
    assert not axes.patches
    assert axes.lines[-1].get_xdata()[0] == 200


def test_channels_unknown_are_found_by_how_much_they_differ(series):
    events = series.events.assign(channels=[()] * 4)
    assert tick_names(data_overview(dataclasses.replace(series, events=events)).axes[0]) == ["a", "d", "f"]


def test_samples_overview_has_one_panel_per_type_and_the_normal_one_first():
    values = np.arange(50, dtype=np.float32)[:, None]
    rows = [
        (12, 13, "point", (0,), "easy"),
        (25, 30, "level", (0,), "easy"),
        (31, 33, "level", (0,), "easy"),
        (38, 39, "point", (0,), "easy"),
        (40, 50, "level", (0,), "easy"),
    ]
    series = SeriesData(values, ("v",), lengths=(10,) * 5, events=pd.DataFrame(rows, columns=COLUMNS))
    figure = samples_overview(series)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == [
        "normal (1 sample)",
        "level (2 samples)",
        "point (1 sample)",
        "several types (1 sample)",
    ]
    np.testing.assert_array_equal(panels["level (2 samples)"].lines[0].get_ydata(), np.arange(20, 30))
    assert [area.get_x() for area in panels["level (2 samples)"].patches] == [4.5]
    assert panels["point (1 sample)"].lines[1].get_xdata()[0] == 2
    assert not panels["normal (1 sample)"].patches


def test_overviews_need_events(series):
    for events in (None, series.events[:0]):
        for overview in (data_overview, samples_overview):
            with pytest.raises(ValueError, match="the series has no events"):
                overview(dataclasses.replace(series, events=events))
    with pytest.raises(ValueError, match="examples_per_type is 0"):
        data_overview(series, examples_per_type=0)
