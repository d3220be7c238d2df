"""Autocorrelation of a series, and the two lengths read from it: period and decorrelation length.

Source of `acf_period`: the window rule of TSB-AD (Liu and Paparrizos, NeurIPS 2024), `find_length_rank`.
"""

import numpy as np

PERIOD_POINTS = 20_000
PERIOD_MAX_LAG = 400
PERIOD_FALLBACK = 125


def autocorrelation(x: np.ndarray, max_lag: int) -> np.ndarray:
    """Biased sample autocorrelation, by FFT.

    Args:
        x: (N,) finite values in any unit.
        max_lag: Largest lag; lags beyond N - 1 are left out.

    Returns:
        (min(max_lag, N - 1) + 1,) float64 in [-1, 1], 1 at lag 0; all NaN for a constant series.
    """
    x = np.asarray(x, dtype=np.float64)
    n = len(x)
    centred = x - x.mean()
    n_lags = min(max_lag, n - 1) + 1
    if not np.ptp(x) > 0:
        return np.full(n_lags, np.nan)
    size = 1 << (2 * n - 1).bit_length()  # zero padding: lags do not wrap around
    spectrum = np.fft.rfft(centred, size)
    covariance = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, size)[:n_lags]
    return np.asarray(covariance / covariance[0])


def acf_period(x: np.ndarray) -> int:
    """Period of a channel by the rule of the TSB-AD benchmark, for use as the VUS buffer.

    The strongest local maximum of the autocorrelation of the first 20 000 points over lags 3 to 400. The
    benchmark tests the position counted from lag 3 against 3 to 300, so the period lies in 6 to 303.

    Args:
        x: (N,) finite values of one channel.

    Returns:
        The period in steps; 125 if there is no local maximum or the strongest one is out of range.
    """
    correlation = autocorrelation(np.asarray(x)[:PERIOD_POINTS], PERIOD_MAX_LAG)[3:]
    inner = correlation[1:-1]
    peaks = np.flatnonzero((inner > correlation[:-2]) & (inner > correlation[2:])) + 1
    if len(peaks) == 0:
        return PERIOD_FALLBACK
    strongest = int(peaks[np.argmax(correlation[peaks])])
    return strongest + 3 if 3 <= strongest <= 300 else PERIOD_FALLBACK


def decorrelation_length(x: np.ndarray) -> int:
    """First lag at which the autocorrelation has fallen below 1/e.

    Args:
        x: (N,) finite values in any unit, in time order.

    Returns:
        A lag in 1 to N; 1 for white noise and for a constant series, N if it never falls below.
    """
    correlation = autocorrelation(x, len(x) - 1)
    if np.isnan(correlation[0]):
        return 1
    below = np.flatnonzero(correlation < np.exp(-1))
    return int(below[0]) if len(below) else len(correlation)
