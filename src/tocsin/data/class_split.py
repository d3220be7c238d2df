"""Splits of classified images: every class in its share, every group on one side.

Source: image specification, section 6.1. Published sets hold copies of one part, turned and lit anew; where they lie
on both sides of a split, a test measures memory. So groups are dealt out whole, the largest first, each to the split
that lacks most of it.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tocsin.errors import DataError

SPLITS = ("train", "val", "test")


def deal_groups(
    classes: Sequence[str], groups: np.ndarray, shares: tuple[float, float, float], *, seed: int
) -> np.ndarray:
    """Deal images into splits, stratified by class, whole groups at a time.

    Args:
        classes: N names.
        groups: (N,) names or numbers; images of one group stay together.
        shares: Of train, validation and test; their sum is 1.
        seed: The same one deals the same.

    Returns:
        (N,) int64, index into `SPLITS`.

    Raises:
        DataError: A class has too few groups to be in every split.
    """
    names, class_of = np.unique(np.asarray(classes), return_inverse=True)
    _, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((group_of.max() + 1, len(names)), dtype=np.int64)
    np.add.at(counts, (group_of, class_of), 1)  # (G, K) images
    for name, images, own in zip(names, counts.sum(0).tolist(), (counts > 0).sum(0).tolist(), strict=True):
        if own < len(SPLITS):
            held = f"{images} image{'s' * (images > 1)}"
            held += f" in {own} group{'s' * (own > 1)}" if own < images else ""
            raise DataError(
                f"class '{name}' has {held}; {len(SPLITS)} are needed, one to learn from, one to validate and one to "
                "test on: add images, leave the class out, or group them less strictly (data.group_by)"
            )
    lacking = _wanted(counts.sum(0), shares)  # (3, K) images
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    waiting = (counts > 0).sum(0)  # groups of each class that are yet to come
    dealt = np.zeros((len(SPLITS), len(names)), dtype=bool)
    split_of = np.empty(len(counts), dtype=np.int64)
    for group in order:
        main = counts[group].argmax()
        empty = ~dealt[:, main]
        need = lacking @ counts[group]
        if waiting[main] <= empty.sum():  # the last groups of a class go where it has none yet
            need = np.where(empty, need, -np.inf)
        chosen = int(need.argmax())
        split_of[group] = chosen
        lacking[chosen] -= counts[group]
        dealt[chosen] |= counts[group] > 0
        waiting -= counts[group] > 0
    return split_of[group_of]


def _wanted(n_images: np.ndarray, shares: tuple[float, float, float]) -> np.ndarray:
    """(3, K) images of each class that each split shall have: its share of (K,) images, but one at least."""
    held_out = np.maximum(1, np.round(np.outer(shares[1:], n_images)))  # (2, K)
    wanted: np.ndarray = np.concatenate([(n_images - held_out.sum(0))[None], held_out])
    return wanted


def stratified_sample(classes: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """(n,) sorted places of a sample of (N,) classes, in which every class has its share to within one item."""
    shuffled = np.random.default_rng(seed).permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    evenly = (np.arange(n) * len(classes) + len(classes) // 2) // n
    return np.sort(by_class[evenly])


def joined_groups(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N,) int64 groups of what (N,) groups by one criterion or by another hold together."""
    a, b = (np.unique(groups, return_inverse=True)[1] for groups in (one, other))
    n_nodes = a.max() + b.max() + 2  # a node for each group; an image connects two of them
    graph = coo_matrix((np.ones(len(a)), (a, a.max() + 1 + b)), shape=(n_nodes, n_nodes))
    joined: np.ndarray = connected_components(graph, directed=False)[1][a].astype(np.int64)
    return joined
