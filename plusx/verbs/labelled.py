"""DATA as training sees it: photos with labels, content hashes and a split; and its pixels, decoded once."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
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
from plusx.data.index import TOGETHER
from plusx.data.listing import Digests, IndexedPhotos, Listing, Photo, Sides, at, called, labels_of, names_of
from plusx.data.near_duplicates import near_groups
from plusx.data.remote import is_url
from plusx.data.source import content_hashes, scan
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
    hashes: Sequence[str]
    splits: Sequence[str]
    keys: Sequence[str]
    decided: Effect = field(default_factory=Effect)

    def rows(self, name: str) -> Indices:
        """Positions of the photos of one split, shape [n]."""
        return np.flatnonzero(Sides.of(self.splits).codes == split.NAMES.index(name))

    @property
    def every(self) -> Indices:
        """Positions of all photos, shape [n]."""
        return np.arange(len(self.hashes), dtype=np.int64)

    def labels(self, rows: Indices) -> Indices:
        """Their labels, shape [n]."""
        return self._labels[rows]

    def photos(self, rows: Indices) -> Sequence[Photo]:
        """The photos at `rows`."""
        return at(self.listing.photos, rows)

    def chooses(self, rows: Indices, seed: int) -> npt.NDArray[np.bool_]:
        """Which of the validation photos at `rows` choose, shape [n]; the others calibrate."""
        return split.halves(Digests.of(self.keys).at(rows), seed)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all photos and labels, whatever their order and names."""
        return split.fingerprint(self.hashes, self._labels)

    @cached_property
    def _labels(self) -> Indices:
        return labels_of(self.listing.photos)


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
    if (same := _in_order(photos, run)) is not None:
        return same
    rows, found = split.read_split_csv(run.split), named(photos)
    if changes := drift(rows, found):
        raise use_errors.changed(photos.listing.root, changes.told(), advice)
    recorded = {row.photo: row for row in rows}
    kept = [recorded[photo] for photo in found]
    return replace(photos, splits=tuple(r.split for r in kept), keys=tuple(r.group or r.sha256 for r in kept))


def _in_order(photos: LabelledPhotos, run: RunFolder) -> LabelledPhotos | None:
    """The same where a run recorded these very photos in this order, one after the other; else None."""
    codes, keys = np.empty(len(photos.hashes), np.int8), Digests.of(photos.hashes)
    groups: dict[int, str] = {}
    try:
        for place, (row, photo) in enumerate(zip(split.each_row(run.split), each_named(photos), strict=True)):
            if row.photo != photo:
                return None
            codes[place] = split.NAMES.index(row.split)
            if row.group:
                groups[place] = row.group
        return replace(photos, splits=Sides(codes), keys=keys.but(groups))
    except ValueError:  # more rows than photos, or fewer; or a group that is no SHA-256
        return None


def split_photos(data: Sequence[str], run: RunFolder) -> LabelledPhotos:
    """The photos of DATA with the split that a run recorded; photos it does not know belong to none."""
    listing = scan(list(data), trainable=False)
    return with_recorded(listing, content_hashes(listing.photos), run)


def with_recorded(listing: Listing, hashes: Sequence[str], run: RunFolder) -> LabelledPhotos:
    """The same of photos that are listed and hashed already."""
    found = decisions.apply(listing, hashes, recorded_decisions(run))
    where = {(row.path, row.sha256): row.split for row in split.each_row(run.split)}
    splits = [where.get(key, "") for key in zip(names_of(found.listing.photos), found.hashes, strict=True)]
    return LabelledPhotos(found.listing, found.hashes, Sides.of(splits), found.hashes, found.effect)


def together(photos: LabelledPhotos, pixels: Pixels, config: Config) -> LabelledPhotos:
    """The photos split anew, near-duplicates among those with `pixels` on one side; splits that DATA has stay."""
    groups, hashes = near(photos, pixels), Digests.of(photos.hashes)
    several = np.flatnonzero(np.bincount(groups, minlength=len(groups))[groups] > 1)
    least: dict[int, str] = {}
    for place in several.tolist():
        group, sha256 = int(groups[place]), hashes[pixels.rows[place]]
        least[group] = min(least.get(group, sha256), sha256)
    keys = hashes.but({int(pixels.rows[place]): least[int(groups[place])] for place in several.tolist()})
    return replace(photos, keys=keys, splits=_assigned(photos.listing, keys, config))


def near(photos: LabelledPhotos, pixels: Pixels) -> Indices:
    """Of each photo with pixels the first one that shows the same picture, as positions among them, [n].

    Of shards they were found when the index was written, so that not all have to be looked at for it.
    """
    if not len(pixels.rows):
        return pixels.rows
    listed = photos.listing.photos
    if isinstance(listed, IndexedPhotos):
        return listed.at(pixels.rows).groups
    return near_groups(pixels.store.thumbnails(pixels.store_rows))


def recorded_decisions(run: RunFolder) -> tuple[Decision, ...]:
    """The decisions that a run was started with; none where it had none."""
    return decisions.read([run.decisions]) if run.decisions.exists() else ()


def _assigned(listing: Listing, keys: Sequence[str], config: Config) -> Sides:
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
    """Pixels of the photos at `rows`, from the cache or decoded into it; unreadable photos are set aside, by name.

    Those of shards were all looked at when these were written: where they do not fit into the cache, that is believed.
    """
    chosen, hashes = at(photos.listing.photos, rows), Digests.of(photos.hashes).at(rows)
    surveyed = isinstance(chosen, IndexedPhotos)
    workers = config.workers
    store, bad = pixel_store(chosen, hashes, preprocess, workers=workers, on_progress=progress, known_good=surveyed)
    good = np.ones(len(rows), bool)
    good[list(bad)] = False
    named = tuple((chosen[i].name, why) for i, why in sorted(bad.items()))
    return Pixels(store, rows[good], np.flatnonzero(good), named)


def refuse_bad(data: Sequence[str], total: int, bad: Sequence[tuple[str, BadPhoto]], command: str) -> None:
    """Raise the DataError that lists every unreadable photo, and the `command` that trains without them."""
    listed = [(name, why.reason) for name, why in bad]
    raise sentences.bad_photos(" ".join(data), listed, total, command)


def split_rows(photos: LabelledPhotos) -> Iterator[split.Row]:
    """The rows of split.csv."""
    facts = zip(each_named(photos), photos.splits, photos.keys, strict=True)
    for (path, label, sha256), where, key in facts:
        yield split.Row(path, label, where, sha256, key if key != sha256 else "")


def refuse_lost(path: Path, photos: LabelledPhotos, name: str) -> None:
    """Raise DataError where photos of one recorded split are gone or edited; others may have come."""
    if found := drift(split.read_split_csv(path), named(photos), of=name).told():
        raise use_errors.changed(photos.listing.root, found)


def named(photos: LabelledPhotos) -> list[Named]:
    """Path, class and SHA-256 of every photo."""
    return list(each_named(photos))


def each_named(photos: LabelledPhotos) -> Iterator[Named]:
    """The same one after the other."""
    classes = photos.listing.classes
    labels = (
        classes[label]
        for first in range(0, len(photos.hashes), TOGETHER)
        for label in photos.labels(photos.every[first : first + TOGETHER]).tolist()
    )
    return zip(names_of(photos.listing.photos), labels, photos.hashes, strict=True)


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
    keep = ~called(at(photos.listing.photos, pixels.rows), names)
    return replace(pixels, rows=pixels.rows[keep], store_rows=pixels.store_rows[keep])


def only(pixels: Pixels, photos: LabelledPhotos, name: str) -> Pixels:
    """Of the pixels of all photos, those of one split."""
    keep = np.isin(pixels.rows, photos.rows(name))
    return replace(pixels, rows=pixels.rows[keep], store_rows=pixels.store_rows[keep])


def refuse_lost_to_reading(photos: LabelledPhotos, names: AbstractSet[str]) -> None:
    """Raise DataError where photos that a run trains or chooses with cannot be read any more."""
    places = np.flatnonzero(called(photos.listing.photos, names)).tolist()
    lost = {photos.listing.photos[place].name for place in places if photos.splits[place] != "test"}
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
