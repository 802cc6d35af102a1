"""Whether two results differ by more than chance: exact tests on the same photos, and tests over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LEVEL = 0.05  # below it, a difference is told
Z95 = 1.959964  # quantile of the normal distribution that leaves a fortieth above it


def mcnemar(first_only: int, second_only: int) -> float:
    """Two-sided exact p-value for equal accuracy of two answerers of the same photos (McNemar 1947).

    `first_only` photos were answered rightly by the first alone, `second_only` by the second alone; if both were
    equally good, each such photo would be a fair coin. 1.0 where there is none.
    """
    from scipy.stats import binom

    n = first_only + second_only
    if not n:
        return 1.0
    return min(1.0, 2.0 * float(binom.cdf(min(first_only, second_only), n, 0.5)))


def paired_interval95(first_only: int, second_only: int, n: int) -> tuple[float, float]:
    """The 95 % interval of how much better the second answerer of the same `n` photos is than the first, as fractions.

    Wald's for paired proportions after one photo was added to each kind of disagreement (Bonett and Price 2012,
    doi 10.3102/1076998611411915): it is honest where few photos are answered differently, and no point without any.
    """
    first, second = (first_only + 1) / (n + 2), (second_only + 1) / (n + 2)
    difference = second - first
    reach = Z95 * ((first + second - difference**2) / (n + 2)) ** 0.5
    return max(-1.0, difference - reach), min(1.0, difference + reach)


def welch(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p-value for equal means of two groups with their own spreads (Welch 1947), two values each or more.

    1.0 where neither group has any spread: nothing then says how much of the difference is chance.
    """
    from scipy.stats import ttest_ind

    if np.ptp(first) == 0 and np.ptp(second) == 0:
        return 1.0
    return float(ttest_ind(first, second, equal_var=False).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being several (Holm 1979): compare each with the level as if it were alone."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.zeros(len(p_values))
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted.tolist()


def discordant(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """How many photos the first alone, and the second alone, answered rightly; both shape [n]."""
    return int((first & ~second).sum()), int((second & ~first).sum())


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None for the latter of a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
