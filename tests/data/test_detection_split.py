"""Splits of images with boxes: shares of both kinds, and none without a target."""

from pathlib import Path

import numpy as np
import pytest

from tocsin.data.detection_data import DetectionSet
from tocsin.data.detection_split import by_name, deal


def test_both_kinds_are_dealt_in_their_shares() -> None:
    worn = np.arange(120) % 4 > 0
    dealt = deal(worn, test=1 / 3, val=0.15, seed=0)
    for kind, n in ((True, 90), (False, 30)):
        counts = np.bincount(dealt[worn == kind], minlength=3)
        assert counts[2] == n // 3
        assert counts[1] == pytest.approx(0.15 * (n - n // 3), abs=0.5)


def test_seed_decides() -> None:
    worn = np.ones(60, bool)
    one, same, other = (deal(worn, test=0.3, val=0.2, seed=seed) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).sum() > 10


@pytest.mark.parametrize(("test", "val"), [(0.01, 0.01), (0.99, 0.99), (1 / 3, 0.15)])
@pytest.mark.parametrize("n", [3, 4, 7])
def test_three_with_a_target_give_one_to_every_split(n: int, test: float, val: float) -> None:
    worn = np.array([True] * n + [False] * 5)
    dealt = deal(worn, test=test, val=val, seed=0)
    assert (np.bincount(dealt[worn], minlength=3) >= 1).all()


def images(*names: str) -> DetectionSet:
    n = len(names)
    return DetectionSet(
        paths=tuple(map(Path, names)),
        sizes=np.full((n, 2), 9),
        boxes=np.zeros((n, 4), np.float32),
        owner=np.arange(n),
        crowd=np.zeros(n, bool),
    )


def test_order_of_storage_changes_nothing() -> None:
    letters = list("dacbfeg")
    one = by_name(images(*letters), limit=4, seed=3)
    other = by_name(images(*reversed(letters)), limit=4, seed=3)
    assert one.paths == other.paths
    assert len(one) == 4
    assert sorted(one.paths) == list(one.paths)
    assert set(by_name(images(*letters), limit=4, seed=4).paths) != set(one.paths)


def test_no_limit_or_a_large_one_keeps_all() -> None:
    for limit in (None, 3, 9):
        assert [path.name for path in by_name(images("b", "a", "c"), limit=limit, seed=0).paths] == [
            "a",
            "b",
            "c",
        ]
