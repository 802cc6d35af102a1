"""Intervals at 95 % for what load tests measure: a quantile, a ratio of two quantiles, a slope of memory."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
LEVEL = 0.95
BLOCK = 50  # requests that stay together when drawn again: those that waited for the same busy period
DRAWS = 1_000


class Estimate(NamedTuple):
    """A figure, the ends of its interval, and of how many values it is."""

    value: float
    low: float
    high: float
    n: int


def quantile(values: Floats, share: float) -> float:
    """The smallest of `values` [n] that at least `share` of them do not exceed."""
    rank = max(0, int(np.ceil(share * len(values) - 1e-9)) - 1)
    return float(np.partition(values, rank)[rank])


def quantile_estimate(values: Floats, share: float) -> Estimate:
    """A quantile and the interval between two order statistics that holds whatever the distribution (binomial).

    It takes values for independent. Infinite above where there are too few to tell. Raises ValueError for none.
    """
    n = len(values)
    if not n:
        raise ValueError("a quantile of nothing")
    below, above = stats.binom.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2], n, share).astype(int)
    ordered = np.sort(values)
    low = float(ordered[max(0, below - 1)])
    high = float(ordered[above]) if above < n else float("inf")
    return Estimate(quantile(values, share), low, high, n)


def ratio_estimate(one: Floats, other: Floats, share: float, seed: int = 0) -> Estimate:
    """The ratio of two quantiles over the same arrivals [n], by blocks of neighbours drawn again, the same for both.

    Neighbours wait for each other, so blocks are drawn, not requests (moving blocks, Künsch 1989).
    """
    n = len(one)
    assert n == len(other), "the same arrivals"
    length = max(1, min(BLOCK, n // 10))
    draws = np.random.default_rng(seed)
    ratios = []
    for _ in range(DRAWS):
        begins = draws.integers(0, n - length + 1, size=-(-n // length))
        places = (begins[:, None] + np.arange(length)).ravel()[:n]
        ratios.append(_ratio(quantile(one[places], share), quantile(other[places], share)))
    low, high = (quantile(np.array(ratios), tail) for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(_ratio(quantile(one, share), quantile(other, share)), low, high, n)


def _ratio(one: float, other: float) -> float:
    return one / other if np.isfinite(one) else float("inf")


def slope_estimate(times: Floats, values: Floats, segments: int = 10) -> Estimate:
    """The slope of `values` over `times` [n] by least squares, and an interval from the slopes of `segments` parts.

    Memory goes up in steps and wanders, so residuals are far from independent. Slopes of parts that follow one another
    are nearly so: one step makes one of them steep, a leak makes all of them rise (batch means, Student's t).
    """
    if len(times) < 3 * segments:
        raise ValueError(f"{len(times)} values are too few for {segments} segments")
    ends = np.linspace(0, len(times) - 1, segments + 1).astype(int)
    parts = [np.arange(first, last + 1) for first, last in itertools.pairwise(ends)]
    slopes = np.array([_slope(times[part], values[part]) for part in parts])
    half = float(stats.t.ppf((1 + LEVEL) / 2, segments - 1) * slopes.std(ddof=1) / np.sqrt(segments))
    return Estimate(_slope(times, values), float(slopes.mean()) - half, float(slopes.mean()) + half, len(times))


def _slope(times: Floats, values: Floats) -> float:
    centred = times - times.mean()
    return float((centred * (values - values.mean())).sum() / (centred**2).sum())
