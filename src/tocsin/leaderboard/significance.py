"""Whether an entry beats the best baseline by more than the luck of the seeds.

One-sided t-tests over seeds (Student 1908): of the differences where both have the same seeds, or where the baseline
is the same for all seeds; else Welch's (1947). The p-values of a table are adjusted by the method of Holm (1979), so
that the chance of even one wrong mark in it stays below the level. With three seeds only a clear lead is found.
"""

import math
from collections.abc import Mapping, Sequence

MIN_SEEDS = 3
LEVEL = 0.05


def p_value(values: Mapping[int, float], reference: Mapping[int, float]) -> float | None:
    """Chance of a lead as large as that, if the entry were no better than the reference.

    Args:
        values: Metric of the entry by seed, higher = better.
        reference: The same of what it is compared with.

    Returns:
        In [0, 1]; None where the seeds are too few, or change nothing, so that they tell nothing.
    """
    if len(values) < MIN_SEEDS or len(reference) < MIN_SEEDS:
        return None
    from scipy import stats  # takes half a second to import

    shared = sorted(values.keys() & reference.keys())
    if len(set(reference.values())) == 1:
        constant = next(iter(reference.values()))
        differences = [value - constant for value in values.values()]
    elif len(shared) >= MIN_SEEDS:
        differences = [values[seed] - reference[seed] for seed in shared]
    else:
        welch = stats.ttest_ind(
            list(values.values()), list(reference.values()), equal_var=False, alternative="greater"
        )
        return float(welch.pvalue)
    if max(differences) - min(differences) <= 1e-12 * max(map(abs, differences), default=0.0):
        return None
    found = float(stats.ttest_1samp(differences, 0.0, alternative="greater").pvalue)
    return None if math.isnan(found) else found


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the same order: the i-th smallest of n times n - i + 1, none below the one before."""
    n = len(p_values)
    adjusted = [0.0] * n
    largest = 0.0
    for place, index in enumerate(sorted(range(n), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (n - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted
