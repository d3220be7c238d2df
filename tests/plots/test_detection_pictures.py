import numpy as np
import pytest
from matplotlib.colors import to_hex

from tocsin.metrics.box_matching import ImageBoxes
from tocsin.plots.detections import Seen, detections
from tocsin.plots.style import PREDICTED, THRESHOLD, TRUE

A, B, GROUP = [10, 10, 30, 50], [40, 10, 60, 50], [60, 60, 90, 90]
TRUTH = ImageBoxes([A, B, GROUP, B], [0, 0, 0, 1], None, [0, 0, 1, 0])
IMAGES = np.random.default_rng(0).random((2, 100, 100, 3))
CLEAN = ImageBoxes([A, B, [65, 65, 80, 80], B], [0, 0, 0, 1], [0.9, 0.8, 0.9, 0.7])
PATCHED = ImageBoxes([A, B, [70, 10, 95, 40]], [0, 0, 1], [0.2, 0.6, 0.5])


def drawn(**options):
    conditions = [Seen("clean", IMAGES, CLEAN), Seen("patch", IMAGES / 2, PATCHED)]
    return detections(conditions, TRUTH, **options).axes


def boxes(axes):
    """Corner, colour and dashes of each frame of a panel."""
    return {
        (patch.get_x(), patch.get_y(), to_hex(patch.get_edgecolor()).upper(), patch.get_linestyle())
        for patch in axes.patches
    }


def name_of(axes):
    (name,) = (text.get_text() for text in axes.texts if text.get_fontweight() == "bold")
    return name


def numbers(axes):
    return sorted(text.get_text() for text in axes.texts if text.get_fontweight() != "bold")


def test_persons_found_missed_and_false_are_told_apart():
    panels = drawn()
    assert boxes(panels[0]) == {(10, 10, PREDICTED, "-"), (40, 10, PREDICTED, "-")}  # nothing of the group
    assert boxes(panels[1]) == {(10, 10, THRESHOLD, "--"), (40, 10, PREDICTED, "-")}  # 0.2 is too little
    assert boxes(panels[2]) == {(40, 10, PREDICTED, "-")}
    assert boxes(panels[3]) == {(40, 10, THRESHOLD, "--"), (70, 10, TRUE, "-")}
    assert [name_of(axes) for axes in panels] == ["clean", "patch"] * 2
    assert [axes.get_title(loc="left") for axes in panels] == [
        "2 found, 0 missed",
        "1 found, 1 missed",
        "1 found, 0 missed",
        "0 found, 1 missed, 1 false",
    ]
    assert numbers(panels[0]) == ["0.80", "0.90"]
    assert numbers(panels[3]) == ["0.50"]
    assert boxes(drawn(confidence=0.2)[1]) == {(10, 10, PREDICTED, "-"), (40, 10, PREDICTED, "-")}


def test_pictures_are_drawn_as_they_are():
    panels = drawn()
    for axes, picture in zip(panels, [IMAGES[0], IMAGES[0] / 2, IMAGES[1], IMAGES[1] / 2], strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), picture)


def test_gray_bars_that_make_an_image_square_are_cut_off_in_all_conditions():
    wide, tall = IMAGES[0].copy(), IMAGES[1].copy()
    wide[:20] = wide[85:] = tall[:, :30] = 0.447
    pictures = np.stack([wide, tall])
    patched = pictures + 0.0
    patched[0, :20] = 0.2
    none = ImageBoxes(np.empty((0, 4)), np.empty(0), np.empty(0))
    panels = detections([Seen("clean", pictures, none), Seen("patch", patched, none)], TRUTH).axes
    assert [(*axes.get_xlim(), *axes.get_ylim()) for axes in panels] == [
        (-0.5, 99.5, 84.5, 19.5),
        (-0.5, 99.5, 84.5, 19.5),
        (29.5, 99.5, 99.5, -0.5),
        (29.5, 99.5, 99.5, -0.5),
    ]
    plain = detections([Seen("clean", np.full((1, 10, 12, 3), 0.5), none)], none).axes[0]
    assert (*plain.get_xlim(), *plain.get_ylim()) == (-0.5, 11.5, 9.5, -0.5)


def test_scenes_of_any_shape_fill_the_page_and_keep_their_shape():
    wide, tall = IMAGES[0].copy(), IMAGES[1].copy()
    wide[:25] = wide[75:] = tall[:, :10] = tall[:, 90:] = 0.447
    seen = [Seen(name, np.stack([wide, tall]), CLEAN) for name in ("clean", "gray", "patch")]
    figure = detections(seen, TRUTH)
    figure.draw_without_rendering()
    panels = [axes.get_window_extent() for axes in figure.axes]
    assert [box.height / box.width for box in panels] == pytest.approx([0.5] * 3 + [1.25] * 3, rel=0.02)
    for row in (panels[:3], panels[3:]):
        assert row[2].x1 - row[0].x0 > 0.9 * figure.bbox.width
    for axes in figure.axes:
        heading = axes._left_title.get_window_extent()
        above = next(text for text in axes.texts if text.get_fontweight() == "bold").get_window_extent()
        assert above.y0 >= heading.y1


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_legend_is_as_wide_as_the_page_at_most(count):
    figure = detections([Seen(f"condition {i}", IMAGES, CLEAN) for i in range(count)], TRUTH)
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert (box.x0 >= 0, box.x1 <= figure.bbox.width) == (True, True)


def test_small_boxes_have_no_number_and_one_at_the_top_has_it_inside():
    small, top = [50, 50, 54, 60], [0, 0, 20, 50]
    found = ImageBoxes([small, top], [0, 0], [0.9, 0.8])
    axes = detections([Seen("clean", IMAGES[:1], found)], ImageBoxes([small, top], [0, 0])).axes[0]
    assert numbers(axes) == ["0.80"]
    (number,) = (text for text in axes.texts if text.get_text() == "0.80")
    assert number.get_verticalalignment() == "top"
    assert len(axes.patches) == 2


def test_wrong_arrays_are_named():
    with pytest.raises(ValueError, match="no condition to draw"):
        detections([], TRUTH)
    with pytest.raises(ValueError, match=r"images has shape \(100, 100, 3\)"):
        detections([Seen("clean", IMAGES[0], CLEAN)], TRUTH)
    with pytest.raises(ValueError, match=r"'patch' has images \(1, 100, 100, 3\), but 'clean' has \(2, 100"):
        detections([Seen("clean", IMAGES, CLEAN), Seen("patch", IMAGES[:1], PATCHED)], TRUTH)
