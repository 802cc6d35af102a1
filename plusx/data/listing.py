"""Photos in the order of DATA: as objects, made once for folders and on demand for shards; and columns over them.

Of a million photos an object each is a gigabyte. What all of them are asked for is therefore a column: labels and
splits are numbers, SHA-256 are bytes, and text is made of them when one photo is looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import numpy.typing as npt

from plusx.data.index import SPLITS, TOGETHER, Index
from plusx.images.source import Source

Indices = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]  # positions in SPLITS, -1 where there is none
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo: its name as shown, where its bytes are, its label and the split DATA puts it in."""

    name: str
    source: Source
    label: int | None = None
    split: str | None = None


@dataclass(frozen=True)
class Listing:
    """Every photo of DATA; `classes` are sorted, labels are positions in them; `junk` was left out.

    `has_splits`: DATA says itself which photos validate or test. A `train/` folder alone does not; its photos
    have the split "train" all the same. `outside`: links that lead out of DATA, which are followed.
    """

    root: str
    classes: tuple[str, ...]
    photos: Sequence[Photo]
    junk: tuple[str, ...]
    has_splits: bool
    outside: tuple[str, ...] = ()


class Digests(Sequence[str]):
    """SHA-256 of photos, hexadecimal when one is looked at, kept as `array` uint8 [n, 32]."""

    def __init__(self, array: npt.NDArray[np.uint8]) -> None:
        self.array = array

    @classmethod
    def of(cls, hashes: Sequence[str]) -> Digests:
        """The same hashes; those that are kept as bytes already are not copied."""
        if isinstance(hashes, Digests):
            return hashes
        return cls(np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, 32))

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Digests: ...
    def __getitem__(self, place: int | slice) -> str | Digests:
        found = self.array[place]
        return Digests(found) if isinstance(place, slice) else found.tobytes().hex()

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), TOGETHER):
            text = self.array[first : first + TOGETHER].tobytes().hex()
            yield from (text[i : i + 64] for i in range(0, len(text), 64))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_equal, self, other))

    __hash__ = None  # type: ignore[assignment] # as of a list: nobody looks for all hashes in a table

    def at(self, rows: Indices) -> Digests:
        """The hashes at `rows`; all of them are not copied."""
        return self if _is_all(rows, len(self)) else Digests(self.array[rows])

    def but(self, others: Mapping[int, str]) -> Digests:
        """The same with other hashes at some rows. Raises ValueError for one that is no SHA-256."""
        if not others:
            return self
        changed = self.array.copy()
        changed[list(others)] = Digests.of(tuple(others.values())).array
        return Digests(changed)

    @property
    def values(self) -> npt.NDArray[np.bytes_]:
        """Each as one value to sort and to compare, [n]."""
        return np.ascontiguousarray(self.array).view("S32")[:, 0]

    @property
    def words(self) -> npt.NDArray[np.uint64]:
        """The first eight bytes of each as a number, [n]."""
        return np.ascontiguousarray(self.array[:, :8]).view(">u8")[:, 0].astype(np.uint64)

    def repeated(self) -> Indices:
        """Rows of hashes that come more than once, ascending; by chance of one in 2^64, others too."""
        words = self.words
        order = np.argsort(words, kind="stable")
        same = words[order[1:]] == words[order[:-1]]
        return np.sort(order[np.concatenate([same, [False]]) | np.concatenate([[False], same])])


class Sides(Sequence[str]):
    """The split of photos, "" where there is none, kept as `codes` int8 [n]."""

    def __init__(self, codes: Codes) -> None:
        self.codes = codes

    @classmethod
    def of(cls, splits: Sequence[str]) -> Sides:
        """The same splits; those that are kept as numbers already are not copied."""
        if isinstance(splits, Sides):
            return splits
        return cls(np.fromiter((_code(split) for split in splits), np.int8, len(splits)))

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sides: ...
    def __getitem__(self, place: int | slice) -> str | Sides:
        return Sides(self.codes[place]) if isinstance(place, slice) else (*SPLITS, "")[self.codes[place]]

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), TOGETHER):
            yield from ((*SPLITS, "")[code] for code in self.codes[first : first + TOGETHER].tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_equal, self, other))

    __hash__ = None  # type: ignore[assignment]


class IndexedPhotos(Sequence[Photo]):
    """Photos of shards: a Photo is made when it is asked for.

    `rows`: their rows in the index, ascending, None for all. `labels`: int32 [n], of the index unless others are given.
    """

    def __init__(self, index: Index, rows: Indices | None = None, labels: npt.NDArray[np.int32] | None = None) -> None:
        self.table = index
        self.rows = np.arange(len(index)) if rows is None else rows
        self.labels = (index.label if rows is None else index.label[rows]) if labels is None else labels

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Photo: ...
    @overload
    def __getitem__(self, place: slice) -> IndexedPhotos: ...
    def __getitem__(self, place: int | slice) -> Photo | IndexedPhotos:
        if isinstance(place, slice):
            return IndexedPhotos(self.table, self.rows[place], self.labels[place])
        row, index = int(self.rows[place]), self.table
        sha256 = index.sha256[row].tobytes().hex()
        source = Source(self.file(row), int(index.offset[row]), int(index.length[row]), sha256)
        return Photo(index.name(row), source, int(self.labels[place]), (*SPLITS, None)[index.split[row]])

    def file(self, row: int) -> str:
        """The file, or the address, in which the photo at a row of the index lies."""
        return self.table.base + self.table.shards[int(self.table.shard[row])].name

    def at(self, rows: Indices) -> IndexedPhotos:
        """The photos at `rows` of these, ascending."""
        return self if _is_all(rows, len(self)) else IndexedPhotos(self.table, self.rows[rows], self.labels[rows])

    def names(self) -> Iterator[str]:
        """All names in order."""
        if _is_all(self.rows, len(self.table)):
            return self.table.names()
        return (self.table.name(row) for row in self.rows)

    @property
    def hashes(self) -> Digests:
        """SHA-256 of the photos."""
        return Digests(self.table.sha256).at(self.rows)

    @property
    def groups(self) -> Indices:
        """The first of these photos that shows the same picture, for each, [n]."""
        groups: Indices = self.table.group[self.rows]
        if _is_all(self.rows, len(self.table)):
            return groups
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        return first[inverse]


class Names(Sequence[str]):
    """Names of photos, each looked up when it is asked for."""

    def __init__(self, photos: Sequence[Photo], rows: Indices) -> None:
        self._photos, self._rows = photos, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Names: ...
    def __getitem__(self, place: int | slice) -> str | Names:
        if isinstance(place, slice):
            return Names(self._photos, self._rows[place])
        return self._photos[int(self._rows[place])].name


def names_of(photos: Sequence[Photo]) -> Iterator[str]:
    """The names of all photos in order."""
    return photos.names() if isinstance(photos, IndexedPhotos) else (photo.name for photo in photos)


def labels_of(photos: Sequence[Photo]) -> Indices:
    """The labels of all photos, -1 where there is none, [n]."""
    if isinstance(photos, IndexedPhotos):
        return photos.labels.astype(np.int64)
    return np.fromiter((-1 if p.label is None else p.label for p in photos), np.int64, len(photos))


def splits_of(photos: Sequence[Photo]) -> Codes:
    """The splits in which DATA puts its photos, as positions in SPLITS, -1 where it says none, [n]."""
    if isinstance(photos, IndexedPhotos):
        return np.asarray(photos.table.split[photos.rows])
    return np.fromiter((_code(p.split or "") for p in photos), np.int8, len(photos))


def at(photos: Sequence[Photo], rows: Indices) -> Sequence[Photo]:
    """The photos at `rows`, ascending."""
    if _is_all(rows, len(photos)):
        return photos
    return photos.at(rows) if isinstance(photos, IndexedPhotos) else tuple(photos[i] for i in rows)


def relabelled(photos: Sequence[Photo], labels: Indices) -> Sequence[Photo]:
    """The photos with these labels."""
    if isinstance(photos, IndexedPhotos):
        return IndexedPhotos(photos.table, photos.rows, labels.astype(np.int32))
    pairs = zip(photos, labels.tolist(), strict=True)
    return tuple(photo if photo.label == label else replace(photo, label=label) for photo, label in pairs)


def called(photos: Sequence[Photo], names: Collection[str]) -> Mask:
    """Which photos have one of some names, [n]."""
    if not names:
        return np.zeros(len(photos), bool)
    return np.fromiter((name in names for name in names_of(photos)), bool, len(photos))


def _code(split: str) -> int:
    return SPLITS.index(split) if split else -1


def _is_all(rows: Indices, count: int) -> bool:
    """Whether rows are all there are, in order."""
    return len(rows) == count and np.array_equal(rows, np.arange(count))


def _equal(one: object, other: object) -> bool:
    return one == other
