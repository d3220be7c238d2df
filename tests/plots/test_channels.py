import numpy as np
import pytest

from tocsin.plots.channels import most_affected


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(5000, 6)) * [1, 10, 100, 1, 10, 1000]


def test_most_affected_finds_shift_flat_line_and_burst_whatever_the_unit(values):
    inside = np.zeros(5000, bool)
    inside[1000:1100] = True
    values[inside, 0] += 4
    values[inside, 3] = 0.1
    values[inside, 4] *= 5
    np.testing.assert_array_equal(most_affected(values, inside, 3), [0, 3, 4])


def test_most_affected_finds_a_spike_of_one_step(values):
    inside = np.zeros(5000, bool)
    inside[7] = True
    values[7, 1] = 90
    values[:50, 2] = np.nan
    np.testing.assert_array_equal(most_affected(values, inside, 1), [1])


@pytest.mark.parametrize("mask", [None, np.zeros(5000, bool), np.ones(5000, bool)])
def test_without_regions_the_variance_decides(values, mask):
    np.testing.assert_array_equal(most_affected(values, mask, 2), [2, 5])


def test_all_channels_keep_their_order_if_they_fit(values):
    np.testing.assert_array_equal(most_affected(values, None, 6), np.arange(6))
