"""`export --int8`: an exported file of eight bits, calibrated on training photos and measured on validation photos."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx import metrics
from plusx.classifier import Classifier, Said
from plusx.data.reading import through
from plusx.data.source import Photo
from plusx.errors import export as sentences
from plusx.export.int8 import noted, quantised
from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool
from plusx.metrics import percent
from plusx.onnx_file import SUFFIX
from plusx.trust.decide import Rule
from plusx.trust.significance import discordant, paired_interval95

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

CALIBRATED = 256  # photos
MOST = 0.003  # of accuracy may be lost
BATCH = 64


@dataclass(frozen=True)
class _Said:
    """Probabilities [n, C] and answers of n photos."""

    probabilities: Floats
    answers: tuple[str, ...]

    @classmethod
    def of(cls, rule: Rule, batches: Sequence[Said]) -> _Said:
        """What was said of several batches, and what is answered by the thresholds of a model."""
        rows, novelty = (np.concatenate([getattr(b, name) for b in batches]) for name in ("probabilities", "novelty"))
        return cls(rows, tuple(rule.answers(rows, novelty)))


@dataclass(frozen=True)
class Cost:
    """What eight bits changed on `n` validation photos: accuracy and calibration error, before and after.

    `interval` is the 95 % interval of the difference in accuracy, after less before; `others` counts other answers,
    "unsure" and "none of these" among them.
    """

    n: int
    accuracy: tuple[float, float]
    interval: tuple[float, float]
    ece: tuple[float, float]
    others: int

    @classmethod
    def of(cls, labels: Labels, before: _Said, after: _Said) -> Cost:
        """That of two sets of answers to photos with `labels` [n]."""
        right = [said.probabilities.argmax(1) == labels for said in (before, after)]
        accuracy = [metrics.accuracy(said.probabilities, labels) for said in (before, after)]
        ece = [metrics.expected_calibration_error(said.probabilities, labels) for said in (before, after)]
        interval = paired_interval95(*discordant(*right), len(labels))
        others = sum(a != b for a, b in zip(before.answers, after.answers, strict=True))
        return cls(len(labels), (accuracy[0], accuracy[1]), interval, (ece[0], ece[1]), others)

    @property
    def lost(self) -> float:
        """How much accuracy, as a fraction."""
        return self.accuracy[0] - self.accuracy[1]

    def to_json(self) -> dict[str, Any]:
        """As plain values: of `export --json`, and of the file itself."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        (before, after), (low, high), ece = self.accuracy, self.interval, self.ece
        return [
            f"eight bits, on {self.n:,} validation photos: accuracy {percent(before)} before, {percent(after)} after; "
            f"{100 * (after - before):+.2f} points (95 % interval {100 * low:+.2f} to {100 * high:+.2f})",
            f"{self.others} other answers; calibration error {percent(ece[0])} before, {percent(ece[1])} after",
        ]


@dataclass(frozen=True)
class Labelled:
    """Photos of the run `of`, with their labels [n]."""

    of: Path
    photos: Sequence[Photo]
    labels: Labels


def in_eight_bits(content: bytes, photos: Sequence[Photo], validated: Labelled) -> tuple[bytes, Cost]:
    """The exported file `content` in eight bits, calibrated on `photos`, and what that costs on validation photos.

    Raises ModelError where it loses more than MOST, DataError where no photos can be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        before = _classifier(content, Path(folder) / f"float{SUFFIX}")
        smaller = quantised(content, _calibrating(before, photos, validated.of))
        cost = _cost(before, _classifier(smaller, Path(folder) / f"int8{SUFFIX}"), validated)
    if cost.lost > MOST:
        raise sentences.int8_loses(cost.n, cost.lost, MOST)
    return noted(smaller, cost.to_json()), cost


def _classifier(content: bytes, path: Path) -> Classifier:
    path.write_bytes(content)
    return Classifier.exported(path)


def _calibrating(classifier: Classifier, photos: Sequence[Photo], run: Path) -> Pixels:
    """The pixels of the photos [n, S, S, 3], in the order of their listing."""
    found = {
        place: row for places, pixels in _decoded(classifier, photos) for place, row in zip(places, pixels, strict=True)
    }
    if not found:
        raise sentences.int8_without_photos(run, "training")
    return np.stack([found[place] for place in sorted(found)])


def _cost(before: Classifier, after: Classifier, validated: Labelled) -> Cost:
    """Both classifiers answer every validation photo, which is decoded once."""
    rows: list[int] = []
    said: tuple[list[Said], list[Said]] = ([], [])
    for places, pixels in _decoded(before, validated.photos):
        rows += places
        for found, classifier in zip(said, (before, after), strict=True):
            found.append(classifier.engine.answers(pixels))
    if not rows:
        raise sentences.int8_without_photos(validated.of, "validation")
    return Cost.of(validated.labels[rows], *(_Said.of(before.rule, found) for found in said))


def _decoded(classifier: Classifier, photos: Sequence[Photo]) -> Iterator[tuple[list[int], Pixels]]:
    """Places and pixels of photos in batches, without those that cannot be read."""
    with DecodePool(classifier.header.preprocess) as pool:
        answers = through(pool.map, (photo.source for photo in photos))
        readable = ((i, row) for i, row in answers if not isinstance(row, BadPhoto))
        while batch := list(itertools.islice(readable, BATCH)):
            places, rows = zip(*batch, strict=True)
            yield list(places), np.stack(rows)
