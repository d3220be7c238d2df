"""Which jobs of a quick stage are promoted, and why."""

import itertools
import math
import random

import pytest

from tocsin.search.promotion import promote, ranking

NAN = math.nan
GRID = [{"a": a, "b": b} for a, b in itertools.product("12", "xyz")]  # 1x 1y 1z 2x 2y 2z


def test_best_of_all_and_of_each_value() -> None:
    chosen = promote([3.0, 1.0, 5.0, 4.0, 2.0, 6.0], GRID, overall=2, per_value=1, mode="min")
    assert chosen == {
        0: ["best of b=x"],
        1: ["overall 1", "best of a=1", "best of b=y"],
        2: ["best of b=z"],
        4: ["overall 2", "best of a=2"],
    }


def test_highest_is_best_in_mode_max() -> None:
    chosen = promote([3.0, 1.0, 5.0, 4.0, 2.0, 6.0], GRID, overall=1, per_value=0, mode="max")
    assert chosen == {5: ["overall 1"]}


def test_equal_jobs_are_told_apart_by_their_number() -> None:
    assert ranking([1.0, 0.5, 0.5, NAN, 0.5], "min") == [1, 2, 4, 0]
    assert ranking([1.0, 0.5, 0.5, NAN, 0.5], "max") == [0, 1, 2, 4]
    assert list(promote([2.0] * 6, GRID, overall=2, per_value=0, mode="max")) == [0, 1]


def test_failed_jobs_are_never_promoted_nor_do_they_take_a_place() -> None:
    chosen = promote([NAN, NAN, NAN, 4.0, math.inf, 6.0], GRID, overall=5, per_value=2, mode="min")
    assert list(chosen) == [3, 5]
    assert chosen[5] == ["overall 2", "best of b=z", "2nd best of a=2"]
    assert promote([NAN] * 6, GRID, overall=5, per_value=2, mode="min") == {}


def test_limit_keeps_the_best_of_all_then_the_best_of_each_value() -> None:
    qualities = [3.0, 1.0, 5.0, 4.0, 2.0, 6.0]
    assert list(promote(qualities, GRID, overall=1, per_value=2, mode="min", limit=2)) == [1, 4]
    chosen = promote(qualities, GRID, overall=1, per_value=2, mode="min", limit=2)
    assert chosen[1] == [
        "overall 1",
        "best of a=1",
        "best of b=y",
    ]  # reasons of chosen jobs are still all there


def test_every_value_of_a_large_grid_has_its_best_in_full() -> None:
    """As in the study of the masked auto-encoder: 432 jobs, 50 to 70 of them promoted."""
    sizes = (3, 3, 3, 2, 2, 2, 2)
    settings = [
        {f"k{key}": str(value) for key, value in enumerate(values)}
        for values in itertools.product(*map(range, sizes))
    ]
    assert len(settings) == 432
    rng = random.Random(0)
    # One key decides almost everything, so that the best of all know one of its values only.
    qualities = [int(setting["k0"]) + 0.1 * rng.random() for setting in settings]
    chosen = promote(qualities, settings, overall=50, per_value=3, mode="min", limit=70)
    assert 50 <= len(chosen) <= 70
    for key, size in enumerate(sizes):
        for value in range(size):
            assert sum(settings[index][f"k{key}"] == str(value) for index in chosen) >= 3
    alone = promote(qualities, settings, overall=50, per_value=0, mode="min")
    assert {settings[index]["k0"] for index in alone} == {"0"}


@pytest.mark.parametrize("seed", range(3))
def test_promotion_takes_the_same_way_again(seed: int) -> None:
    rng = random.Random(seed)
    qualities = [rng.choice([0.1, 0.2, NAN]) for _ in GRID]
    first = promote(qualities, GRID, overall=2, per_value=1, mode="min", limit=4)
    assert first == promote(list(qualities), GRID, overall=2, per_value=1, mode="min", limit=4)
