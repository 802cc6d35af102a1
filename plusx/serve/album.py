"""A few photos of a run, small, beside its curves: what it trains on now, and once it is done where it is wrong.

They are found and decoded by a thread of their own, in a process of their own, while the curves are shown already.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from PIL import Image

from plusx.data.reading import read, through
from plusx.data.source import scan
from plusx.data.split import read_split_csv
from plusx.errors import watch as sentences
from plusx.images.decode import BadPhoto, Undecodable
from plusx.images.pool import DecodePool
from plusx.images.preprocess import Pixels, Preprocess
from plusx.images.source import Source
from plusx.metrics import percent
from plusx.report.pictures import jpeg
from plusx.run_folder import RunFolder
from plusx.serve.recorded import stamp_of
from plusx.serve.watched import Seen
from plusx.verbs.answers import read_answers

SHOWN = 12  # photos
PICTURE = 192  # px of a photo with an answer
QUALITY = 82
GONE = "gone"  # the key where there are none
AGAIN = 60.0  # seconds after which they are looked for again
LEAVING = 2.0  # seconds that a thread may take to its end
SMALLEST, LARGEST = 16, 512  # px of a photo as it is trained on

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Chosen:
    """A photo to be shown: what it is called, its content, and what is to be said of it."""

    name: str
    sha256: str
    label: str
    answer: str | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Shown:
    """Photos beside the curves, `told` why these. `pictures` are JPEG or PNG bytes, one for each of `photos`."""

    key: str = ""
    title: str = ""
    told: str = ""
    pixels: int | None = None  # at which the network looks at them, where they are shown so
    photos: tuple[Chosen, ...] = ()
    pictures: tuple[bytes, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures, which have addresses of their own."""
        photos = [dict(vars(photo)) for photo in self.photos]
        return {"key": self.key, "title": self.title, "told": self.told, "pixels": self.pixels, "photos": photos}


class Album:
    """The photos that go with a run as it is now; a context manager that ends its thread."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._lock = threading.Lock()
        self._made: tuple[Key, Shown] | None = None
        self._since = 0.0  # when they were made
        self._making: threading.Thread | None = None
        self._sources: tuple[tuple[str, ...], dict[str, Source]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._making is not None:
            self._making.join(LEAVING)

    def of(self, seen: Seen) -> Shown:
        """What goes with the run as it was seen; until that is ready, what went with it before."""
        key = self._key(seen)
        with self._lock:
            if key is not None and self._making is None and self._is_due(key):
                self._making = threading.Thread(target=self._work, args=(key, seen), name="album", daemon=True)
                self._making.start()
            return self._made[1] if self._made else Shown(told=sentences.LOOKING if key else "")

    def _is_due(self, key: Key) -> bool:
        """Whether there are none for this key, or they were gone a while ago: a disk may have come back."""
        if self._made is None or self._made[0] != key:
            return True
        return self._made[1].key == GONE and time.monotonic() - self._since > AGAIN

    def _work(self, key: Key, seen: Seen) -> None:
        shown = self._make(key, seen)
        with self._lock:
            self._made, self._since, self._making = (key, shown), time.monotonic(), None

    def _key(self, seen: Seen) -> Key | None:
        """What photos depend on: the answers where there are some, else the size that is trained at."""
        stamp = stamp_of(self.run.validation_answers)
        if stamp is not None:
            return ("answers", *stamp)
        if seen.size is None or not seen.data:
            return None
        return "training", min(max(seen.size, SMALLEST), LARGEST)

    def _make(self, key: Key, seen: Seen) -> Shown:
        try:
            return self._answers(seen) if key[0] == "answers" else self._training(key[1], seen)
        except Exception:  # photos are never worth the curves
            return Shown(key=GONE, told=sentences.GONE)

    def _training(self, size: int, seen: Seen) -> Shown:
        rows = [row for row in read_split_csv(self.run.split) if row.split == "train"]
        rows.sort(key=lambda row: row.sha256)  # a choice that is the same at every size
        classes = sorted({row.label for row in rows})
        dealt = itertools.zip_longest(*([r for r in rows if r.label == label][:SHOWN] for label in classes[:SHOWN]))
        chosen = [Chosen(row.path, row.sha256, row.label) for turn in dealt for row in turn if row is not None][:SHOWN]
        shown = Shown(f"training-{size}", "Photos it learns from", sentences.as_trained(size), size)
        return self._with_pictures(shown, chosen, Preprocess(size, size), seen.data)

    def _answers(self, seen: Seen) -> Shown:
        answered = read_answers(self.run.validation_answers)
        if answered is None:
            return Shown()
        top = answered.probabilities.max(axis=1)
        wrong = np.flatnonzero(answered.wrong)
        order = wrong[np.argsort(-top[wrong], kind="stable")] if len(wrong) else np.argsort(top, kind="stable")
        chosen = [
            Chosen(
                answered.names[i],
                answered.hashes[i],
                answered.classes[answered.labels[i]],
                answered.classes[int(answered.probabilities[i].argmax())],
                float(top[i]),
            )
            for i in order[:SHOWN]
        ]
        told = sentences.mistakes(len(wrong), len(top), percent(len(wrong) / len(top)))
        shown = Shown("answers", "Its surest mistakes" if len(wrong) else "Its least certain answers", told)
        return self._with_pictures(shown, chosen, Preprocess(PICTURE, PICTURE, decoder_scale=True), seen.data)

    def _with_pictures(self, shown: Shown, chosen: Sequence[Chosen], how: Preprocess, data: Sequence[str]) -> Shown:
        """`shown` with those of `chosen` whose bytes are still what they were."""
        found = self._found(chosen, data)
        there = [photo for photo in chosen if photo.name in found and _unchanged(found[photo.name], photo.sha256)]
        with DecodePool(how, workers=1) as pool:
            results = dict(through(pool.map, (found[photo.name] for photo in there)))
        pictures = list(_pictures(there, results, exact=shown.pixels is not None))
        told = shown.told
        if len(pictures) < len(chosen):
            told = f"{told} {sentences.not_shown(len(chosen) - len(pictures))}"
        key = hashlib.sha256(b"".join(picture for _, picture in pictures)).hexdigest()[:16]
        photos, data_of = tuple(photo for photo, _ in pictures), tuple(picture for _, picture in pictures)
        return replace(shown, key=f"{shown.key}-{key}", told=told, photos=photos, pictures=data_of)

    def _found(self, chosen: Sequence[Chosen], data: Sequence[str]) -> dict[str, Source]:
        """Where the chosen photos lie; DATA is listed once for the same ones."""
        names = tuple(photo.name for photo in chosen)
        if self._sources is None or self._sources[0] != names:
            wanted = set(names)
            listing = scan(list(data), trainable=False)
            self._sources = names, {photo.name: photo.source for photo in listing.photos if photo.name in wanted}
        return self._sources[1]


def _unchanged(source: Source, sha256: str) -> bool:
    try:
        return hashlib.sha256(read(source)).hexdigest() == sha256
    except (Undecodable, OSError):
        return False


def _pictures(
    photos: Sequence[Chosen], results: dict[int, Pixels | BadPhoto], *, exact: bool
) -> Iterator[tuple[Chosen, bytes]]:
    """Each photo with its picture; pixels that are to be seen one by one lose nothing."""
    for i, photo in enumerate(photos):
        pixels = results.get(i)
        if isinstance(pixels, np.ndarray):
            yield photo, _png(pixels) if exact else jpeg(pixels, QUALITY)


def _png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
