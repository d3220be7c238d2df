"""Groups stay whole, classes keep their shares, and no class is missing from a split."""

import numpy as np
import pytest

from tocsin.data.class_split import deal_groups, joined_groups, stratified_sample
from tocsin.errors import DataError

SHARES = (0.7, 0.15, 0.15)


def shares_of(classes: list[str], dealt: np.ndarray) -> dict[str, list[float]]:
    names = np.array(classes)
    return {
        name: [float((dealt[names == name] == split).mean()) for split in range(3)] for name in set(classes)
    }


def test_classes_keep_their_shares() -> None:
    classes = ["ok"] * 415 + ["defective"] * 624
    dealt = deal_groups(classes, np.arange(1039), SHARES, seed=0)
    for shares in shares_of(classes, dealt).values():
        assert shares == pytest.approx(SHARES, abs=0.002)


def test_groups_stay_whole_and_shares_hold_nearly() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), rng.integers(1, 7, 200))
    classes = np.where(groups % 3 == 0, "crack", "ok").tolist()
    dealt = deal_groups(classes, groups, SHARES, seed=1)
    assert all(len(set(dealt[groups == group].tolist())) == 1 for group in range(200))
    for shares in shares_of(classes, dealt).values():
        assert shares == pytest.approx(SHARES, abs=0.01)


def test_group_of_two_classes_stays_whole() -> None:
    groups = np.concatenate([np.arange(30), np.arange(30)])
    classes = ["a"] * 30 + ["b"] * 30
    dealt = deal_groups(classes, groups, SHARES, seed=0)
    assert (dealt[:30] == dealt[30:]).all()
    assert set(dealt.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 5, 5), (20, 1, 1), (9, 3, 1, 1)])
def test_a_rare_class_is_in_every_split(sizes: tuple[int, ...]) -> None:
    groups = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), 100 + np.arange(60)])
    classes = ["rare"] * sum(sizes) + ["ok"] * 60
    for seed in range(5):
        dealt = deal_groups(classes, groups, SHARES, seed=seed)
        assert set(dealt[: sum(sizes)].tolist()) == {0, 1, 2}


def test_seed_decides() -> None:
    classes, groups = ["a"] * 50, np.arange(50)
    one, same, other = (deal_groups(classes, groups, SHARES, seed=seed) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


@pytest.mark.parametrize(
    ("n", "groups", "held"),
    [(1, [7], "1 image;"), (2, [7, 8], "2 images;"), (4, [7, 7, 8, 8], "4 images in 2 groups;")],
)
def test_class_that_cannot_be_split_is_named(n: int, groups: list[int], held: str) -> None:
    all_groups = np.array([*groups, *range(100, 120)])
    with pytest.raises(DataError, match=f"class 'dent' has {held} 3 are needed"):
        deal_groups(["dent"] * n + ["ok"] * 20, all_groups, SHARES, seed=0)


def test_sample_has_the_shares_of_the_whole() -> None:
    classes = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [600, 300, 100]))
    sample = stratified_sample(classes, 50, seed=0)
    assert np.bincount(classes[sample]).tolist() == [30, 15, 5]
    assert len(set(sample.tolist())) == 50
    assert (sample == stratified_sample(classes, 50, seed=0)).all()
    assert (sample != stratified_sample(classes, 50, seed=1)).any()
    assert stratified_sample(classes, 1000, seed=0).tolist() == list(range(1000))


def test_groups_by_two_criteria_are_joined() -> None:
    joined = joined_groups(np.array(["a", "a", "b", "c", "d"]), np.array([0, 1, 1, 2, 3]))
    assert joined[0] == joined[1] == joined[2]
    assert len(set(joined.tolist())) == 3
