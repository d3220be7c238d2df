import numpy as np
import pytest
from scipy.stats import binom

from tocsin.metrics.estimates import estimate, ratio_estimate


def test_the_ratio_of_single_images_has_the_interval_of_a_binomial():
    part = np.arange(200) < 60
    found = ratio_estimate(part, np.ones(200))
    assert found.value == 0.3
    assert [found.low, found.high] == pytest.approx(binom.ppf([0.025, 0.975], 200, 0.3) / 200, abs=0.01)


def test_images_are_drawn_whole():
    """Ten alike persons in each image tell no more than one."""
    one = ratio_estimate(np.arange(50) % 2, np.ones(50))
    ten = ratio_estimate(np.arange(50) % 2 * 10, np.full(50, 10))
    assert one == ten


def test_nothing_below_the_line_is_undefined_and_one_image_has_no_interval():
    assert np.isnan(ratio_estimate(np.zeros(3), np.zeros(3))).all()
    one = ratio_estimate(np.array([1]), np.array([4]))
    assert one.value == 0.25
    assert np.isnan(one[1:]).all()
    none = ratio_estimate(np.arange(3), np.ones(3), n=0)
    assert none.value == 1
    assert np.isnan(none[1:]).all()


def test_an_estimate_leaves_out_resamples_without_a_value():
    assert estimate(1.0, np.array([np.nan, 2.0, 2.0])) == (1, 2, 2)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"part has shape \(2,\) and whole \(3,\)"):
        ratio_estimate(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="give one number of each per image"):
        ratio_estimate(np.empty(0), np.empty(0))
