"""What makes answers trustworthy, fitted at the end of a training: one half of validation fits, the other is measured.

The half that chooses gives the temperature and a list of thresholds; the other half tests them, and no figure of it
has been looked at before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from plusx.metrics import Labels, Probabilities
from plusx.trust.calibration import Calibration, calibrate, temper
from plusx.trust.risk import Answers, Thresholds, fit_thresholds


@dataclass(frozen=True)
class Validated:
    """Raw probabilities [n, C] of the validation photos, their labels [n], and which of them choose [n]."""

    probabilities: Probabilities
    labels: Labels
    chooses: npt.NDArray[np.bool_]

    def half(self, chooses: bool) -> tuple[Probabilities, Labels]:
        """The half that chooses, or the one that calibrates."""
        mine = self.chooses == chooses
        return self.probabilities[mine], self.labels[mine]


@dataclass(frozen=True)
class Trusted:
    """Calibration and thresholds; None without validation photos."""

    calibration: Calibration | None = None
    thresholds: Thresholds | None = None

    def calibrated(self, probabilities: Probabilities) -> Probabilities:
        """Probabilities as the model file will give them."""
        return temper(probabilities, self.calibration.temperature) if self.calibration else probabilities

    def to_json(self) -> dict[str, Any]:
        """Fields of the model file's header, and of metrics.json."""
        return {
            "calibration": self.calibration and self.calibration.to_json(),
            "thresholds": self.thresholds and self.thresholds.to_json(),
        }


def trusted(validated: Validated | None, classes: Sequence[str], risk: float | Literal["auto"]) -> Trusted:
    """Calibrate the answers, and find the thresholds that hold the risk."""
    if validated is None:
        return Trusted()
    chosen, held = validated.half(True), validated.half(False)
    calibration = calibrate(chosen, held)
    answers = [Answers.of(temper(rows, calibration.temperature), labels) for rows, labels in (chosen, held)]
    return Trusted(calibration, fit_thresholds(answers[0], answers[1], classes, risk))
