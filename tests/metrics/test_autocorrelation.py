import numpy as np
import pytest

from tocsin.metrics.autocorrelation import acf_period, autocorrelation, decorrelation_length


def test_autocorrelation_equals_its_definition():
    x = np.random.default_rng(0).normal(size=200).cumsum() + 50
    centred = x - x.mean()
    expected = [np.sum(centred[: 200 - k] * centred[k:]) / np.sum(centred**2) for k in range(31)]
    np.testing.assert_allclose(autocorrelation(x, 30), expected, atol=1e-12)
    assert len(autocorrelation(x[:10], 30)) == 10


@pytest.mark.parametrize("period", [10, 47, 300])
def test_period_of_a_noisy_sine(period):
    t = np.arange(6000)
    x = np.sin(2 * np.pi * t / period) + 0.1 * np.random.default_rng(1).normal(size=6000)
    assert acf_period(x) == pytest.approx(period, abs=1)


def test_period_reads_the_first_20_000_points():
    t = np.arange(20_000)
    x = np.concatenate([np.sin(2 * np.pi * t / 50), 100 * np.sin(2 * np.pi * t / 80)])
    assert acf_period(x) == 50


@pytest.mark.parametrize(
    "x",
    [np.ones(1000), np.arange(1000.0), np.sin(2 * np.pi * np.arange(9000) / 350), np.arange(3.0)],
    ids=["constant", "trend", "too_long", "too_short"],
)
def test_no_period_in_range_falls_back_to_125(x):
    assert acf_period(x) == 125


def test_decorrelation_length():
    rng = np.random.default_rng(2)
    assert decorrelation_length(rng.normal(size=5000)) == 1
    assert decorrelation_length(np.ones(100)) == 1
    # A moving average over 50 points has the correlation 1 - k / 50, which falls below 1/e at k = 32.
    smooth = np.convolve(rng.normal(size=200_000), np.ones(50), mode="valid")
    assert decorrelation_length(smooth) == pytest.approx(32, abs=2)
