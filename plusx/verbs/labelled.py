"""DATA as training sees it: photos with labels, content hashes and a split; and its pixels, decoded once."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plusx.config import Config
from plusx.data import split
from plusx.data.cache import PixelStore, StreamingStore, pixel_store
from plusx.data.source import Listing, Photo, content_hashes, scan
from plusx.durable import write_file
from plusx.errors import data as sentences
from plusx.errors import use as use_errors
from plusx.images.decode import BadPhoto
from plusx.images.preprocess import Preprocess

Indices = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]
Store = PixelStore | StreamingStore

CACHE_MARGIN = 4 / 3  # training photos are cached this much larger than they are cropped


@dataclass(frozen=True)
class LabelledPhotos:
    """Every photo of DATA with its SHA-256 and the split it belongs to, in the order of the listing."""

    listing: Listing
    hashes: tuple[str, ...]
    splits: tuple[str, ...]

    def rows(self, name: str) -> Indices:
        """Positions of the photos of one split, shape [n]."""
        return np.array([i for i, s in enumerate(self.splits) if s == name], dtype=np.int64)

    def labels(self, rows: Indices) -> Indices:
        """Their labels, shape [n]."""
        return self._labels[rows]

    def photos(self, rows: Indices) -> list[Photo]:
        """The photos at `rows`."""
        return [self.listing.photos[i] for i in rows]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all photos and labels, whatever their order and names."""
        return split.fingerprint(self.hashes, self._labels.tolist())

    @cached_property
    def _labels(self) -> Indices:
        return np.array([-1 if p.label is None else p.label for p in self.listing.photos], dtype=np.int64)


def look(data: Sequence[str], config: Config) -> LabelledPhotos:
    """List, hash and split the photos of DATA. Raises DataError for anything that cannot be trained on."""
    listing = scan(list(data))
    hashes = content_hashes(listing.photos)
    fractions = split.parse_fractions(config.split) if config.split else None
    splits = split.assign(listing, hashes, fractions, config.splitting_seed, carve=config.validation)
    return LabelledPhotos(listing, tuple(hashes), tuple(splits))


def split_photos(data: Sequence[str], recorded: Path) -> LabelledPhotos:
    """The photos of DATA with the split that a run recorded; photos it does not know belong to none."""
    listing = scan(list(data), trainable=False)
    where = {(row.path, row.sha256): row.split for row in split.read_split_csv(recorded)}
    hashes = content_hashes(listing.photos)
    splits = [where.get((photo.name, h), "") for photo, h in zip(listing.photos, hashes, strict=True)]
    return LabelledPhotos(listing, tuple(hashes), tuple(splits))


def tested_preprocess(config: Config) -> Preprocess:
    """What every photo goes through outside training: the same as in it, or it would be sharper than what was learned.

    The network then looks at it at `tested_size`.
    """
    return training_preprocess(config, tested_size(config))


def tested_size(config: Config) -> int:
    """The size in pixels at which photos are tested."""
    return config.test_size or config.size


def training_preprocess(config: Config, largest: int) -> Preprocess:
    """What training photos are cached as: with random crops larger than needed, else exactly the crop."""
    exact = Preprocess(resize=round(largest * config.resize_ratio), crop=largest, mean=config.mean, std=config.std)
    return exact.enlarged(CACHE_MARGIN) if config.crop_scale else exact


@dataclass(frozen=True)
class Pixels:
    """The decoded photos of one split. `rows` are positions in the listing, `store_rows` in the store."""

    store: Store
    rows: Indices
    store_rows: Indices
    bad: tuple[tuple[str, BadPhoto], ...]


def decode(photos: LabelledPhotos, rows: Indices, preprocess: Preprocess, config: Config, progress: Progress) -> Pixels:
    """Pixels of the photos at `rows`, from the cache or decoded into it; unreadable photos are set aside, by name."""
    chosen = photos.photos(rows)
    hashes = [photos.hashes[i] for i in rows]
    store, bad = pixel_store(chosen, hashes, preprocess, workers=config.workers, on_progress=progress)
    good = np.array([i for i in range(len(rows)) if i not in bad], dtype=np.int64)
    named = tuple((chosen[i].name, why) for i, why in sorted(bad.items()))
    return Pixels(store, rows[good], good, named)


def refuse_bad(data: Sequence[str], total: int, bad: Sequence[tuple[str, BadPhoto]], command: str) -> None:
    """Raise the DataError that lists every unreadable photo, and the `command` that trains without them."""
    listed = [(name, why.reason) for name, why in bad]
    raise sentences.bad_photos(" ".join(data), listed, total, command)


def split_rows(photos: LabelledPhotos) -> list[split.Row]:
    """The rows of split.csv."""
    classes = photos.listing.classes
    return [
        split.Row(photo.name, classes[photo.label or 0], where, sha256)
        for photo, where, sha256 in zip(photos.listing.photos, photos.splits, photos.hashes, strict=True)
    ]


def refuse_changed(path: Path, photos: LabelledPhotos) -> None:
    """Raise DataError where DATA is not what split.csv recorded when the run was started."""
    recorded, found = split.read_split_csv(path), split_rows(photos)
    before, now = ({(row.path, row.label, row.sha256) for row in rows} for rows in (recorded, found))
    if before != now:  # which split they would now go to follows from that, and is no fault of its own
        example, *_ = min((before - now) or (now - before))
        raise use_errors.changed(photos.listing.root, len(now - before), len(before - now), example)


def refuse_lost(path: Path, photos: LabelledPhotos, name: str) -> None:
    """Raise DataError where photos of one recorded split are gone or edited; others may have come."""
    recorded = {row for row in split.read_split_csv(path) if row.split == name}
    lost = recorded - set(split_rows(photos))
    if lost:
        example = min(lost, key=lambda row: row.path).path
        raise use_errors.changed(photos.listing.root, 0, len(lost), example)


def write_skipped(path: Path, bad: Sequence[tuple[str, BadPhoto]]) -> None:
    """Record the photos that a run leaves out, with the reason of each."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("path", "code", "reason"))
    writer.writerows((name, why.code, why.reason) for name, why in bad)
    write_file(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_skipped(path: Path) -> tuple[tuple[str, BadPhoto], ...]:
    """The photos that `write_skipped` recorded; none where there is no such file."""
    if not path.exists():
        return ()
    text = io.StringIO(path.read_bytes().decode("utf-8", "surrogateescape"), newline="")
    return tuple((row["path"], BadPhoto(row["code"], row["reason"])) for row in csv.DictReader(text))


def without(pixels: Pixels, photos: LabelledPhotos, names: AbstractSet[str]) -> Pixels:
    """The same split without the photos called `names`."""
    keep = np.array([photo.name not in names for photo in photos.photos(pixels.rows)], dtype=bool)
    return replace(pixels, rows=pixels.rows[keep], store_rows=pixels.store_rows[keep])


def refuse_lost_to_reading(photos: LabelledPhotos, names: AbstractSet[str]) -> None:
    """Raise DataError where photos that a run trains or chooses with cannot be read any more."""
    lost = names & {p.name for p, where in zip(photos.listing.photos, photos.splits, strict=True) if where != "test"}
    if lost:
        raise use_errors.changed(photos.listing.root, 0, len(lost), min(lost))


def absolute(data: Sequence[str]) -> tuple[str, ...]:
    """DATA as it is written into the run: the same photos whatever the working folder of the next command."""
    return tuple(os.path.abspath(d) for d in data)  # noqa: PTH100 - keeps glob characters as they are
