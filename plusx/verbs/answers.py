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
from plusx.durable import write_file
from plusx.errors import model_file as sentences
from plusx.model_file import Header

UNSURE, NONE = "unsure", "none of these"
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
        strange = float(header.novelty["threshold"]) if header.novelty else np.inf
        least = {c["name"]: c["threshold"] for c in (header.thresholds or {}).get("classes", ())}
        top = self.probabilities.max(axis=1)
        likeliest = [self.classes[i] for i in self.probabilities.argmax(axis=1)]
        answers = tuple(
            NONE if s > strange else UNSURE if p < (least.get(name) or 0.0) else name
            for name, p, s in zip(likeliest, top, scores, strict=True)
        )
        return replace(self, answers=answers, novelty=scores)

    def figures(self) -> dict[str, Any]:
        """Those of `plusx.metrics.summary`."""
        return metrics.summary(self.probabilities, self.labels, self.classes)

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """Whether the likeliest class is not the label, shape [n]."""
        return np.asarray(self.probabilities.argmax(axis=1) != self.labels)


def write_answers(path: Path, answered: Answered) -> None:
    """One line per photo: path, sha256, label, answer, `p:CLASS` of every class, novelty. Any file name survives."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow((*_COLUMNS, *(_PROBABILITY + name for name in answered.classes), _NOVELTY))
    rows = zip(answered.names, answered.hashes, answered.labels, answered.answers, strict=True)
    for (name, sha256, label, answer), row, score in zip(rows, answered.probabilities, answered.novelty, strict=True):
        said = [format(float(p), ".9g") for p in row]  # nine digits are a float32 exactly
        strange = "" if np.isnan(score) else format(float(score), ".9g")
        writer.writerow((name, sha256, answered.classes[label], answer, *said, strange))
    write_file(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_answers(path: Path) -> Answered | None:
    """What `write_answers` wrote; None where there is no such file. Raises ModelError where it is damaged."""
    if not path.exists():
        return None
    text = io.StringIO(path.read_bytes().decode("utf-8", "surrogateescape"), newline="")
    try:
        header, *rows = csv.reader(text, strict=True)
        classes = tuple(name.removeprefix(_PROBABILITY) for name in header[len(_COLUMNS) : -1])
        return _answered(classes, rows)
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
