"""P-values against formulas of the textbook, and Holm's method against an example by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from tocsin.leaderboard.significance import holm, p_value


def test_the_same_seeds_are_compared_in_pairs() -> None:
    values, reference = {1: 0.60, 2: 0.55, 3: 0.65}, {3: 0.60, 2: 0.52, 1: 0.51}
    differences = np.array([0.09, 0.03, 0.05])  # by seed, not in the order of the mappings
    t = differences.mean() / (differences.std(ddof=1) / math.sqrt(3))
    assert p_value(values, reference) == pytest.approx(stats.t.sf(t, df=2))
    paired = stats.ttest_rel([0.60, 0.55, 0.65], [0.51, 0.52, 0.60], alternative="greater")
    assert p_value(values, reference) == pytest.approx(paired.pvalue)


def test_a_reference_that_no_seed_changes_is_a_constant() -> None:
    values, reference = {1: 0.60, 2: 0.55, 9: 0.65}, {1: 0.5, 2: 0.5, 3: 0.5}
    expected = stats.ttest_1samp([0.60, 0.55, 0.65], 0.5, alternative="greater").pvalue
    assert p_value(values, reference) == pytest.approx(expected)


def test_other_seeds_are_compared_by_welch() -> None:
    first, second = [0.60, 0.55, 0.65], [0.50, 0.40, 0.53, 0.47]
    a, b = np.var(first, ddof=1) / 3, np.var(second, ddof=1) / 4
    t = (np.mean(first) - np.mean(second)) / math.sqrt(a + b)
    df = (a + b) ** 2 / (a**2 / 2 + b**2 / 3)
    found = p_value(dict(zip((1, 2, 3), first, strict=True)), dict(zip((4, 5, 6, 7), second, strict=True)))
    assert found == pytest.approx(stats.t.sf(t, df=df))


def test_the_test_has_one_side() -> None:
    better, worse = {1: 0.60, 2: 0.55, 3: 0.65}, {1: 0.51, 2: 0.52, 3: 0.60}
    first, second = p_value(better, worse), p_value(worse, better)
    assert first is not None
    assert second is not None
    assert first < 0.1
    assert first + second == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "reference"),
    [
        ({1: 0.6, 2: 0.7}, {1: 0.5, 2: 0.5, 3: 0.5}),  # too few seeds
        ({1: 0.6, 2: 0.7, 3: 0.65}, {1: 0.5}),  # whether a seed changes the reference is not known
        ({1: 0.6, 2: 0.6, 3: 0.6}, {1: 0.5, 2: 0.5, 3: 0.5}),  # seeds change nothing
        ({1: 0.6, 2: 0.7, 3: 0.8}, {1: 0.5, 2: 0.6, 3: 0.7}),  # nor the difference
    ],
)
def test_nothing_is_claimed_where_seeds_cannot_tell(
    values: dict[int, float], reference: dict[int, float]
) -> None:
    assert p_value(values, reference) is None


def test_holm_by_hand() -> None:
    # Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 -> 0.06 as the one before, 0.5 * 1.
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
