"""Temperature scaling: one number that makes probabilities mean what they say (Guo et al. 2017, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from plusx import keyed, metrics
from plusx.metrics import LEAST, Labels, Probabilities

LOWEST, HIGHEST = 0.05, 20.0  # a temperature beyond these says that something else is wrong
DRAWS = 200  # of labels, for an error by chance
FEWEST = 30  # photos; fewer say less about the temperature than that it is near 1


@dataclass(frozen=True)
class Temperature:
    """What probabilities are tempered by, fitted on `n` photos; `note` says why where it could not be fitted."""

    value: float
    n: int
    note: str | None = None


@dataclass(frozen=True)
class Calibration:
    """A temperature fitted on `n` photos, and what it changed on `measured_n` others: None where there were none."""

    temperature: float
    n: int
    measured_n: int
    log_loss_before: float | None
    log_loss_after: float | None
    ece_before: float | None
    ece_after: float | None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As the model file holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """What `to_json` gave. Raises TypeError or ValueError for anything else."""
        found = cls(**values)
        if not (found.temperature > 0 and math.isfinite(found.temperature)):
            raise ValueError("the temperature is not above zero")
        return found


def temper(probabilities: Probabilities, temperature: float) -> Probabilities:
    """softmax(log p / temperature) of [N, C] or [C]: above 1 less sure, below 1 surer, the order unchanged.

    The probabilities may be means over several views: their logarithms stand in for logits. The result has their type,
    so that a threshold is compared with the very numbers it was taken from.
    """
    if temperature == 1:
        return probabilities
    logits = np.log(np.clip(probabilities.astype(np.float64), LEAST, 1.0)) / temperature
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), dtype=probabilities.dtype)


def fit_temperature(probabilities: Probabilities, labels: Labels) -> Temperature:
    """The temperature of least log loss over [N, C] and [N]; 1 with a note where it cannot be told."""
    n = len(labels)
    if n < FEWEST:
        return Temperature(1.0, n, f"{n} photos are too few to calibrate by, {FEWEST} are needed at least")
    if (probabilities.argmax(axis=1) == labels).all():
        return Temperature(
            1.0, n, f"all {n:,} answers to calibrate by are right, and nothing says how sure is too sure"
        )
    return Temperature(_least_loss(probabilities, labels), n)


def calibrate(chosen: tuple[Probabilities, Labels], held: tuple[Probabilities, Labels]) -> Calibration:
    """Fit on the (probabilities [N, C], labels [N]) that `chosen` are, and measure on those that are `held` back."""
    fitted = fit_temperature(*chosen)
    (raw, labels), tempered = held, temper(held[0], fitted.value)
    some = len(labels) > 0
    return Calibration(
        temperature=fitted.value,
        n=fitted.n,
        measured_n=len(labels),
        log_loss_before=metrics.log_loss(raw, labels) if some else None,
        log_loss_after=metrics.log_loss(tempered, labels) if some else None,
        ece_before=metrics.expected_calibration_error(raw, labels) if some else None,
        ece_after=metrics.expected_calibration_error(tempered, labels) if some else None,
        note=fitted.note,
    )


def error_by_chance(probabilities: Probabilities) -> float:
    """The calibration error that probabilities [N, C] which are right exceed in 2.5 % of all cases.

    It is above 0, since of few answers in a bin the share that is right is never what it should be (Bröcker and Smith
    2007, "Increasing the reliability of reliability diagrams"): labels are drawn from the probabilities themselves.
    """
    top = probabilities.max(axis=1).astype(np.float64)
    place = np.ceil(top * metrics.CALIBRATION_BINS).astype(np.int64)
    errors = []
    for draw in range(DRAWS):
        right = keyed.uniform(0, 0, np.array([draw]), "calibration by chance", len(top))[0] < top
        errors.append(np.abs(np.bincount(place, weights=right - top)).sum() / len(top))
    return float(np.quantile(errors, 0.975))


def _least_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Log loss is convex in 1 / temperature, so a bounded search over its logarithm finds the one minimum."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return metrics.log_loss(temper(probabilities, float(np.exp(log_temperature))), labels)

    bounds = (float(np.log(LOWEST)), float(np.log(HIGHEST)))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))
