"""What figures show, from answers: bins of a reliability diagram, the risk-coverage curve. Arrays in, points out."""

from __future__ import annotations

import numpy as np

from plusx.metrics import CALIBRATION_BINS, Labels, Probabilities
from plusx.report.figures import Bin

POINTS = 120  # of a curve: more than a screen has room for

Points = tuple[tuple[float, float], ...]


def reliability_bins(probabilities: Probabilities, labels: Labels, bins: int = CALIBRATION_BINS) -> tuple[Bin, ...]:
    """Equal-width bins of the top probability, those of `expected_calibration_error`; empty ones have n = 0."""
    top = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)
    return tuple(_bin(b / bins, (b + 1) / bins, top[place == b], right[place == b]) for b in range(bins))


def _bin(low: float, high: float, top: np.ndarray, right: np.ndarray) -> Bin:
    n = len(top)
    return Bin(low, high, n, float(top.mean()) if n else 0.0, float(right.mean()) if n else 0.0)


def risk_curve(probabilities: Probabilities, labels: Labels) -> Points:
    """(coverage, error of the surest answers), from the few surest to all; at most `POINTS` of them."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = np.cumsum((probabilities.argmax(axis=1) != labels)[order])
    n = len(wrong)
    kept = np.unique(np.linspace(max(1, n // 20), n, min(POINTS, n)).astype(int))
    return tuple((float(k / n), float(wrong[k - 1] / k)) for k in kept)


def untempered(probabilities: Probabilities, temperature: float) -> Probabilities:
    """What probabilities [n, C] were before temperature scaling: the inverse of p ** (1 / T), normalised."""
    raised = np.clip(probabilities.astype(np.float64), 1e-15, 1.0) ** temperature
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
