"""What makes answers trustworthy, fitted at the end of a training: one half of validation fits, the other is measured.

The half that chooses gives the temperature, the threshold of novelty and a list of thresholds of certainty; the other
half tests them, and no figure of it has been looked at before. All of it is fitted on the very answers that will be
given: those of an engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from plusx.metrics import Labels, Probabilities
from plusx.trust.calibration import Calibration, calibrate, temper
from plusx.trust.novelty import Novelty, fit_threshold
from plusx.trust.risk import Answers, Thresholds, fit_thresholds

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Validated:
    """Raw probabilities [n, C] of the validation photos, labels [n], novelty [n] or None, and which choose [n]."""

    probabilities: Probabilities
    labels: Labels
    chooses: npt.NDArray[np.bool_]
    novelty: Scores | None = None

    def at(self, rows: npt.NDArray[np.bool_]) -> tuple[Probabilities, Labels]:
        """Probabilities and labels of some of them."""
        return self.probabilities[rows], self.labels[rows]


@dataclass(frozen=True)
class Trusted:
    """Calibration, thresholds and novelty; None without validation photos, novelty also without a score."""

    calibration: Calibration | None = None
    thresholds: Thresholds | None = None
    novelty: Novelty | None = None

    def calibrated(self, probabilities: Probabilities) -> Probabilities:
        """Probabilities as the model file will give them."""
        return temper(probabilities, self.calibration.temperature) if self.calibration else probabilities

    def to_json(self) -> dict[str, Any]:
        """Fields of the model file's header, and of metrics.json."""
        return {
            "calibration": self.calibration and self.calibration.to_json(),
            "thresholds": self.thresholds and self.thresholds.to_json(),
            "novelty": self.novelty and self.novelty.to_json(),
        }


def trusted(validated: Validated | None, classes: Sequence[str], risk: float | Literal["auto"]) -> Trusted:
    """Calibrate the answers, find what is too strange, and, for the rest, the thresholds that hold the risk."""
    if validated is None:
        return Trusted()
    novelty = _novelty(validated)
    known = np.ones(len(validated.labels), dtype=bool)
    if novelty and novelty.threshold is not None and validated.novelty is not None:
        known = validated.novelty <= novelty.threshold
    halves = [validated.chooses, ~validated.chooses]
    chosen, held = (validated.at(half) for half in halves)
    calibration = calibrate(chosen, held)
    pairs = (validated.at(half & known) for half in halves)
    answers = [Answers.of(temper(rows, calibration.temperature), labels) for rows, labels in pairs]
    return Trusted(calibration, fit_thresholds(answers[0], answers[1], classes, risk), novelty)


def _novelty(validated: Validated) -> Novelty | None:
    if validated.novelty is None:
        return None
    return fit_threshold(validated.novelty[validated.chooses], validated.novelty[~validated.chooses])
