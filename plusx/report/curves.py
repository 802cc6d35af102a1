"""What figures show, from answers: the risk-coverage curve. Arrays in, points out."""

from __future__ import annotations

import numpy as np

from plusx.metrics import Labels, Probabilities

POINTS = 120  # of a curve: more than a screen has room for

Points = tuple[tuple[float, float], ...]


def risk_curve(probabilities: Probabilities, labels: Labels) -> Points:
    """(coverage, error of the surest answers), from the few surest to all; at most `POINTS` of them."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = np.cumsum((probabilities.argmax(axis=1) != labels)[order])
    n = len(wrong)
    kept = np.unique(np.linspace(max(1, n // 20), n, min(POINTS, n)).astype(int))
    return tuple((float(k / n), float(wrong[k - 1] / k)) for k in kept)
