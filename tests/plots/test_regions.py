import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from tocsin.plots.regions import MANY_REGIONS, draw_regions, regions


def mask_of(text):
    return np.array([character == "#" for character in text])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("....", []), ("####", [(0, 4)]), ("#..##.#", [(0, 1), (3, 5), (6, 7)]), (".#", [(1, 2)]), ("", [])],
)
def test_regions_are_the_runs(text, expected):
    np.testing.assert_array_equal(regions(mask_of(text)), np.reshape(expected, (-1, 2)))


def test_two_points_make_an_area_and_one_point_a_line():
    axes = Figure().subplots()
    drawn = draw_regions(axes, mask_of("##..#...####.#"), np.arange(14.0), "#E69F00")
    assert drawn == (2, 2)
    assert [(area.get_x(), area.get_width()) for area in axes.patches] == [(-0.5, 2.0), (7.5, 4.0)]
    assert [line.get_xdata()[0] for line in axes.lines] == [4, 13]
    assert all(0 < area.get_facecolor()[3] < 0.5 for area in axes.patches)
    assert axes.patches[0].get_facecolor()[:3] == to_rgba("#E69F00")[:3]


def test_many_regions_become_one_collection_at_the_same_places():
    mask = np.tile(mask_of("##..#..."), MANY_REGIONS)
    axes = Figure().subplots()
    axes.set_ylim(-5, 7)
    assert draw_regions(axes, mask, np.arange(len(mask)) * 10.0, "k") == (MANY_REGIONS, MANY_REGIONS)
    assert not axes.patches
    assert not axes.lines
    areas, lines = axes.collections
    np.testing.assert_allclose(areas.get_paths()[1].get_extents().intervalx, [75, 95])
    np.testing.assert_allclose(areas.get_paths()[1].get_extents().intervaly, [0, 1])
    np.testing.assert_allclose(lines.get_segments()[1][:, 0], [120, 120])
    figure_y = [artist.get_transform().transform((75, 1))[1] for artist in (areas, lines)]
    assert figure_y == [axes.bbox.y1] * 2
