"""Which jobs of a quick stage deserve a full run: the best of all, and the best of each value of each key.

The best of all alone would be many neighbours of one winner, and would never tell how the other values do when
they are given time: a quick run misjudges what learns slowly. (Successive halving, Jamieson and Talwalkar, AISTATS
2016, promotes by rank alone; the best of each value are what is added here.)
"""

import math
from collections.abc import Mapping, Sequence

ORDINALS = {1: "best", 2: "2nd best", 3: "3rd best"}


def ranking(qualities: Sequence[float], mode: str) -> list[int]:
    """Places of the finite qualities, the best first; of equals the one that stands first.

    Args:
        qualities: One for each job; NaN = it has none.
        mode: `min` or `max`.
    """
    sign = -1.0 if mode == "max" else 1.0
    finite = [index for index, quality in enumerate(qualities) if math.isfinite(quality)]
    return sorted(finite, key=lambda index: (sign * qualities[index], index))


def promote(
    qualities: Sequence[float],
    settings: Sequence[Mapping[str, str]],
    *,
    overall: int,
    per_value: int,
    mode: str,
    limit: int | None = None,
) -> dict[int, list[str]]:
    """Choose jobs, each with its reasons.

    Args:
        qualities: One for each job; NaN = it has none, and is never promoted.
        settings: Value of each swept key, for each job.
        overall: The best so many of all.
        per_value: The best so many of each value of each key.
        mode: `min` or `max`.
        limit: Most jobs; the best of all come first, then the best of each value, then the second best. None = all.

    Returns:
        Reasons such as `overall 3` or `best of model.d_model=64`, by the place of the job, in order of places.
    """
    order = ranking(qualities, mode)
    wanted = [(index, f"overall {rank}") for rank, index in enumerate(order[:overall], start=1)]
    of_value: dict[tuple[str, str], list[int]] = {}
    for index in order:
        for pair in settings[index].items():
            of_value.setdefault(pair, []).append(index)
    for rank in range(1, per_value + 1):
        for (key, value), indices in sorted(of_value.items()):
            if rank <= len(indices):
                wanted.append((indices[rank - 1], f"{_ordinal(rank)} of {key}={value}"))
    chosen: dict[int, list[str]] = {}
    for index, reason in wanted:
        if index in chosen or limit is None or len(chosen) < limit:
            chosen.setdefault(index, []).append(reason)
    return dict(sorted(chosen.items()))


def _ordinal(rank: int) -> str:
    return ORDINALS.get(rank, f"{rank}th best")
