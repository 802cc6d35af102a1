"""How alike gradients are along a line of inputs, and how that falls with depth. Arrays in, numbers out.

Balduzzi et al. 2017, "The shattered gradients problem" (arXiv 1702.08591).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Gradients = npt.NDArray[np.float64]  # [points, coordinates], points in their order along the line
FLOOR = 0.02  # correlations below it are noise, and are not fitted


def autocorrelation(gradients: Gradients, lags: Sequence[int]) -> list[float]:
    """Autocorrelation at `lags` in points, of a signal with many coordinates: covariances are summed over these.

    As usual, the mean along the line is taken away and every sum is over that of lag zero (Box and Jenkins 1976,
    section 2.1.5). Lag 0 gives 1; white noise gives about 0 elsewhere.
    """
    centred = gradients - gradients.mean(axis=0)
    whole = float((centred**2).sum())
    return [float((centred[: len(centred) - lag] * centred[lag:]).sum()) / whole for lag in lags]


def correlation(gradients: Gradients, lag: int) -> float:
    """Mean cosine of the gradients at all pairs of points that are `lag` apart; no mean is taken away."""
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    return float((unit[: len(unit) - lag] * unit[lag:]).sum(axis=1).mean())


def over_pairs(gradients: Gradients) -> float:
    """Mean cosine of the gradients at all pairs of different points."""
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    count = len(unit)
    return float((np.square(unit.sum(axis=0)).sum() - count) / (count * (count - 1)))


@dataclass(frozen=True)
class Decay:
    """A fitted law: `rate` is the factor for each layer, or the exponent of depth; `r2` its share of the variance."""

    rate: float
    r2: float


def exponential(depths: Sequence[float], values: Sequence[float]) -> Decay | None:
    """value = c * rate^depth, by least squares on logarithms, over values above FLOOR; None for fewer than three."""
    fitted = _line([float(depth) for depth in depths], values)
    return None if fitted is None else Decay(float(np.exp(fitted[0])), fitted[1])


def power(depths: Sequence[float], values: Sequence[float]) -> Decay | None:
    """value = c * depth^rate, the same way; depths are above zero."""
    fitted = _line([float(np.log(depth)) for depth in depths], values)
    return None if fitted is None else Decay(*fitted)


def crossing(depths: Sequence[float], values: Sequence[float], level: float = 0.5) -> float | None:
    """The depth at which `values` first fall below `level`, logarithms interpolated; None where they never do.

    Where they are below it from the start, it is the first depth, or less.
    """
    if values[0] < level:
        return float(depths[0])
    pairs = list(zip(depths, values, strict=True))
    for (before, higher), (after, lower) in pairwise(pairs):
        if higher >= level > lower:
            share = np.log(higher / level) / np.log(higher / max(lower, FLOOR))
            return float(before + share * (after - before))
    return None


def _line(x: Sequence[float], values: Sequence[float]) -> tuple[float, float] | None:
    """Slope and share of the variance explained of the logarithms of `values` over `x`."""
    kept = [(at, np.log(value)) for at, value in zip(x, values, strict=True) if value > FLOOR]
    if len(kept) < 3:
        return None
    across, up = np.array(kept).T
    slope, offset = np.polyfit(across, up, 1)
    left = float(np.square(up - slope * across - offset).sum())
    whole = float(np.square(up - up.mean()).sum())
    return float(slope), 1.0 - left / whole if whole else 1.0
