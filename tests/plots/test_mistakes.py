import numpy as np
import pytest
from matplotlib.colors import to_hex

from tocsin.plots.heat import displayable
from tocsin.plots.mistakes import mistakes
from tocsin.plots.style import INK, THRESHOLD

IMAGES = np.random.default_rng(0).random((3, 16, 20, 3))
MAPS = np.random.default_rng(1).random((3, 4, 5)) * np.array([1, 10, 0])[:, None, None]
TRUE, PREDICTED, SHARES = ["ok", "crack", "ok"], ["crack", "crack", "stain"], np.array([0.987, 0.51, 0.6])


def cells_of(figure):
    return [axes for axes in figure.axes if axes.images]


def test_what_it_is_and_what_it_was_taken_for_is_written_in_red_where_they_differ():
    cells = cells_of(mistakes(IMAGES, None, TRUE, PREDICTED, SHARES, titles=["a.png", "b.png", "c.png"]))
    assert [[text.get_text() for text in axes.texts] for axes in cells] == [
        ["taken for crack, 98.7%", "is ok", "a.png"],
        ["found crack, 51.0%", "is crack", "b.png"],
        ["taken for stain, 60.0%", "is ok", "c.png"],
    ]
    assert [to_hex(axes.texts[0].get_color()).upper() for axes in cells] == [THRESHOLD, INK, THRESHOLD]
    for axes, picture in zip(cells, displayable(IMAGES), strict=True):
        (image,) = axes.images
        np.testing.assert_array_equal(image.get_array(), picture)


def test_coarse_maps_cover_the_second_picture_each_on_its_own_scale():
    figure = mistakes(IMAGES, MAPS, TRUE, PREDICTED, SHARES)
    for index, axes in enumerate(cells_of(figure)):
        plain, below, heat = axes.images
        np.testing.assert_array_equal(heat.get_array(), MAPS[index])
        assert heat.get_extent() == below.get_extent() != plain.get_extent()
        low, high = heat.get_clim()
        assert low == MAPS[index].min()
        assert high == (MAPS[index].max() or 1.0)  # a map of zeros stays clear
    assert "scale of its own" in figure.get_supxlabel()
    assert not mistakes(IMAGES, None, TRUE, PREDICTED, SHARES).get_supxlabel()


def test_lines_above_a_picture_do_not_cover_each_other_or_the_picture_above():
    figure = mistakes(IMAGES[[0] * 5], None, ["ok"] * 5, ["crack"] * 5, np.ones(5), ["x.png"] * 5)
    figure.draw_without_rendering()
    first, *_, last = cells_of(figure)
    boxes = [text.get_window_extent() for text in last.texts]
    assert boxes[0].y1 <= boxes[1].y0 + 1
    assert boxes[1].y1 <= boxes[2].y0 + 1
    assert boxes[2].y1 < first.get_window_extent().y0


def test_arrays_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"images has shape \(0, 4, 4, 3\)"):
        mistakes(np.zeros((0, 4, 4, 3)), None, [], [], np.zeros(0))
    with pytest.raises(ValueError, match="2 predicted_names for 3 images"):
        mistakes(IMAGES, None, TRUE, ["ok", "ok"], SHARES)
    with pytest.raises(ValueError, match="2 maps for 3 images"):
        mistakes(IMAGES, MAPS[:2], TRUE, PREDICTED, SHARES)
