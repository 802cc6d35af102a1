"""Answers to labelled photos, in memory and as a CSV that other runs can be compared with."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx import metrics
from plusx.data.table import cell, text_of
from plusx.durable import write_file
from plusx.errors import model_file as sentences
from plusx.model_file import Header
from plusx.trust.decide import NONE, UNSURE, Rule

_COLUMNS = ("path", "sha256", "label", "answer")
_PROBABILITY = "p:"  # before a class name, for a class may be called "path"
_NOVELTY = "novelty"


@dataclass(frozen=True)
class Answered:
    """Photos by name and content, their labels [n], probabilities [n, C] as given out, and what is answered.

    `answers` are class names, "unsure" or "none of these"; `novelty` [n] is NaN where the model has no such score.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    hashes: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    answers: tuple[str, ...]
    novelty: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls, classes: tuple[str, ...], photos: Sequence[tuple[str, str]], labels: Any, probabilities: Any
    ) -> Answered:
        """Answers before any threshold: the likeliest class each. `photos` are (name, SHA-256)."""
        names, hashes = (tuple(photo[i] for photo in photos) for i in (0, 1))
        likeliest = tuple(classes[i] for i in probabilities.argmax(axis=1))
        unknown = np.full(len(names), np.nan)
        return cls(classes, names, hashes, np.asarray(labels, np.int64), probabilities, likeliest, unknown)

    def decided(self, header: Header, novelty: npt.NDArray[np.float64] | None = None) -> Answered:
        """The same with what the thresholds of `header` make of it, strangeness first, then certainty."""
        scores = self.novelty if novelty is None else novelty
        return replace(self, answers=tuple(Rule.of(header).answers(self.probabilities, scores)), novelty=scores)

    def figures(self) -> dict[str, Any]:
        """Those of `plusx.metrics.summary`, and of the answers that name a class."""
        named = np.array([answer not in (UNSURE, NONE) for answer in self.answers])
        given = metrics.answered(self.probabilities, self.labels, named)
        refused = {"unsure": self.answers.count(UNSURE), "none_of_these": self.answers.count(NONE)}
        summary = metrics.summary(self.probabilities, self.labels, self.classes)
        return summary | {"coverage": given["coverage"], "answered": given | refused}

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """Whether the likeliest class is not the label, shape [n]."""
        return np.asarray(self.probabilities.argmax(axis=1) != self.labels)


def write_answers(path: Path, answered: Answered) -> None:
    """One line per photo: path, sha256, label, answer, `p:CLASS` of every class, novelty.

    Any name survives, and none is a formula there (`plusx.data.table`).
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow((*_COLUMNS, *(_PROBABILITY + name for name in answered.classes), _NOVELTY))
    rows = zip(answered.names, answered.hashes, answered.labels, answered.answers, strict=True)
    for (name, sha256, label, answer), row, score in zip(rows, answered.probabilities, answered.novelty, strict=True):
        said = [format(float(p), ".9g") for p in row]  # nine digits are a float32 exactly
        strange = "" if np.isnan(score) else format(float(score), ".9g")
        writer.writerow((cell(name), sha256, cell(answered.classes[label]), cell(answer), *said, strange))
    write_file(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_answers(path: Path) -> Answered | None:
    """What `write_answers` wrote; None where there is no such file. Raises ModelError where it is damaged."""
    if not path.exists():
        return None
    text = io.StringIO(path.read_bytes().decode("utf-8", "surrogateescape"), newline="")
    try:
        header, *rows = csv.reader(text, strict=True)
        classes = tuple(name.removeprefix(_PROBABILITY) for name in header[len(_COLUMNS) : -1])
        return _answered(classes, [[*map(text_of, row[: len(_COLUMNS)]), *row[len(_COLUMNS) :]] for row in rows])
    except (csv.Error, ValueError, IndexError) as error:
        raise sentences.damaged(path, f"it is not the table that was written ({error})") from None


def _answered(classes: tuple[str, ...], rows: Sequence[Sequence[str]]) -> Answered:
    place, start = {name: i for i, name in enumerate(classes)}, len(_COLUMNS)
    if not rows or any(len(row) != start + len(classes) + 1 or row[2] not in place for row in rows):
        raise ValueError("a row has no label or too few columns")
    return Answered(
        classes,
        tuple(row[0] for row in rows),
        tuple(row[1] for row in rows),
        np.array([place[row[2]] for row in rows], dtype=np.int64),
        np.array([row[start:-1] for row in rows], dtype=np.float32),
        tuple(row[3] for row in rows),
        np.array([float(row[-1] or "nan") for row in rows]),
    )
