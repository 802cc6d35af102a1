"""What is answered: "none of these" where a photo is too strange, "unsure" where it is too doubtful, else its class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.metrics import Probabilities
from plusx.model_file import Header
from plusx.trust.novelty import Novelty
from plusx.trust.risk import Thresholds

UNSURE, NONE = "unsure", "none of these"

Flags = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Rule:
    """The thresholds of a model: by class the probability from which on it is answered [C], and the largest novelty."""

    classes: tuple[str, ...]
    lowest: npt.NDArray[np.float64]
    strangest: float = np.inf

    @classmethod
    def of(cls, header: Header) -> Rule:
        """That of a model file. Raises TypeError, KeyError or ValueError where its fields are not as written."""
        lowest = np.zeros(len(header.classes))
        if header.thresholds:
            fitted = Thresholds.from_json(header.thresholds)
            lowest = fitted.lowest()
            if tuple(one.name for one in fitted.classes) != header.classes or not (lowest >= 0).all():
                raise ValueError("not one threshold for each class")
        strangest = Novelty.from_json(header.novelty).threshold if header.novelty else None
        return cls(header.classes, lowest, np.inf if strangest is None else strangest)

    def known(self, novelty: Scores) -> Flags:
        """Which photos are like those of the training, by their scores [n]; NaN is no score, and refuses nothing."""
        return ~(novelty > self.strangest)

    def sure(self, probabilities: Probabilities) -> Flags:
        """Which of the calibrated answers [n, C] are sure enough, [n]."""
        sure: Flags = probabilities.max(axis=1) >= self.lowest[probabilities.argmax(axis=1)]
        return sure

    def answers(self, probabilities: Probabilities, novelty: Scores) -> list[str]:
        """One answer for each row of calibrated probabilities [n, C], with its novelty [n]."""
        rows = zip(probabilities.argmax(axis=1), self.sure(probabilities), self.known(novelty), strict=True)
        return [(self.classes[i] if sure else UNSURE) if known else NONE for i, sure, known in rows]
