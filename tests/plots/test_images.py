import numpy as np
import pytest
from matplotlib.colors import to_hex

from tocsin.plots.heat import displayable
from tocsin.plots.images import contact_sheet, overlays
from tocsin.plots.style import INK, THRESHOLD


def scored(H=20, W=24, N=4):
    rng = np.random.default_rng(0)
    images, maps = rng.random((N, H, W, 3)), rng.random((N, H, W))
    masks = [None] * N
    masks[0] = np.zeros((H, W), bool)
    masks[0][4:9, 6:12] = True
    return images, maps, masks, np.array([0.9, 0.2, 0.7, 0.1])[:N], np.array([True, True, False, False])[:N]


def cells_of(figure):
    return [axes for axes in figure.axes if axes.images]


def colour_bar(figure):
    (bar,) = (axes for axes in figure.axes if axes.get_ylabel() == "anomaly score of a pixel")
    return bar


def test_each_cell_has_the_picture_twice_and_the_map_over_the_second():
    images, maps, masks, scores, labels = scored()
    cells = cells_of(overlays(images, maps, masks, scores, labels, 0.5))
    assert len(cells) == 4
    shown = displayable(images)
    for index, axes in enumerate(cells):
        plain, below, heat = axes.images
        np.testing.assert_array_equal(plain.get_array(), shown[index])
        np.testing.assert_array_equal(below.get_array(), shown[index])
        np.testing.assert_array_equal(heat.get_array(), maps[index])
        assert heat.get_extent() == below.get_extent() != plain.get_extent()


def test_all_maps_and_the_colour_bar_have_one_scale():
    images, maps, masks, scores, labels = scored()
    maps[2] *= 5
    figure = overlays(images, maps, masks, scores, labels, 0.5, limits=(0.25, 3.0))
    assert {axes.images[2].get_clim() for axes in cells_of(figure)} == {(0.25, 3.0)}
    assert colour_bar(figure).get_ylim() == (0.25, 3.0)
    derived = {
        axes.images[2].get_clim() for axes in cells_of(overlays(images, maps, masks, scores, labels, 0.5))
    }
    assert len(derived) == 1


@pytest.mark.parametrize(("H", "W", "below"), [(20, 24, False), (32, 96, True), (96, 32, False)])
def test_a_wide_map_stands_below_its_picture_and_others_beside_it(H, W, below):
    images, maps, masks, scores, labels = scored(H, W)
    axes = cells_of(overlays(images, maps, masks, scores, labels, 0.5))[0]
    left, right, bottom, top = axes.images[2].get_extent()
    assert (right - left, bottom - top) == (W, H)
    assert (left, top > H) == (0, True) if below else (left > W, top) == (True, 0)
    assert axes.get_xlim() == (0, right)
    assert axes.get_ylim() == (bottom, 0)


@pytest.mark.parametrize(("H", "W"), [(20, 24), (32, 96)])
def test_the_outline_runs_around_the_pixels_of_the_mask_on_the_map(H, W):
    images, maps, masks, scores, labels = scored(H, W)
    first, *others = cells_of(overlays(images, maps, masks, scores, labels, 0.5))
    left, _, _, top = first.images[2].get_extent()
    box = first.collections[-1].get_paths()[0].get_extents()
    np.testing.assert_allclose(
        [box.x0 - left, box.x1 - left, box.y0 - top, box.y1 - top], [6, 12, 4, 9], atol=1e-6
    )
    assert not any(axes.collections for axes in others)


def test_the_outline_is_closed_at_the_border():
    images, maps, masks, scores, labels = scored()
    masks[0][:] = True
    axes = cells_of(overlays(images, maps, masks, scores, labels, 0.5))[0]
    box = axes.collections[-1].get_paths()[0].get_extents()
    assert (box.width, box.height) == pytest.approx((24, 20))


def test_the_verdict_is_written_and_red_where_it_is_wrong():
    images, maps, masks, scores, labels = scored()
    cells = cells_of(overlays(images, maps, masks, scores, labels, 0.5, ["a", "b", "c", "d"]))
    assert [axes.get_title(loc="left") for axes in cells] == [
        "found: 0.9 ≥ 0.5",
        "missed: 0.2 < 0.5",
        "false alarm: 0.7 ≥ 0.5",
        "no alarm: 0.1 < 0.5",
    ]
    colours = [to_hex(axes._left_title.get_color()).upper() for axes in cells]
    assert colours == [INK, THRESHOLD, THRESHOLD, INK]
    assert [axes.texts[0].get_text() for axes in cells] == ["a", "b", "c", "d"]


def test_without_labels_and_masks_nothing_is_claimed():
    images, maps, _, scores, _ = scored()
    figure = overlays(images, maps, [None] * 4, scores, None, 0.5)
    titles = [axes.get_title(loc="left").split(":")[0] for axes in cells_of(figure)]
    assert titles == ["alarm", "no alarm", "alarm", "no alarm"]
    assert not figure.legends


def test_the_end_of_a_long_path_stays():
    images, maps, masks, scores, labels = scored()
    titles = ["data/" * 30 + f"{i:06d}.tiff" for i in range(4)]
    shown = cells_of(overlays(images, maps, masks, scores, labels, 0.5, titles))[3].texts[0].get_text()
    assert shown.startswith("…")
    assert shown.endswith("data/000003.tiff")
    assert len(shown) < 50


def test_constant_maps_are_drawn():
    images, _, masks, scores, labels = scored()
    figure = overlays(images, np.full((4, 20, 24), 2.0), masks, scores, labels, 0.5)
    assert cells_of(figure)[0].images[2].get_clim() == (2.0, 3.0)


def test_contact_sheet_has_every_picture_and_outline():
    images, _, masks, _, _ = scored()
    figure = contact_sheet(images, ["good", "b", "c", "d"], masks)
    cells = cells_of(figure)
    assert [axes.get_title(loc="left") for axes in cells] == ["good", "b", "c", "d"]
    for axes, picture in zip(cells, displayable(images), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), picture)
        assert axes.get_xlim() == (-0.5, 23.5)
    box = cells[0].collections[-1].get_paths()[0].get_extents()
    np.testing.assert_allclose(
        box.extents, [5.5, 3.5, 11.5, 8.5], atol=1e-6
    )  # pixels have their centres at integers
    assert not cells[1].collections
    assert not contact_sheet(images).legends


@pytest.mark.parametrize("N", [1, 7])
@pytest.mark.parametrize("H", [20, 40, 60])
def test_pictures_keep_their_shape_and_fill_the_page(N, H):
    images = np.random.default_rng(0).random((N, H, 40, 3))
    figure = contact_sheet(images)
    figure.draw_without_rendering()
    boxes = [axes.get_window_extent() for axes in cells_of(figure)]
    assert len(boxes) == N
    assert [box.width / box.height for box in boxes] == pytest.approx([40 / H] * N, rel=0.01)
    assert N == 1 or max(box.x1 for box in boxes) - min(box.x0 for box in boxes) > 0.9 * figure.bbox.width
    assert all(not a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_wrong_arrays_are_named():
    images, maps, masks, scores, labels = scored()
    with pytest.raises(ValueError, match=r"maps has shape \(4, 20, 23\), but images \(4, 20, 24, 3\)"):
        overlays(images, maps[..., 1:], masks, scores, labels, 0.5)
    with pytest.raises(ValueError, match="3 scores for 4 images"):
        overlays(images, maps, masks, scores[1:], labels, 0.5)
    with pytest.raises(ValueError, match=r"mask 0 has shape \(2, 2\), but images are \(20, 24\)"):
        overlays(images, maps, [np.ones((2, 2), bool)] * 4, scores, labels, 0.5)
    with pytest.raises(ValueError, match=r"images has shape \(4, 20, 24\)"):
        contact_sheet(maps)
    with pytest.raises(ValueError, match="1 titles for 4 images"):
        contact_sheet(images, ["a"])
