import numpy as np
import pytest
from matplotlib.colors import to_hex

from tocsin.plots.reconstruction import reconstruction
from tocsin.plots.style import INK, MASKED, STUDENT, TEACHER


@pytest.fixture
def window():
    x = np.random.default_rng(0).normal(size=(40, 6))
    teacher, student = x + 0.01, x - 0.01
    mask = np.zeros(40, bool)
    mask[5:10] = mask[20:30] = True
    return x, teacher, student, mask


def test_each_panel_has_three_lines_and_the_masked_patches(window):
    x, teacher, student, mask = window
    figure = reconstruction(x[:, :1], teacher[:, :1], student[:, :1], mask, ["a"])
    (axes,) = figure.axes
    lines = {to_hex(line.get_color()).upper(): line.get_ydata() for line in axes.lines}
    np.testing.assert_array_equal(lines[INK], x[:, 0])
    np.testing.assert_array_equal(lines[TEACHER], teacher[:, 0])
    np.testing.assert_array_equal(lines[STUDENT], student[:, 0])
    assert [(area.get_x(), area.get_width()) for area in axes.patches] == [(4.5, 5.0), (19.5, 10.0)]
    assert to_hex(axes.patches[0].get_facecolor()).upper() == MASKED
    assert axes.get_xlabel() == "step in the window"


def test_window_that_was_hidden_as_a_whole_is_not_shaded(window):
    x, teacher, student, mask = window
    figure = reconstruction(x, teacher, student, np.ones_like(mask))
    assert not figure.axes[0].patches
    assert figure.axes[0].get_title(loc="left") == "each step as rebuilt while hidden"
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["original", "teacher", "student"]


def test_the_worst_channels_are_shown_whatever_their_unit(window):
    x, teacher, student, mask = window
    student[:, 4] += 1
    teacher[:, 1] -= 1
    for array in (x, teacher, student):
        array[:, 0] *= 1000
    figure = reconstruction(x, teacher, student, mask, max_channels=2)
    assert [axes.get_ylabel() for axes in figure.axes] == ["channel 1", "channel 4"]


def test_true_areas_are_a_strip_that_covers_them(window):
    x, teacher, student, mask = window
    labels = np.arange(40) >= 38
    axes = reconstruction(x, teacher, student, mask, labels=labels).axes[0]
    box = axes.collections[0].get_paths()[0].get_extents()
    assert box.x0 <= 38
    assert box.x1 >= 39
    assert box.y0 > 0.9
    assert not reconstruction(x, teacher, student, mask).axes[0].collections


def test_shapes_that_do_not_fit_are_named(window):
    x, teacher, student, mask = window
    with pytest.raises(ValueError, match=r"student has shape \(39, 6\), but x has \(40, 6\)"):
        reconstruction(x, teacher, student[1:], mask)
    with pytest.raises(ValueError, match=r"mask has shape \(40, 6\)"):
        reconstruction(x, teacher, student, np.zeros((40, 6)))
    with pytest.raises(ValueError, match="2 channel names for 6 channels"):
        reconstruction(x, teacher, student, mask, ["a", "b"])
