"""Parts of a series against index arithmetic on a series whose values are its own step numbers."""

import numpy as np
import pandas as pd
import pytest

from tocsin.data.series_data import SeriesData
from tocsin.data.splits import split_in_time, spread_parts


def counting(*lengths: int) -> SeriesData:
    n = sum(lengths)
    return SeriesData(
        values=np.arange(n, dtype=np.float32)[:, None],
        channel_names=("step",),
        labels=np.arange(n) % 10 == 0,
        timestamps=np.arange(n) + 1_000,
        lengths=lengths,
        events=pd.DataFrame(
            {
                "start": range(0, n, 10),
                "end": range(1, n + 1, 10),
                "type": "spike",
                "channels": [(0,)] * len(range(0, n, 10)),
                "severity": "hard",
            }
        ),
    )


def steps(part: SeriesData) -> np.ndarray:
    return part.values[:, 0].astype(int)


def test_parts_follow_each_other_with_a_gap_of_one_window() -> None:
    train, val, test = split_in_time(counting(1000), (0.6, 0.1, 0.3), gap=20)
    assert steps(train).tolist() == list(range(600))
    assert steps(val).tolist() == list(range(620, 700))
    assert steps(test).tolist() == list(range(720, 1000))


def test_every_series_is_cut_by_itself() -> None:
    series = counting(100, 200)
    train, test = split_in_time(series, (0.5, 0.5), gap=10)
    assert train.lengths == (50, 100)
    assert test.lengths == (40, 90)
    assert steps(train).tolist() == [*range(50), *range(100, 200)]
    assert steps(test).tolist() == [*range(60, 100), *range(210, 300)]


@pytest.mark.parametrize("lengths", [(1000,), (100, 200, 300)])
def test_labels_timestamps_and_events_stay_with_their_values(lengths: tuple[int, ...]) -> None:
    for part in split_in_time(counting(*lengths), (0.45, 0.13, 0.42), gap=7):
        original = steps(part)
        assert part.labels is not None
        assert part.timestamps is not None
        assert part.events is not None
        np.testing.assert_array_equal(part.labels, original % 10 == 0)
        np.testing.assert_array_equal(part.timestamps, original + 1_000)
        # Every labelled step is an event of one step, and there are no others.
        assert part.events["start"].tolist() == np.flatnonzero(part.labels).tolist()
        assert (part.events["end"] - part.events["start"] == 1).all()
        assert sum(part.lengths) == len(part.values)


def test_event_across_a_cut_is_shortened_and_one_in_the_gap_is_dropped() -> None:
    series = counting(100)
    events = pd.DataFrame({"start": [45, 52, 95], "end": [52, 58, 100], "type": ["a", "b", "c"]})
    series = SeriesData(values=series.values, channel_names=("step",), events=events)
    train, test = split_in_time(series, (0.5, 0.5), gap=10)
    assert train.events is not None
    assert test.events is not None
    assert train.events[["start", "end", "type"]].values.tolist() == [[45, 50, "a"]]
    assert test.events[["start", "end", "type"]].values.tolist() == [[35, 40, "c"]]


def test_part_of_one_series_is_a_view() -> None:
    series = counting(100)
    for part in split_in_time(series, (0.5, 0.5), gap=10):
        assert np.shares_memory(part.values, series.values)


def test_part_shorter_than_the_gap_is_empty_not_negative() -> None:
    _, val, _ = split_in_time(counting(100), (0.5, 0.05, 0.45), gap=10)
    assert val.lengths == (0,)


def test_lengths_that_do_not_fit_the_values_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths sum to 7, but there are 10 steps"):
        SeriesData(values=np.zeros((10, 1), np.float32), channel_names=("a",), lengths=(3, 4))


def test_spread_parts_come_from_all_of_the_time_and_keep_their_labels() -> None:
    values = np.arange(10_000, dtype=np.float32)[:, None]
    series = SeriesData(
        values=values, channel_names=("a",), labels=values[:, 0] % 7 == 0, lengths=(9_950, 50)
    )
    parts = spread_parts(series, steps=2_000, piece=100)
    assert set(parts.lengths) == {100, 50}
    assert len(parts.values) == pytest.approx(2_000, rel=0.06)
    firsts = parts.values[parts.offsets[:-1], 0]
    assert firsts[0] == 0
    assert firsts[-1] == 9_950  # the short series is one piece
    assert np.diff(firsts).max() < 700
    np.testing.assert_array_equal(parts.labels, parts.values[:, 0] % 7 == 0)
    assert spread_parts(series, steps=10_000, piece=100) is series
