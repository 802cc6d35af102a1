"""`explain --sanity`: whether a model's maps can be believed, tested on many photos."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx import keyed
from plusx.data.reading import through
from plusx.data.source import Photo, walk
from plusx.errors import explain as sentences
from plusx.explain.sanity import ALIKE, Sanity, sanity
from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool
from plusx.metrics import interval95, percent
from plusx.verbs.explain import UNCOMPARED, Asked

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

LEAST = 10  # photos
RESAMPLED = 2_000  # for the interval of a mean


@dataclass(frozen=True)
class MapsTested:
    """Both tests of the maps of some photos; `skipped` could not be read."""

    names: tuple[str, ...]
    skipped: tuple[str, ...]
    method: str
    tests: Sanity
    seconds: float

    @property
    def warnings(self) -> list[str]:
        """What speaks against this model's maps as a whole."""
        said, (low, high) = [], self._beats(self.tests.deletion.random)["ci95"]
        if low <= 0.5:
            said.append(
                "covering what the maps mark does not reliably lower the probability faster than covering at random "
                f"(in {percent(low)} to {percent(high)} of photos)"
            )
        like = self.tests.likeness
        if like is not None and abs(float(like.rank.mean())) >= ALIKE:
            said.append("the maps of an untrained network rank places nearly the same")
        return said

    def to_json(self) -> dict[str, Any]:
        """The document of `explain --sanity N --json`."""
        deleted, like = self.tests.deletion, self.tests.likeness
        elsewhere = deleted.random if deleted.elsewhere is None else deleted.elsewhere
        areas = {"marked": deleted.marked, "random": deleted.random, "least": deleted.least, "elsewhere": elsewhere}
        return {
            "n": len(self.names),
            "skipped": list(self.skipped),
            "method": self.method,
            "deletion": {name: _mean(values) for name, values in areas.items()}
            | {"beats_random": self._beats(deleted.random), "beats_elsewhere": self._beats(elsewhere)},
            "rank_correlation": None if like is None else _mean(like.rank),
            "similarity": None if like is None else _mean(like.similarity),
            "passed": not self.warnings,
            "warnings": self.warnings,
            "photos": self._photos(),
            "seconds": self.seconds,
        }

    def lines(self) -> list[str]:
        """The result for people."""
        found = self.to_json()
        deleted, beats = found["deletion"], found["deletion"]["beats_random"]
        low, high = beats["ci95"]
        area = "area under the probability while a photo is covered"
        return [
            f"{found['n']:,} photos, {self.method}, {self.seconds:.1f} s",
            f"{area}: most marked first {_shown(deleted['marked'])}, at random {_shown(deleted['random'])}, "
            f"least marked first {_shown(deleted['least'])}, by another photo's map {_shown(deleted['elsewhere'])}",
            f"the map beats covering at random in {percent(beats['share'])} of photos "
            f"(95 % interval {percent(low)} to {percent(high)})",
            self._compared(),
            *(f"Warning: {warning}; do not rely on them." for warning in self.warnings),
        ]

    def _photos(self) -> list[dict[str, Any]]:
        deleted, like = self.tests.deletion, self.tests.likeness
        ranks = [None] * len(self.names) if like is None else like.rank.tolist()
        rows = zip(self.names, deleted.marked.tolist(), deleted.random.tolist(), ranks, strict=True)
        return [dict(zip(("path", "marked", "random", "rank_correlation"), row, strict=True)) for row in rows]

    def _compared(self) -> str:
        like = self.tests.likeness
        if like is None:
            return UNCOMPARED
        ranks, alike = _shown(_mean(like.rank)), _shown(_mean(like.similarity))
        return f"rank correlation with an untrained network's maps {ranks}, similarity {alike}"

    def _beats(self, other: Floats) -> dict[str, Any]:
        wins = int((self.tests.deletion.marked < other).sum())
        return {"share": wins / len(other), "ci95": list(interval95(wins, len(other))), "n": len(other)}


def maps_tested(
    model: str | Path,
    data: str | Path,
    count: int = 200,
    *,
    method: str = "auto",
    device: str = "auto",
    on_progress: Progress | None = None,
) -> MapsTested:
    """Test the maps of `count` photos of DATA, drawn by their order, for the classes they are answered with.

    Raises UsageError for fewer than LEAST photos, DataError where so few can be read.
    """
    started = time.perf_counter()
    if count < LEAST:
        raise sentences.bad_count(count, LEAST)
    asked = Asked.load(model, method, device)
    photos = _drawn(walk([data]), count)
    good, pixels, skipped = _decoded(asked, photos)
    if len(good) < LEAST:
        raise sentences.too_few_photos(len(good), str(data), LEAST)
    answers = [said.probabilities for _, said in asked.explainer.engine.many(_batched(pixels))]
    labels = np.concatenate(answers).argmax(axis=1).astype(np.int64)
    evidence = asked.explainer.evidence(pixels, labels)
    tests = sanity(asked.explainer, pixels, labels, evidence.maps, progress=on_progress)
    names = tuple(photo.name for photo in good)
    return MapsTested(names, skipped, asked.explainer.method, tests, time.perf_counter() - started)


def _drawn(photos: Sequence[Photo], count: int) -> list[Photo]:
    order = keyed.permutation(0, 0, len(photos), "sanity")[:count]
    return [photos[i] for i in sorted(order.tolist())]


def _decoded(asked: Asked, photos: Sequence[Photo]) -> tuple[list[Photo], Pixels, tuple[str, ...]]:
    """The photos that can be read, their pixels [n, S, S, 3], and the names of the others."""
    with DecodePool(asked.classifier.header.preprocess) as pool:
        results = dict(through(pool.map, (photo.source for photo in photos)))
    readable = {i: result for i, result in sorted(results.items()) if not isinstance(result, BadPhoto)}
    skipped = tuple(photo.name for i, photo in enumerate(photos) if i not in readable)
    pixels = np.stack([*readable.values()]) if readable else np.zeros((0, 1, 1, 3), np.uint8)
    return [photos[i] for i in readable], pixels, skipped


def _batched(pixels: Pixels, size: int = 32) -> list[tuple[int, Pixels]]:
    return [(start, pixels[start : start + size]) for start in range(0, len(pixels), size)]


def _mean(values: Floats) -> dict[str, Any]:
    """The mean with its 95 % interval: percentiles of the means of photos drawn anew (Efron 1979)."""
    drawn = keyed.words(0, 0, np.arange(RESAMPLED), "bootstrap", len(values)) % np.uint64(len(values))
    low, high = np.percentile(values[drawn.astype(np.int64)].mean(1), (2.5, 97.5))
    return {"mean": float(values.mean()), "ci95": [float(low), float(high)], "n": len(values)}


def _shown(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"]
    return f"{figure['mean']:.3f} ({low:.3f} to {high:.3f})"
