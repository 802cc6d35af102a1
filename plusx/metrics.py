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
LEAST = 1e-15  # a probability of zero would make one wrong answer cost infinitely much


def percent(fraction: float, digits: int = 2) -> str:
    """A fraction as printed for people."""
    return f"{100 * fraction:.{digits}f} %"


def accuracy(probabilities: Probabilities, labels: Labels) -> float:
    """Share of right answers."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def interval95(right: int, n: int) -> tuple[float, float]:
    """Exact two-sided 95 % interval of a share (Clopper and Pearson 1934)."""
    return interval(right, n, 0.05)


def interval(right: int, n: int, level: float) -> tuple[float, float]:
    """The same, missed with probability `level` at most."""
    from scipy.stats import beta

    low = float(beta.ppf(level / 2, right, n - right + 1)) if right > 0 else 0.0
    high = float(beta.ppf(1 - level / 2, right + 1, n - right)) if right < n else 1.0
    return low, high


def log_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Mean cross-entropy with the natural logarithm."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(abs(np.log(np.clip(chosen, LEAST, 1.0)).mean()))  # abs: all are <= 0, and -0.0 looks odd


def expected_calibration_error(probabilities: Probabilities, labels: Labels, bins: int = CALIBRATION_BINS) -> float:
    """Mean distance of probability and accuracy over equal-width bins (Guo et al. 2017, equation 3)."""
    top, right, place = _binned(probabilities, labels, bins)
    gaps = [abs(float(right[place == b].mean() - top[place == b].mean())) * int((place == b).sum()) for b in set(place)]
    return float(sum(gaps) / len(labels))


def reliability(probabilities: Probabilities, labels: Labels, bins: int = CALIBRATION_BINS) -> list[dict[str, Any]]:
    """The bins that the calibration error is made of, the empty ones included (Guo et al. 2017, figure 1).

    Each has its bounds `low` (exclusive) and `high`, `n`, mean `probability` of the answers, their `accuracy` and its
    interval; the last three are None where there are no answers.
    """
    top, right, place = _binned(probabilities, labels, bins)
    return [
        {"low": b / bins, "high": (b + 1) / bins, **_of_bin(top[place == b], right[place == b])} for b in range(bins)
    ]


def _of_bin(top: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    if not len(top):
        return {"n": 0, "probability": None, "accuracy": None, "accuracy_ci95": None}
    interval = list(interval95(int(right.sum()), len(right)))
    means = {"probability": float(top.mean()), "accuracy": float(right.mean())}
    return {"n": len(top), **means, "accuracy_ci95": interval}


def _binned(
    probabilities: Probabilities, labels: Labels, bins: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Of every answer its probability, whether it is right, and its bin: [N] each."""
    top = probabilities.max(axis=1).astype(np.float64)
    place = np.clip(np.ceil(top * bins).astype(np.int64) - 1, 0, bins - 1)
    return top, probabilities.argmax(axis=1) == labels, place


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
    return [{"coverage": c, "n": k, "error": float(wrong[:k].mean())} for c, k in zip(COVERAGES, kept, strict=True)]


def answered(probabilities: Probabilities, labels: Labels, sure: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Figures of the answers that are given, `sure` [N], where the others are "unsure"; no error where none is."""
    wrong = int((probabilities.argmax(axis=1) != labels)[sure].sum())
    n = int(sure.sum())
    return {
        "coverage": n / len(labels),
        "n": n,
        "error": wrong / n if n else None,
        "error_ci95": list(interval95(wrong, n)) if n else None,
        "unsure": len(labels) - n,
    }


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
        "reliability": reliability(probabilities, labels),
        "per_class": {name: _of_class(counts, i) for i, name in enumerate(classes)},
        "confusion": counts.tolist(),
        "classes": list(classes),
        "coverage": 1.0,  # every photo is answered, until thresholds say otherwise
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
