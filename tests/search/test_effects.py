"""How much each key explains, and whether quick foretells full."""

import itertools
import math

import numpy as np
import pytest

from tocsin.search.effects import agreement, best_so_far, influence

NAN = math.nan


def test_share_of_the_variance_that_a_key_explains() -> None:
    settings = [{"a": a, "b": b} for a, b in itertools.product("01", "012")]
    qualities = [10 * int(s["a"]) + int(s["b"]) for s in settings]
    shares = influence(settings, qualities)
    # Of the sum of squares, 6 * 25 = 150 belong to a and 2 * 2 = 4 to b.
    assert list(shares) == ["a", "b"]
    assert shares["a"] == pytest.approx(150 / 154)
    assert shares["b"] == pytest.approx(4 / 154)


def test_failed_jobs_explain_nothing_and_equal_ones_neither() -> None:
    settings = [{"a": "0"}, {"a": "1"}, {"a": "1"}, {"a": "0"}]
    assert influence(settings, [1.0, 2.0, NAN, math.inf]) == {"a": 1.0}
    assert influence(settings, [1.0] * 4) == {"a": 0.0}
    assert influence(settings, [NAN] * 4) == {"a": 0.0}


def test_rank_correlations_leave_failed_jobs_out() -> None:
    found = agreement([1.0, 2.0, 3.0, 4.0, 9.0], [1.0, 3.0, 2.0, 4.0, NAN])
    assert found.n == 4
    assert found.kendall == pytest.approx(4 / 6)  # five pairs agree, one does not
    assert found.spearman == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert math.isnan(agreement([1.0], [1.0]).kendall)
    assert math.isnan(agreement([1.0, 1.0], [1.0, 2.0]).spearman)


def test_what_the_quick_order_alone_would_have_found() -> None:
    np.testing.assert_array_equal(best_so_far([3.0, 1.0, 2.0], [0.1, 0.5, NAN], "min"), [0.5, 0.5, 0.1])
    np.testing.assert_array_equal(best_so_far([3.0, 1.0, 2.0], [0.1, 0.5, NAN], "max"), [0.1, 0.1, 0.5])
    np.testing.assert_array_equal(best_so_far([1.0, 2.0], [NAN, 0.5], "min"), [NAN, 0.5])
