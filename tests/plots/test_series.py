import sys
import time

import numpy as np
import pytest
from matplotlib.colors import to_hex

from tocsin.plots.save import save
from tocsin.plots.series import Section, sections, signal, zoom_windows
from tocsin.plots.style import INK, PREDICTED, THRESHOLD, TRUE


def lines_of(axes, color):
    return [line for line in axes.lines if to_hex(line.get_color()).upper() == color]


def areas_of(axes, color):
    return [area for area in axes.patches if to_hex(area.get_facecolor()).upper() == color]


def a_series(steps=500, channels=3):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(steps, channels)).astype(np.float32)
    scores = rng.uniform(0, 1, steps)
    labels = np.zeros(steps, bool)
    labels[[100, 101, 102, 200, 300, 301]] = True
    scores[[101, 102, 250, 301, 302, 303]] = 5.0
    return values, scores, labels


def test_signal_marks_true_areas_on_channels_and_predicted_ones_on_the_score():
    values, scores, labels = a_series()
    figure = signal(values, scores, 2.0, labels, channel_names=["a (V)", "b (A)", "c"], title="pump")
    *channels, score = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == ["a (V)", "b (A)", "c", "anomaly score"]
    for number, axes in enumerate(channels):
        assert len(areas_of(axes, TRUE)) == 2
        assert [line.get_xdata()[0] for line in lines_of(axes, TRUE)] == [200]
        np.testing.assert_array_equal(lines_of(axes, INK)[0].get_ydata(), values[:, number])
    assert len(areas_of(score, PREDICTED)) == 2
    assert [line.get_xdata()[0] for line in lines_of(score, PREDICTED)] == [250]
    assert not areas_of(score, TRUE)
    (threshold,) = lines_of(score, THRESHOLD)
    assert list(threshold.get_ydata()) == [2.0, 2.0]
    assert score.get_xlabel() == "time step"
    assert "3 true events, 3 predicted" in channels[0].get_title(loc="left")
    assert figure.get_suptitle() == "pump"


@pytest.mark.parametrize("factor", [1.0, 1000.0])  # a linear axis, a log axis
def test_scores_of_all_sections_are_inside_their_common_scale(factor):
    values, scores, labels = a_series()
    scores[301] *= factor
    windows = [Section("false alarm", 0, 60, (20, 30)), Section("detected event", 270, 330, (300, 302))]
    figure = sections(values, scores, 2.0, windows, labels)
    bottoms = [axes for axes in figure.axes if axes.get_xlabel()]
    figure.draw_without_rendering()
    assert len(bottoms) == 2
    assert bottoms[0].get_yscale() == ("linear" if factor == 1 else "log")
    for axes in bottoms:
        assert axes.get_ylim() == bottoms[0].get_ylim()
        assert axes.get_ylim()[1] > scores[301]


def test_a_score_at_the_threshold_is_an_alarm():
    values, scores, _ = a_series()
    assert len(areas_of(signal(values, scores, 5.0).axes[-1], PREDICTED)) == 2


def test_predictions_passed_in_replace_the_threshold():
    values, scores, labels = a_series()
    score = signal(values, scores, 2.0, labels, predicted=np.arange(500) < 10).axes[-1]
    assert [area.get_width() for area in areas_of(score, PREDICTED)] == [10.0]


def test_unlabelled_series_have_no_true_areas_nor_their_legend():
    values, scores, _ = a_series()
    figure = signal(values, scores, 2.0)
    assert not any(axes.patches for axes in figure.axes[:-1])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["predicted anomaly", "threshold 2"]


@pytest.mark.parametrize(("factor", "scale"), [(1.0, "linear"), (1000.0, "log")])
def test_the_score_axis_is_logarithmic_for_heavy_tails_only(factor, scale):
    values, scores, labels = a_series()
    scores[101] *= factor
    axes = signal(values, scores, 2.0, labels).axes[-1]
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert low < 2.0 < high
    assert high > scores.max()


def test_of_many_channels_the_affected_ones_are_shown():
    values, scores, labels = a_series(channels=38)
    values[labels, 30] += 50
    values[labels, 4] -= 50
    names = [f"m{i}" for i in range(38)]
    figure = signal(values, scores, 2.0, labels, channel_names=names, max_channels=2)
    assert [axes.get_ylabel() for axes in figure.axes] == ["m4", "m30", "anomaly score"]


def test_dates_are_drawn_as_dates():
    values, scores, labels = a_series()
    stamps = np.datetime64("2024-03-01T00:00") + np.arange(500)
    axes = signal(values, scores, 2.0, labels, stamps).axes[-1]
    assert axes.get_xlabel() == "time"
    np.testing.assert_allclose(axes.get_xlim(), np.array([0, 499]) / 1440 + 19783)


def test_220_000_steps_of_8_channels_are_drawn_in_time_with_all_spikes():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(220_000, 8)).astype(np.float32)
    values[123_457, 5] = 99
    scores = rng.uniform(0, 1, 220_000)
    labels = rng.uniform(size=220_000) < 0.01
    began = time.process_time()
    figure = signal(values, scores, 0.99, labels)
    assert time.process_time() - began < 1.0
    (line,) = lines_of(figure.axes[5], INK)
    assert line.get_ydata().max() == 99
    assert line.get_xdata()[line.get_ydata().argmax()] == 123_457


def test_figures_stay_outside_of_pyplot(tmp_path):
    values, scores, labels = a_series()
    save(signal(values, scores, 2.0, labels), tmp_path / "signal.png")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.zeros(500)}, r"values has shape \(500,\): give \(steps, channels\)"),
        ({"values": np.zeros((0, 3))}, r"values has shape \(0, 3\)"),
        ({"scores": np.zeros(499)}, r"scores has shape \(499,\), but values has 500 steps"),
        ({"labels": np.zeros((500, 3))}, r"labels has shape \(500, 3\)"),
        ({"timestamps": np.zeros(7)}, r"timestamps has shape \(7,\)"),
        ({"predicted": np.zeros(7)}, r"predicted has shape \(7,\)"),
        ({"channel_names": ["a"]}, "1 channel names for 3 channels"),
        ({"max_channels": 0}, "max_channels is 0"),
    ],
)
def test_arrays_that_do_not_fit_are_named(change, message):
    values, scores, labels = a_series()
    with pytest.raises(ValueError, match=message):
        signal(**{"values": values, "scores": scores, "threshold": 2.0, "labels": labels} | change)


def test_windows_show_a_detected_event_a_missed_event_and_a_false_alarm_by_turns():
    _, scores, labels = a_series()
    assert zoom_windows(labels, scores > 2, n=9, context=20) == [
        Section("detected event", 80, 123, (100, 103)),
        Section("missed event", 180, 221, (200, 201)),
        Section("false alarm", 230, 271, (250, 251)),
        Section("detected event", 280, 322, (300, 302)),
    ]
    assert len(zoom_windows(labels, scores > 2, n=2)) == 2


def test_the_detected_event_of_median_length_comes_first():
    labels = np.zeros(100, bool)
    labels[[5, 10, 11, 12, 13, 20, 21]] = True
    (window,) = zoom_windows(labels, labels, n=1)
    assert window.region == (20, 22)


def test_the_longest_miss_comes_first_and_windows_end_at_the_series():
    labels = np.zeros(100, bool)
    labels[[0, 50, 51, 52, 99]] = True
    windows = zoom_windows(labels, np.zeros(100, bool), n=3, context=10)
    assert [(w.start, w.end) for w in windows] == [(40, 63), (0, 11), (89, 100)]


def test_windows_without_labels_are_alarms_and_without_alarms_none():
    predicted = np.array([0, 1, 0, 1, 1, 0], bool)
    assert [w.region for w in zoom_windows(None, predicted)] == [(3, 5), (1, 2)]
    assert zoom_windows(np.zeros(6, bool), np.zeros(6, bool)) == []
    with pytest.raises(ValueError, match=r"labels has shape \(5,\)"):
        zoom_windows(np.zeros(5, bool), predicted)


def test_sections_stand_side_by_side_on_one_score_scale():
    values, scores, labels = a_series(channels=5)
    values[100:103, 3] += 40
    windows = zoom_windows(labels, scores >= 2, n=3, context=20)
    figure = sections(values, scores, 2.0, windows, labels, max_channels=1)
    assert len(figure.axes) == 6
    top, bottom = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title(loc="left") for axes in top] == [
        "detected event, steps 100 to 102",
        "missed event, step 200",
        "false alarm, step 250",
    ]
    assert top[0].get_ylabel() == "channel 3"
    assert top[0].get_xlim() == (80, 122)
    np.testing.assert_array_equal(bottom[1].lines[0].get_ydata(), scores[180:221])
    assert len({axes.get_ylim() for axes in bottom}) == 1
    assert len(areas_of(top[0], TRUE)) == 1
    assert len(areas_of(bottom[1], PREDICTED)) == 0


def test_sections_without_windows_say_so():
    values, scores, labels = a_series()
    with pytest.raises(ValueError, match="neither an event nor an alarm"):
        sections(values, scores, 2.0, [], labels)


def test_partly_negative_scores_with_a_heavy_tail_keep_their_bulk_visible() -> None:
    scores = np.random.default_rng(0).normal(0, 0.3, 500)
    scores[200:210] = 400.0
    figure = signal(np.zeros((500, 1)), scores, 1.0)
    assert figure.axes[-1].get_yscale() == "symlog"
    mild = signal(np.zeros((500, 1)), np.minimum(scores, 3.0), 1.0)
    assert mild.axes[-1].get_yscale() == "linear"
