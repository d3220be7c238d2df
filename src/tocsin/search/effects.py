"""What a stage says about the keys of the grid: how much each explains, and whether quick foretells full."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau, spearmanr


class Agreement(NamedTuple):
    """How far two orders of the same jobs agree.

    Attributes:
        kendall: Kendall's tau-b, in [-1, 1]; NaN where it is undefined.
        spearman: Spearman's rank correlation, in [-1, 1]; NaN where it is undefined.
        n: Jobs compared.
    """

    kendall: float
    spearman: float
    n: int


def influence(settings: Sequence[Mapping[str, str]], qualities: Sequence[float]) -> dict[str, float]:
    """Share of the variance of the qualities that the values of each key explain alone (eta squared).

    Args:
        settings: Value of each swept key, for each job.
        qualities: One for each job; those that are not finite are left out.

    Returns:
        A share in [0, 1] for each key, the largest first; 0 where qualities do not vary.
    """
    finite = [index for index, quality in enumerate(qualities) if math.isfinite(quality)]
    values = np.array([qualities[index] for index in finite], dtype=np.float64)
    keys = list(dict.fromkeys(key for setting in settings for key in setting))
    total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0
    shares = {}
    for key in keys:
        groups = np.array([settings[index][key] for index in finite])
        between = sum(
            float((groups == group).sum()) * float(values[groups == group].mean() - values.mean()) ** 2
            for group in np.unique(groups)
        )
        shares[key] = between / total if total > 0 else 0.0
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def agreement(first: Sequence[float], second: Sequence[float]) -> Agreement:
    """Rank correlations of two qualities of the same jobs, pairs without both left out.

    Args:
        first: N numbers.
        second: N numbers.
    """
    pairs = np.array([pair for pair in zip(first, second, strict=True) if np.isfinite(pair).all()])
    if len(pairs) < 2 or np.ptp(pairs[:, 0]) == 0 or np.ptp(pairs[:, 1]) == 0:
        return Agreement(math.nan, math.nan, len(pairs))
    tau, rho = kendalltau(pairs[:, 0], pairs[:, 1]), spearmanr(pairs[:, 0], pairs[:, 1])
    return Agreement(float(tau.statistic), float(rho.statistic), len(pairs))


def best_so_far(quick: Sequence[float], full: Sequence[float], mode: str) -> np.ndarray:
    """What promotion by the quick order alone would have found.

    Args:
        quick: N qualities in quick.
        full: N qualities in full; NaN = failed.
        mode: `min` or `max`.

    Returns:
        (N,) the best quality in full among the first 1, 2, ... N jobs of the quick order; NaN until there is one.
    """
    sign = -1.0 if mode == "max" else 1.0
    order = np.argsort(sign * np.asarray(quick, dtype=np.float64), kind="stable")
    return np.asarray(sign * np.fmin.accumulate(sign * np.asarray(full, dtype=np.float64)[order]))
