"""Training, validation and test: a split keyed by content, so that equal photos never lie on two sides."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plusx import keyed
from plusx.data.index import SPLITS, TOGETHER
from plusx.data.listing import Digests, Listing, Sides, labels_of, splits_of
from plusx.data.table import cell, text_of
from plusx.durable import sha256_lines, writing
from plusx.errors import data as sentences

MANY = 10_000  # from so many photos on, a twentieth each is enough to choose and to test by
FEW_FRACTIONS, MANY_FRACTIONS = (0.8, 0.1, 0.1), (0.9, 0.05, 0.05)
NAMES = SPLITS
_TRAIN, _VAL, _TEST, _OPEN = 0, 1, 2, -1  # positions in NAMES; not decided yet
_COLUMNS = ("path", "class", "split", "sha256", "group")
_OLDER = _COLUMNS[:4]  # as runs were recorded before near-duplicates were kept together

Fractions = tuple[float, float, float]
Places = npt.NDArray[np.int64]


def assign(
    listing: Listing, hashes: Sequence[str], fractions: Fractions | None, seed: int, *, carve: bool = True
) -> Sides:
    """The split of every photo, in the order of the listing.

    Folders that DATA has are kept; where `val/` or `test/` is missing, some of `train/` takes its place.
    Without any, `fractions` of every class are taken. With `carve` false nothing goes to validation, and
    nothing at all leaves a `train/` folder. Which photos are taken depends on their bytes and the seed
    alone: copies stay together, no class is left without training photos by that, and new photos leave
    the others where they are as far as the counts allow. With the key of its near-duplicates in the place of a
    photo's hash, these stay together as copies do.

    Raises UsageError for `fractions` of DATA that has its own splits, unless only `val/` is missing and they leave the
    test photos alone, such as 90/10/0; a `train/` folder alone says nothing of the other two, so there they are taken
    at their word.
    """
    given = splits_of(listing.photos)
    if fractions and listing.has_splits and (_VAL in given or fractions[2]):
        raise sentences.split_given_twice(listing.root)
    train, val, test = fractions or default_fractions(len(given))
    if listing.has_splits or (fractions is None and (given != _OPEN).any()):
        val, test = val * (carve and _VAL not in given), test * (carve and _TEST not in given)
        shares = (1 - val - test, val, test)
        open_rows = np.flatnonzero(given <= _TRAIN)
    else:
        shares = (train, val, test) if carve else (train + val, 0.0, test)
        open_rows = np.arange(len(given))
    splits = np.where(given == _OPEN, np.int8(_TRAIN), given)
    splits[open_rows] = _stratified(listing, hashes, open_rows, shares, seed)
    return Sides(splits)


def default_fractions(n: int) -> Fractions:
    """80/10/10, from 10,000 photos on 90/5/5."""
    return MANY_FRACTIONS if n >= MANY else FEW_FRACTIONS


def parse_fractions(text: str) -> Fractions:
    """'80/10/10' as fractions. Raises UsageError unless three whole percentages add up to 100."""
    match = re.fullmatch(r"\s*(\d+)/(\d+)/(\d+)\s*", text)
    parts = [int(part) for part in match.groups()] if match else []
    if sum(parts) != 100 or parts[0] == 0:
        raise sentences.bad_split(text)
    return parts[0] / 100, parts[1] / 100, parts[2] / 100


def halves(hashes: Sequence[str], seed: int) -> npt.NDArray[np.bool_]:
    """Which validation photos choose (True) and which calibrate (False), shape [n]: half of the distinct ones each.

    As in `assign`, keys of near-duplicates in the place of hashes keep these on one side.
    """
    keys = content_keys(hashes, seed, "halves")
    ranked = np.unique(keys)  # copies lie on one side; with one photo, it chooses
    return np.isin(keys, ranked[: (len(ranked) + 1) // 2])


def folds(labels: Sequence[int], keys: Sequence[str], count: int, seed: int) -> Places:
    """The fold of every photo, 0 to `count` - 1, shape [n]: every class is dealt out in the order of content keys.

    Photos with one key lie in one fold; those of several classes are dealt with the first.
    """
    numbers = content_keys(keys, seed, "folds")
    distinct, rank = np.unique(numbers, return_inverse=True)
    decided = np.full(len(distinct), _OPEN, dtype=np.int64)
    for photos in _distinct_by_class(rank, np.asarray(labels, dtype=np.int64), max(labels) + 1):
        counted = photos[decided[photos] == _OPEN]
        decided[counted] = np.arange(len(counted)) % count
    return decided[rank]


def fingerprint(hashes: Sequence[str], labels: Sequence[int] | Places) -> str:
    """SHA-256 over the photos and their labels, whatever their order."""
    digests, numbers = Digests.of(hashes), np.asarray(labels, dtype=np.int64)
    values = np.unique(numbers)
    texts = sorted(map(str, values.tolist()))  # labels sort as text
    places = np.array([texts.index(str(value)) for value in values.tolist()], dtype=np.int32)
    rank = places[np.searchsorted(values, numbers)]
    order = np.lexsort((rank, digests.values))
    runs = (order[first : first + TOGETHER] for first in range(0, len(order), TOGETHER))
    return sha256_lines(
        f"{h} {texts[place]}" for rows in runs for h, place in zip(digests.at(rows), rank[rows].tolist(), strict=True)
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One line of split.csv. `group`: the key of the near-duplicates a photo belongs to, "" where it has none."""

    path: str
    label: str
    split: str
    sha256: str
    group: str = ""

    @property
    def photo(self) -> tuple[str, str, str]:
        """Path, class and SHA-256: what a run needs to find again."""
        return self.path, self.label, self.sha256


def write_split_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write split.csv; any file name survives it, and none is a formula there (`plusx.data.table`)."""
    with writing(path) as file:
        writer = csv.writer(codecs.getwriter("utf-8")(file, "surrogateescape"))
        writer.writerow(_COLUMNS)
        writer.writerows((cell(row.path), cell(row.label), row.split, row.sha256, row.group) for row in rows)


def read_split_csv(path: Path) -> list[Row]:
    """The rows that `write_split_csv` wrote. Raises DataError where the file is missing or damaged."""
    return list(each_row(path))


def each_row(path: Path) -> Iterator[Row]:
    """The same one after the other, never all in memory."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield from _rows(path, csv.reader(file, strict=True))
    except OSError as error:
        raise sentences.unreadable(path, error) from None
    except (csv.Error, ValueError) as error:
        raise sentences.damaged_split(path, str(error)) from None


def _rows(path: Path, lines: Iterator[list[str]]) -> Iterator[Row]:
    header = next(lines, [])
    if tuple(header) not in (_COLUMNS, _OLDER):
        raise sentences.damaged_split(path, f"its first line names {', '.join(header) or 'nothing'}")
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header) or line[2] not in NAMES:
            raise sentences.damaged_split(path, f"row {number} is no photo with its split")
        yield Row(text_of(line[0]), text_of(line[1]), *line[2:])


def _stratified(
    listing: Listing, hashes: Sequence[str], rows: Places, shares: Fractions, seed: int
) -> npt.NDArray[np.int8]:
    """The splits of `rows`: rank the distinct photos of every class by content key and cut at the shares.

    A photo that lies in several classes counts in the first of them, and its copies follow. Arrays and no objects:
    of a million photos, sorting and looking up text would cost three times as much each as of ten thousand.
    """
    keys = content_keys(hashes, seed, "split")[rows]
    distinct, rank = np.unique(keys, return_inverse=True)  # rank: of every row among the distinct photos
    labels = labels_of(listing.photos)[rows]
    assert not len(labels) or labels.min() >= 0, "a listing of labelled photos has labels"
    ranked = _distinct_by_class(rank, labels, len(listing.classes))
    decided = np.full(len(distinct), _OPEN, dtype=np.int8)
    for photos in ranked:
        counted = photos[decided[photos] == _OPEN]
        decided[counted] = _cut(len(counted), shares)
    for photos in ranked:
        if len(photos) and decided[photos].all():  # none trains: all of them followed copies in another class
            decided[photos[-1]] = _TRAIN
    return decided[rank]


def content_keys(hashes: Sequence[str], seed: int, purpose: str) -> npt.NDArray[np.uint64]:
    """The content key of every photo for a purpose, [n]."""
    return np.fromiter((keyed.content_key(seed, h, purpose) for h in hashes), np.uint64, len(hashes))


def _distinct_by_class(rank: Places, labels: Places, classes: int) -> list[Places]:
    """The distinct photos of every class, in ascending rank."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(1, classes))
    return [np.unique(photos) for photos in np.split(rank[order], starts)]


def _cut(n: int, shares: Fractions) -> npt.NDArray[np.int8]:
    """Splits for n photos in ranked order: test first, then validation, the rest trains.

    Every share above zero gets at least one photo where there are at least three; of two, one trains.
    """
    least = 1 if n >= 3 else 0
    spare = max(0, n - 1)  # the one that is left trains
    test = min(max(least, round(n * shares[2])), spare - least) if shares[2] and spare else 0
    val = min(max(least, round(n * shares[1])), spare - test) if shares[1] else 0
    return np.repeat(np.array([_TEST, _VAL, _TRAIN], dtype=np.int8), [test, val, n - test - val])
