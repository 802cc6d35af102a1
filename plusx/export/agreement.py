"""Whether an exported file answers as its model does: the same photos through both, from bytes to answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from plusx.classifier import Classifier
from plusx.images.decode import BadPhoto
from plusx.images.pool import Source

MARGIN = 1e-3  # between the two likeliest classes: closer than that a rounding may decide
MOST = 1e-4  # by which a probability may differ
STRANGEST = 1e-3  # by which the score of novelty may differ, whose spread is about one
ROUNDING = MOST / 100  # what two programs differ by that compute the same: at a threshold that may decide


@dataclass(frozen=True)
class Agreement:
    """What `photos` showed: answers that differ where the margin is above MARGIN, and the largest differences.

    `novelty` is 0 where the model has no such score; `unreadable` photos could not be decoded, by both.
    """

    photos: int
    flips: int
    probability: float
    novelty: float
    unreadable: int = 0

    @property
    def holds(self) -> bool:
        """Whether the two are the same for all that matters."""
        return self.flips == 0 and self.probability <= MOST and self.novelty <= STRANGEST

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """In words."""
        return (
            f"agrees with the model on {self.photos:,} photos: {self.flips} other answers, probabilities differ by "
            f"{self.probability:.1e} at most"
        )


def agreement(model: Classifier, exported: Classifier, sources: Sequence[Source]) -> Agreement:
    """Answer the photos by both. Every photo is decoded by each of them anew, as a user's would be."""
    one, other = (_answers(classifier, sources) for classifier in (model, exported))
    both = sorted(one.keys() & other.keys())
    flips = sum(_differs(one[i], other[i]) for i in both)
    probability = max((float(np.abs(one[i][0] - other[i][0]).max()) for i in both), default=0.0)
    strange = [abs(one[i][1] - other[i][1]) for i in both]
    if any(np.isnan(one[i][1]) != np.isnan(other[i][1]) for i in both):
        strange = [float("inf")]  # one of them has a score and the other has none
    novelty = float(np.nanmax(strange)) if strange and not np.isnan(strange).all() else 0.0
    return Agreement(len(both), flips, probability, novelty, len(sources) - len(both))


_Answer = tuple[Any, float, str]  # probabilities [C], novelty, what is answered


def _answers(classifier: Classifier, sources: Sequence[Source]) -> dict[int, _Answer]:
    found: dict[int, _Answer] = {}
    for places, answered in classifier.answers_many(sources):
        if not isinstance(answered, BadPhoto):
            given = classifier.rule.answers(answered.probabilities, answered.novelty)
            rows: Iterable[Any] = zip(places, answered.probabilities, answered.novelty, given, strict=True)
            found |= {place: (row, float(score), answer) for place, row, score, answer in rows}
    return found


def _differs(one: _Answer, other: _Answer) -> bool:
    """Whether the two answer otherwise, not by a rounding at a threshold or between two classes."""
    if one[2] == other[2]:
        return False
    low, high = np.sort(one[0])[-2:] if len(one[0]) > 1 else (0.0, 1.0)
    apart = max(float(np.abs(one[0] - other[0]).max()), float(np.nan_to_num(abs(one[1] - other[1]))))
    return bool(high - low > MARGIN) and apart > ROUNDING
