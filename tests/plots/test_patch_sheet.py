import numpy as np
import pytest
from PIL import Image

from tocsin.errors import ConfigError
from tocsin.plots.patch_sheet import patch_sheet
from tocsin.plots.save import DPI, save

PATCH = np.random.default_rng(0).random((6, 6, 3))
PAGE = np.array([21.0, 29.7])


def places(figure):
    """Left, bottom, right and top of each copy in centimetres."""
    return np.array([axes.get_position().extents for axes in figure.axes]) * np.tile(PAGE, 2)


@pytest.mark.parametrize(("size", "copies"), [(18.0, 1), (9.0, 2), (8.0, 4), (5.0, 12), (3.0, 24)])
def test_as_many_copies_as_fit_have_their_size_and_keep_apart(size, copies):
    figure = patch_sheet(PATCH, size_cm=size)
    assert figure.get_size_inches() * 2.54 == pytest.approx(PAGE)
    found = places(figure)
    assert len(found) == copies
    np.testing.assert_allclose(found[:, 2:] - found[:, :2], size)
    assert found[:, :2].min() > 1.4  # margin and marks
    assert (found[:, 2:] < PAGE - 1.4).all()
    assert found[:, 1].min() > 2.8  # above the ruler
    for i, one in enumerate(found):
        for other in found[:i]:
            apart = np.maximum(one[:2] - other[2:], other[:2] - one[2:]).max()
            assert apart > 1.1
    for axes in figure.axes:
        np.testing.assert_array_equal(axes.images[0].get_array(), PATCH)


def test_a_number_of_copies_can_be_chosen_and_stands_in_the_middle():
    found = places(patch_sheet(PATCH, size_cm=5, copies=1))
    assert len(found) == 1
    assert found[0, [0, 2]].mean() == pytest.approx(21 / 2)
    assert len(places(patch_sheet(PATCH, size_cm=5, copies=4))) == 4


def test_marks_stand_at_the_corners_and_never_on_a_copy():
    figure = patch_sheet(PATCH, size_cm=9)
    found = places(figure)
    lines = np.array([line.get_xydata() * PAGE for line in figure.artists])  # (L, 2, 2)
    marks = lines[lines[..., 1].min(1) > 2.6]  # above the ruler
    assert len(marks) == 8 * len(found)
    for mark in marks:
        corners = np.concatenate([found[:, [i, j]] for i in (0, 2) for j in (1, 3)])
        assert np.abs(mark[:, None] - corners).sum(-1).min() == pytest.approx(0.1)
        beyond = np.maximum(found[None, :, :2] - mark[:, None], mark[:, None] - found[None, :, 2:]).clip(0)
        assert np.hypot(*beyond.T).min() > 0.099  # of both ends from every copy


def test_the_ruler_measures_five_centimetres_and_says_so():
    figure = patch_sheet(PATCH, size_cm=9, name="patch of run 7")
    lines = np.array([line.get_xydata() * PAGE for line in figure.artists])
    ruler = lines[lines[..., 1].max(1) < 2.6]
    assert np.ptp(ruler[..., 0]) == pytest.approx(5)
    assert len(ruler) == 1 + 6
    (text,) = figure.texts
    assert "patch of run 7, 9 cm" in text.get_text()
    assert "the ruler must measure 5 cm" in text.get_text()
    figure.draw_without_rendering()
    assert text.get_window_extent().x1 < figure.bbox.x1


def test_a_picture_of_the_sheet_has_the_size_on_paper(tmp_path):
    with Image.open(save(patch_sheet(PATCH, size_cm=10, copies=1), tmp_path / "sheet.png")) as image:
        assert image.info["dpi"] == pytest.approx((DPI, DPI), rel=1e-3)
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[:2] == pytest.approx(PAGE[::-1] / 2.54 * DPI, abs=1)
    coloured = (np.ptp(pixels.astype(int), axis=2) > 30).nonzero()
    for side in coloured:
        assert (np.ptp(side) + 1) / DPI * 2.54 == pytest.approx(10, abs=0.05)


@pytest.mark.parametrize("size", [18.01, 0.0, -3.0, float("nan")])
def test_a_patch_that_does_not_fit_is_refused(size):
    with pytest.raises(ConfigError, match="does not fit on A4: the size must be above 0 and at most 18 cm"):
        patch_sheet(PATCH, size_cm=size)


def test_too_many_copies_and_no_picture_are_refused():
    with pytest.raises(ConfigError, match="5 copies of 8 cm do not fit on A4: choose 1 to 4"):
        patch_sheet(PATCH, size_cm=8, copies=5)
    with pytest.raises(ValueError, match=r"patch has shape \(3, 6\): give \(P, P, 3\)"):
        patch_sheet(PATCH[..., 0][:3], size_cm=8)
