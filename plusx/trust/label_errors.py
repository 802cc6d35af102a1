"""Which labels are probably wrong, from probabilities of networks that had not seen the photos: confident learning.

After Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels" (2021, arXiv
1911.00068). Arrays in, numbers out: probabilities are [N, C], out of fold; labels int [N].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]
Scores = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelErrors:
    """What the answers say of the labels.

    `thresholds` [C] are NaN for a class without photos. `joint` [C, C] estimates how many photos with the label of a
    row are of the class of a column; it sums to N. `suspects` are positions, the most doubtful first; `doubtful` are
    the others whose answer is not their label, in the same order. `suggested` [N] is what each photo looks like.
    """

    thresholds: Scores
    joint: Scores
    suspects: Places
    doubtful: Places
    suggested: Places
    margins: Scores

    @property
    def estimated(self) -> float:
        """How many labels are wrong, by the joint."""
        return float(self.joint.sum() - np.trace(self.joint))


def label_errors(probabilities: Probabilities, labels: Labels) -> LabelErrors:
    """Confident learning over out-of-fold answers.

    Suspects are the photos that the confident joint counts off its diagonal: surely another class than their label, by
    that class's own threshold. They are ranked by `margins`. Where classes are told apart surely, the thresholds are
    high, and a photo that shows neither of two classes may not reach them: those are among the doubtful.
    """
    p = probabilities.astype(np.float64)
    limits = thresholds(p, labels)
    surest = confident_classes(p, limits)
    margins = normalised_margins(p, labels)
    counted = (surest >= 0) & (surest != labels)
    suggested = np.where(surest >= 0, surest, p.argmax(axis=1))
    joint = _calibrated(_counts(labels, surest, p.shape[1]), labels)
    suspects, doubtful = _ranked(counted, margins), _ranked(~counted & (margins < 0), margins)
    suggested[doubtful] = p[doubtful].argmax(axis=1)
    return LabelErrors(limits, joint, suspects, doubtful, suggested, margins)


def thresholds(probabilities: Probabilities, labels: Labels) -> Scores:
    """Mean self-confidence of the photos of every class, [C] (equation 2); NaN for a class without photos."""
    classes = probabilities.shape[1]
    confidence = probabilities[np.arange(len(labels)), labels]
    sums = np.bincount(labels, weights=confidence, minlength=classes)
    counts = np.bincount(labels, minlength=classes)
    return np.asarray(np.divide(sums, counts, out=np.full(classes, np.nan), where=counts > 0))


def confident_classes(probabilities: Probabilities, limits: Scores) -> Places:
    """The class that every photo surely is of, -1 where there is none, [N] (equation 1).

    Those at or above their class's threshold count, and of several the likeliest.
    """
    reached = np.where(probabilities >= limits, probabilities, -1.0)  # never for NaN
    return np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), -1)


def normalised_margins(probabilities: Probabilities, labels: Labels) -> Scores:
    """Probability of the label minus that of the likeliest other class, [N], -1 to 1 (section 3.2)."""
    rows = np.arange(len(labels))
    others = probabilities.astype(np.float64)
    own = others[rows, labels].copy()
    others[rows, labels] = -np.inf
    return np.asarray(own - others.max(axis=1))


def _ranked(chosen: npt.NDArray[np.bool_], margins: Scores) -> Places:
    places = np.flatnonzero(chosen)
    return places[np.argsort(margins[places], kind="stable")]


def _counts(labels: Labels, surest: Places, classes: int) -> Scores:
    """The confident joint: photos by their label (row) and the class that they surely are of (column)."""
    counts = np.zeros((classes, classes))
    sure = surest >= 0
    np.add.at(counts, (labels[sure], surest[sure]), 1)
    return counts


def _calibrated(counts: Scores, labels: Labels) -> Scores:
    """Every row scaled to the photos of that label, then all to N (equation 3); a row of zeros is taken at its word."""
    of_label = np.bincount(labels, minlength=len(counts)).astype(np.float64)
    sums = counts.sum(axis=1)
    rows = np.where(sums[:, None] > 0, counts, np.eye(len(counts)))
    return np.asarray(rows / rows.sum(axis=1, keepdims=True) * of_label[:, None])
