"""Numbers about answers: arrays in, numbers out. Probabilities are [N, C], labels int [N]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]

CALIBRATION_BINS = 15  # Guo et al. 2017, section 2
COVERAGES = (1.0, 0.95, 0.9, 0.85, 0.8)
_LEAST = 1e-15  # a probability of zero would make one wrong answer cost infinitely much


def percent(fraction: float, digits: int = 2) -> str:
    """A fraction as printed for people."""
    return f"{100 * fraction:.{digits}f} %"


def accuracy(probabilities: Probabilities, labels: Labels) -> float:
    """Share of right answers."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def interval95(right: int, n: int) -> tuple[float, float]:
    """Exact two-sided 95 % interval of a share (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    low = float(beta.ppf(0.025, right, n - right + 1)) if right > 0 else 0.0
    high = float(beta.ppf(0.975, right + 1, n - right)) if right < n else 1.0
    return low, high


def log_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Mean cross-entropy with the natural logarithm."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(abs(np.log(np.clip(chosen, _LEAST, 1.0)).mean()))  # abs: all are <= 0, and -0.0 looks odd


def expected_calibration_error(probabilities: Probabilities, labels: Labels, bins: int = CALIBRATION_BINS) -> float:
    """Mean distance of probability and accuracy over equal-width bins (Guo et al. 2017, equation 3)."""
    top = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)
    gaps = [abs(float(right[place == b].mean() - top[place == b].mean())) * int((place == b).sum()) for b in set(place)]
    return float(sum(gaps) / len(labels))


def confusion(probabilities: Probabilities, labels: Labels) -> npt.NDArray[np.int64]:
    """Counts [C, C]: rows are true classes, columns answers."""
    classes = probabilities.shape[1]
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    return counts


def risk_coverage(probabilities: Probabilities, labels: Labels) -> list[dict[str, float]]:
    """Error of the surest answers at several coverages (El-Yaniv and Wiener 2010), surest by top probability."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    kept = [max(1, round(coverage * len(wrong))) for coverage in COVERAGES]
    return [{"coverage": c, "error": float(wrong[:k].mean())} for c, k in zip(COVERAGES, kept, strict=True)]


def summary(probabilities: Probabilities, labels: Labels, classes: Sequence[str]) -> dict[str, Any]:
    """Every figure of `evaluate --json` that follows from the answers."""
    counts = confusion(probabilities, labels)
    right = int(np.trace(counts))
    return {
        "n": len(labels),
        "accuracy": right / len(labels),
        "accuracy_ci95": list(interval95(right, len(labels))),
        "log_loss": log_loss(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels),
        "per_class": {name: _of_class(counts, i) for i, name in enumerate(classes)},
        "confusion": counts.tolist(),
        "classes": list(classes),
        "coverage": 1.0,  # every photo is answered until a threshold is fitted
        "risk_coverage": risk_coverage(probabilities, labels),
    }


def _of_class(counts: npt.NDArray[np.int64], i: int) -> dict[str, Any]:
    n, answered, right = int(counts[i].sum()), int(counts[:, i].sum()), int(counts[i, i])
    return {
        "n": n,
        "accuracy": right / n if n else None,
        "accuracy_ci95": list(interval95(right, n)) if n else None,
        "precision": right / answered if answered else None,
    }
