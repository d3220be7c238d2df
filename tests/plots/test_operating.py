import numpy as np
import pytest

from tocsin.metrics.classification import alarm_rates
from tocsin.plots.operating import detection_curve


def scored(n_faultless, n_defective):
    rng = np.random.default_rng(0)
    defective = np.arange(n_faultless + n_defective) >= n_faultless
    return rng.random(len(defective)) / 2 + 0.4 * defective, defective


def test_the_curve_passes_through_the_rates_of_every_threshold():
    scores, defective = scored(20, 12)
    axes = detection_curve(scores, defective, 0.45).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")
    curve, _, mark = axes.lines
    points = {tuple(point) for point in curve.get_xydata().round(9)}
    expected = {
        tuple(np.round([rates["false_alarm_rate"], rates["miss_rate"]], 9))
        for rates in (alarm_rates(scores, defective, t) for t in [*scores, np.inf])
    }
    assert points == expected
    rates = alarm_rates(scores, defective, 0.45)
    assert mark.get_xydata().tolist() == [[rates["false_alarm_rate"], rates["miss_rate"]]]
    assert "chosen threshold 0.45" in mark.get_label()


def test_many_images_have_log_axes_that_end_at_half_an_image_called_none():
    scores, defective = scored(100, 200)
    figure = detection_curve(scores, defective, 2.0)
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    curve, _, mark = axes.lines
    assert curve.get_xdata().min() == 0.5 / 100
    assert curve.get_ydata().min() == 0.5 / 200
    assert mark.get_xydata().tolist() == [[0.005, 1.0]]  # no alarm at all
    figure.draw_without_rendering()
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert ticks[:3] == ["none", "1 %", "2 %"]


def test_only_the_axis_with_enough_images_is_logarithmic():
    axes = detection_curve(*scored(100, 12)).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert len(axes.lines) == 2  # no threshold was given


def test_one_kind_of_images_has_no_curve():
    with pytest.raises(ValueError, match="images are of one kind"):
        detection_curve(np.arange(3.0), np.ones(3, bool))
