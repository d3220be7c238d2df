import numpy as np
import pytest

from tocsin.plots.heat import CONTOUR, displayable, heat_limits, heat_palette, image_overlay, outline


@pytest.fixture
def image():
    return np.random.default_rng(0).random((20, 30, 3)).astype(np.float32)


def test_palette_runs_from_clear_to_dark_without_a_jump():
    palette = heat_palette()
    assert palette.shape == (256, 4)
    assert palette[0, 3] == 0
    assert (np.diff(palette[:, 3]) > 0).all()
    brightness = palette[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness) < 0).all()  # so that it can be read in grey too
    assert np.abs(np.diff(palette, axis=0)).max() < 0.02


def test_a_low_score_leaves_the_picture_and_a_high_one_hides_it(image):
    scores = np.zeros((20, 30))
    scores[3:5, 7:9] = 2.0
    scores[10, 10] = 900.0  # above the scale
    scores[11, 11] = np.nan
    drawn = image_overlay(image, scores, (0.5, 2.0))
    assert drawn.dtype == np.uint8
    plain = np.rint(255 * displayable(image))
    hot = np.zeros((20, 30), bool)
    hot[3:5, 7:9] = hot[10, 10] = True
    np.testing.assert_array_equal(drawn[~hot], plain[~hot])
    colour, opacity = 255 * heat_palette()[-1, :3], heat_palette()[-1, 3]
    np.testing.assert_allclose(drawn[hot], opacity * colour + (1 - opacity) * plain[hot], atol=1)


def test_one_scale_gives_equal_scores_equal_colours_in_any_picture():
    grey = np.full((4, 4, 3), 0.5)
    weak, strong = np.zeros((4, 4)), np.zeros((4, 4))
    weak[1, 1] = strong[1, 1] = 0.4
    strong[2, 2] = 1.0
    first, second = (image_overlay(grey, scores, (0, 1)) for scores in (weak, strong))
    np.testing.assert_array_equal(first[1, 1], second[1, 1])
    assert not np.array_equal(second[1, 1], second[2, 2])


def test_the_outline_of_a_mask_is_drawn_and_nothing_inside(image):
    mask = np.zeros((20, 30), bool)
    mask[5:10, 10:20] = True
    drawn = image_overlay(image, np.zeros((20, 30)), (0, 1), mask)
    assert (drawn[5, 10:20] == CONTOUR).all()
    assert (drawn[5:10, 19] == CONTOUR).all()
    np.testing.assert_array_equal(drawn[6:9, 11:19], np.rint(255 * displayable(image))[6:9, 11:19])


def test_outline_of_a_mask_at_the_border_and_of_one_pixel():
    np.testing.assert_array_equal(outline(np.ones((3, 4), bool))[1], [True, False, False, True])
    single = np.zeros((3, 3), bool)
    single[1, 1] = True
    np.testing.assert_array_equal(outline(single), single)


def test_limits_leave_half_of_the_pixels_clear_and_do_not_follow_one_outlier():
    maps = np.random.default_rng(0).normal(size=(4, 100, 100))
    maps[0, 0, 0] = 1e9
    maps[1, 1, 1] = np.nan
    low, high = heat_limits(maps)
    assert low == pytest.approx(0, abs=0.05)
    assert high == pytest.approx(2.75, abs=0.2)  # the normal quantile of 0.997


def test_limits_of_flat_maps_with_a_tiny_defect_show_it():
    maps = np.zeros((3, 64, 64))
    maps[1, 5, 5] = 7.0
    assert heat_limits(maps) == (0, 7)
    assert heat_limits(maps[:1]) == (0, 0)
    with pytest.raises(ValueError, match="none of the scores of maps of shape"):
        heat_limits(np.full((1, 2, 2), np.nan))


def test_constant_maps_leave_the_picture(image):
    drawn = image_overlay(image, np.full((20, 30), 3.0), (3.0, 3.0))
    np.testing.assert_array_equal(drawn, np.rint(255 * displayable(image)))


def test_pictures_of_any_range_use_the_full_contrast_alike():
    ramp = np.linspace(0, 1, 3000).reshape(10, 100, 3)
    shown = displayable(ramp)
    for other in (ramp * 0.3, ramp * 40 - 7):
        np.testing.assert_allclose(displayable(other), shown, atol=1e-12)
    assert (shown.min(), shown.max()) == (0, 1)
    outlier = ramp.copy()
    outlier[0, 0, 0] = 1e6
    assert displayable(outlier)[5].mean() == pytest.approx(0.55, abs=0.02)


def test_flat_pictures_keep_their_brightness():
    np.testing.assert_array_equal(displayable(np.full((2, 2, 3), 0.25)), 0.25)
    assert np.isfinite(displayable(np.full((2, 2, 3), 7.0))).all()


def test_wrong_arrays_are_named(image):
    with pytest.raises(ValueError, match=r"image has shape \(20, 30, 3\) and score_map \(20, 31\)"):
        image_overlay(image, np.zeros((20, 31)), (0, 1))
    with pytest.raises(ValueError, match=r"mask has shape \(3, 3\), but score_map \(20, 30\)"):
        image_overlay(image, np.zeros((20, 30)), (0, 1), np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"limits=\(2, 1\) do not rise"):
        image_overlay(image, np.zeros((20, 30)), (2, 1))
