"""DATA as training sees it: photos with labels, content hashes and a split; and its pixels, decoded once."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plusx.config import Config
from plusx.data import decisions, split
from plusx.data.cache import PixelStore, StreamingStore, pixel_store
from plusx.data.decisions import Decision, Effect
from plusx.data.drift import Named, drift
from plusx.data.files import is_tar
from plusx.data.near_duplicates import near_groups
from plusx.data.remote import is_url
from plusx.data.source import Listing, Photo, content_hashes, scan
from plusx.data.table import cell, text_of
from plusx.durable import write_file
from plusx.errors import data as sentences
from plusx.errors import use as use_errors
from plusx.images.decode import BadPhoto
from plusx.images.preprocess import Preprocess
from plusx.run_folder import RunFolder

Indices = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]
Store = PixelStore | StreamingStore

CACHE_MARGIN = 4 / 3  # training photos are cached this much larger than they are cropped


@dataclass(frozen=True)
class LabelledPhotos:
    """Every photo of DATA with its SHA-256 and the split it belongs to, in the order of the listing.

    `keys`: the smallest SHA-256 among a photo's near-duplicates, its own where it has none. `decided` is what decisions
    did to DATA; photos that they left out are not here.
    """

    listing: Listing
    hashes: tuple[str, ...]
    splits: tuple[str, ...]
    keys: tuple[str, ...]
    decided: Effect = field(default_factory=Effect)

    def rows(self, name: str) -> Indices:
        """Positions of the photos of one split, shape [n]."""
        return np.array([i for i, s in enumerate(self.splits) if s == name], dtype=np.int64)

    @property
    def every(self) -> Indices:
        """Positions of all photos, shape [n]."""
        return np.arange(len(self.hashes), dtype=np.int64)

    def labels(self, rows: Indices) -> Indices:
        """Their labels, shape [n]."""
        return self._labels[rows]

    def photos(self, rows: Indices) -> list[Photo]:
        """The photos at `rows`."""
        return [self.listing.photos[i] for i in rows]

    def chooses(self, rows: Indices, seed: int) -> npt.NDArray[np.bool_]:
        """Which of the validation photos at `rows` choose, shape [n]; the others calibrate."""
        return split.halves([self.keys[i] for i in rows], seed)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all photos and labels, whatever their order and names."""
        return split.fingerprint(self.hashes, self._labels.tolist())

    @cached_property
    def _labels(self) -> Indices:
        return np.array([-1 if p.label is None else p.label for p in self.listing.photos], dtype=np.int64)


def look(data: Sequence[str], config: Config, decided: Sequence[Path] = ()) -> LabelledPhotos:
    """List and hash the photos of DATA, obey the decisions in files, and split what is left, copies together.

    Raises DataError for anything that cannot be trained on, and for decisions that cannot be meant.
    """
    listing = scan(list(data))
    found = decisions.apply(listing, content_hashes(listing.photos), decisions.read(decided))
    decisions.refuse_strangers(found.effect, decided, listing.root)
    if found.effect.effective:
        decisions.refuse_too_few(found.listing)
    splits = _assigned(found.listing, found.hashes, config)
    return LabelledPhotos(found.listing, found.hashes, splits, found.hashes, found.effect)


def look_now(data: Sequence[str], run: RunFolder) -> LabelledPhotos:
    """The photos of DATA as it is now, without a split, as the decisions want them that the run was started with."""
    listing = scan(list(data))
    found = decisions.apply(listing, content_hashes(listing.photos), recorded_decisions(run))
    return LabelledPhotos(found.listing, found.hashes, (), found.hashes, found.effect)


def as_recorded(photos: LabelledPhotos, run: RunFolder, advice: str = use_errors.OLD_OR_NEW) -> LabelledPhotos:
    """The photos with the split that a run recorded.

    Raises DataError where they are not those it was started with, whatever would be decided of their split now.
    """
    rows, found = split.read_split_csv(run.split), named(photos)
    if changes := drift(rows, found):
        raise use_errors.changed(photos.listing.root, changes.told(), advice)
    recorded = {row.photo: row for row in rows}
    kept = [recorded[photo] for photo in found]
    return replace(photos, splits=tuple(r.split for r in kept), keys=tuple(r.group or r.sha256 for r in kept))


def split_photos(data: Sequence[str], run: RunFolder) -> LabelledPhotos:
    """The photos of DATA with the split that a run recorded; photos it does not know belong to none."""
    listing = scan(list(data), trainable=False)
    return with_recorded(listing, content_hashes(listing.photos), run)


def with_recorded(listing: Listing, hashes: Sequence[str], run: RunFolder) -> LabelledPhotos:
    """The same of photos that are listed and hashed already."""
    found = decisions.apply(listing, hashes, recorded_decisions(run))
    where = {(row.path, row.sha256): row.split for row in split.read_split_csv(run.split)}
    names = [photo.name for photo in found.listing.photos]
    splits = [where.get(key, "") for key in zip(names, found.hashes, strict=True)]
    return LabelledPhotos(found.listing, found.hashes, tuple(splits), found.hashes, found.effect)


def together(photos: LabelledPhotos, pixels: Pixels, config: Config) -> LabelledPhotos:
    """The photos split anew, near-duplicates among those with `pixels` on one side; splits that DATA has stay."""
    groups = near_groups(pixels.store.thumbnails(pixels.store_rows)) if len(pixels.rows) else pixels.rows
    keys = list(photos.hashes)
    least: dict[int, str] = {}
    for row, group in zip(pixels.rows.tolist(), groups.tolist(), strict=True):
        least[group] = min(least.get(group, photos.hashes[row]), photos.hashes[row])
    for row, group in zip(pixels.rows.tolist(), groups.tolist(), strict=True):
        keys[row] = least[group]
    return replace(photos, keys=tuple(keys), splits=_assigned(photos.listing, keys, config))


def recorded_decisions(run: RunFolder) -> tuple[Decision, ...]:
    """The decisions that a run was started with; none where it had none."""
    return decisions.read([run.decisions]) if run.decisions.exists() else ()


def _assigned(listing: Listing, keys: Sequence[str], config: Config) -> tuple[str, ...]:
    fractions = split.parse_fractions(config.split) if config.split else None
    return split.assign(listing, keys, fractions, config.splitting_seed, carve=config.validation)


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
    """The decoded photos of one split, or of all. `rows` are positions in the listing, `store_rows` in the store."""

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
    facts = zip(named(photos), photos.splits, photos.keys, strict=True)
    return [
        split.Row(path, label, where, sha256, key if key != sha256 else "")
        for (path, label, sha256), where, key in facts
    ]


def refuse_lost(path: Path, photos: LabelledPhotos, name: str) -> None:
    """Raise DataError where photos of one recorded split are gone or edited; others may have come."""
    if found := drift(split.read_split_csv(path), named(photos), of=name).told():
        raise use_errors.changed(photos.listing.root, found)


def named(photos: LabelledPhotos) -> list[Named]:
    """Path, class and SHA-256 of every photo."""
    classes = photos.listing.classes
    return [(p.name, classes[p.label or 0], h) for p, h in zip(photos.listing.photos, photos.hashes, strict=True)]


def write_skipped(path: Path, bad: Sequence[tuple[str, BadPhoto]]) -> None:
    """Record the photos that a run leaves out, with the reason of each."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("path", "code", "reason"))
    writer.writerows((cell(name), why.code, why.reason) for name, why in bad)
    write_file(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_skipped(path: Path) -> tuple[tuple[str, BadPhoto], ...]:
    """The photos that `write_skipped` recorded; none where there is no such file."""
    if not path.exists():
        return ()
    text = io.StringIO(path.read_bytes().decode("utf-8", "surrogateescape"), newline="")
    return tuple((text_of(row["path"]), BadPhoto(row["code"], row["reason"])) for row in csv.DictReader(text))


def without(pixels: Pixels, photos: LabelledPhotos, names: AbstractSet[str]) -> Pixels:
    """The same without the photos called `names`."""
    keep = np.array([photo.name not in names for photo in photos.photos(pixels.rows)], dtype=bool)
    return replace(pixels, rows=pixels.rows[keep], store_rows=pixels.store_rows[keep])


def only(pixels: Pixels, photos: LabelledPhotos, name: str) -> Pixels:
    """Of the pixels of all photos, those of one split."""
    keep = np.isin(pixels.rows, photos.rows(name))
    return replace(pixels, rows=pixels.rows[keep], store_rows=pixels.store_rows[keep])


def refuse_lost_to_reading(photos: LabelledPhotos, names: AbstractSet[str]) -> None:
    """Raise DataError where photos that a run trains or chooses with cannot be read any more."""
    lost = names & {p.name for p, where in zip(photos.listing.photos, photos.splits, strict=True) if where != "test"}
    if lost:
        raise use_errors.changed(photos.listing.root, {"that can be read no more": sorted(lost)})


def absolute(data: Sequence[str]) -> tuple[str, ...]:
    """DATA as it is written into the run: the same photos whatever the working folder of the next command."""
    return tuple(d if is_url(d) else os.path.abspath(d) for d in data)  # noqa: PTH100 - keeps glob characters


def name_of(data: Sequence[str]) -> str:
    """What DATA is called: its folder, or that around its first archive or table; "" where it has no name."""
    first = Path(absolute(data)[0])
    is_file = "*" in first.name or first.suffix == ".csv" or is_tar(first.name)
    return (first.parent if is_file else first).name
