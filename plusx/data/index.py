"""The index of a folder of shards: every photo by shard and place, class, split, SHA-256 and near-duplicates, mapped.

One safetensors file beside the tars, in columns. Its header says which classes there are, and of each shard the name,
size and SHA-256. Opening it reads all columns once, a piece at a time, and keeps none of them in memory: they are
mapped. Nothing that it says is believed before it was checked, for photos are read where it sends their reader.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from plusx.durable import sha256_file
from plusx.errors import DataError
from plusx.errors import shards as sentences
from plusx.images.source import MAX_BYTES
from plusx.tensor_file import Contents, NoTensorFile, look, open_regular, parsed

INDEX = "index.safetensors"
KEY = "plusx.shards"  # of the document in the file's metadata
FORMAT = 1
SPLITS = ("train", "val", "test")  # a split is stored as its position here, -1 where DATA says none
MOST_SHARDS = 100_000
TOGETHER = 1 << 12  # rows that are looked through at once


class _Kind(NamedTuple):
    """The type of a column's numbers, and the shape of one row."""

    dtype: str
    row: tuple[int, ...] = ()


_DTYPES: Mapping[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
_COLUMNS: Mapping[str, _Kind] = {
    **{name: _Kind("I64") for name in ("offset", "length", "group", "name_ends")},
    **{"shard": _Kind("I32"), "label": _Kind("I32"), "split": _Kind("I8"), "sha256": _Kind("U8", (32,))},
}
_NAMES = "names"
_SHARD = re.compile(r"(?:(?:train|val|test)/)?[0-9]{6,12}\.tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Column = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar of photos: its name relative to the index, with slashes; its size in bytes; its SHA-256, hexadecimal."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, eq=False)
class Index:
    """Photos in the order of the DATA they were written from. Columns are mapped and only read, [n] unless said.

    `base`: what stands before the name of a shard, a folder or a URL, with its slash. `shard` is a position in
    `shards`, `offset` and `length` are bytes in it, `label` is a position in `classes`, `split` one in SPLITS or -1,
    `group` the first row that shows the same picture, `sha256` uint8 [n, 32].
    """

    base: str
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    shard: Column
    offset: Column
    length: Column
    label: Column
    split: Column
    group: Column
    sha256: Column
    name_ends: Column
    blob: Column

    def __len__(self) -> int:
        return len(self.length)

    def name(self, row: int) -> str:
        """What the photo at `row` was called in DATA; any bytes survive as surrogates."""
        start = int(self.name_ends[row - 1]) if row else 0
        return _text(self.blob[start : int(self.name_ends[row])].tobytes())

    def names(self) -> Iterator[str]:
        """All names in order, a piece of the file at a time."""
        start = 0
        for first in range(0, len(self), TOGETHER):
            ends = self.name_ends[first : first + TOGETHER].tolist()
            piece, before = self.blob[start : ends[-1]].tobytes(), start
            for end in ends:
                yield _text(piece[start - before : end - before])
                start = end

    def path(self, shard: Shard) -> Path:
        """Where a shard lies, of an index of this machine."""
        return Path(self.base + shard.name)

    def refuse_stale(self, sizes: Mapping[str, int] | None = None) -> None:
        """Raise DataError where a shard is missing or of another size, or others lie beside them.

        `sizes` are the bytes of what lies below `base`, by name; they are looked up where it is a folder.
        """
        found = self._sizes() if sizes is None else sizes
        for shard in self.shards:
            size = found.get(shard.name)
            if size is None:
                raise sentences.shard_missing(self.base, shard.name)
            if size != shard.bytes:
                raise sentences.shard_changed(self.base, shard.name, f"{size:,} bytes and not {shard.bytes:,}")
        known = {shard.name for shard in self.shards}
        for other in sorted(found.keys() - known, key=lambda name: (name.count("/"), name)):
            if other.endswith(".tar") and other.rpartition("/")[0] in ("", *SPLITS):
                raise sentences.shard_unknown(self.base, other)

    def _sizes(self) -> dict[str, int]:
        """The bytes of the shards and of what else is called like one."""
        tars = (tar for name in ("", *SPLITS) for tar in Path(self.base, name).glob("*.tar"))
        names = {shard.name for shard in self.shards} | {tar.relative_to(self.base).as_posix() for tar in tars}
        found = {}
        for name in names:
            with contextlib.suppress(OSError):
                found[name] = Path(self.base, name).stat().st_size
        return found

    def verify(self, on_progress: Progress | None = None) -> None:
        """Raise DataError where the bytes of a shard are others than were written; reads all of them."""
        for done, shard in enumerate(self.shards, start=1):
            try:
                found = sha256_file(self.path(shard))
            except OSError:
                raise sentences.shard_missing(self.base, shard.name) from None
            if found != shard.sha256:
                raise sentences.shard_changed(self.base, shard.name, "other bytes than were written")
            if on_progress is not None:
                on_progress(done, len(self.shards))


def beside(folder: str) -> Path | None:
    """The index that lies in a folder of this machine, None where there is none. Raises DataError for a damaged one.

    A file of that name that somebody else has made for another purpose is none.
    """
    path = Path(folder, INDEX)
    if not path.is_file():
        return None
    return path if KEY in (_looked_at(path)[0].metadata or {}) else None


def open_index(path: Path, base: str) -> Index:
    """The index in a file. `base` is put before the names of shards: a folder or a URL, with its slash at the end.

    Raises DataError where the file cannot be read or is not, in every row, what `to_bytes` makes.
    """
    found, start = _looked_at(path)
    try:
        mapped = np.memmap(path, np.uint8, "r")
        columns = {name: _column(mapped, start, found, name) for name in (*_COLUMNS, _NAMES)}
        classes, shards = _header(found)
        index = Index(base, classes, shards, blob=columns.pop(_NAMES), **columns)
        for first in range(0, len(index), TOGETHER):
            _check_rows(index, first, first + TOGETHER)
        if int(index.name_ends[-1]) != len(index.blob):
            raise ValueError("its names do not end where their bytes do")
    except OSError as error:
        raise sentences.index_unreadable(path, error) from None
    except ValueError as error:
        raise sentences.index_damaged(path, str(error)) from None
    return index


def to_bytes(
    classes: Sequence[str], shards: Sequence[Shard], columns: Mapping[str, Column], names: Sequence[str]
) -> bytes:
    """The bytes of an index; `columns` are those of `Index`, without names."""
    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    document = {
        "format": FORMAT,
        "classes": list(classes),
        "shards": [shard.name for shard in shards],
        "bytes": [shard.bytes for shard in shards],
        "sha256": [shard.sha256 for shard in shards],
    }
    whole = {**columns, "name_ends": ends, _NAMES: np.frombuffer(b"".join(encoded), np.uint8)}
    typed = {name: np.ascontiguousarray(whole[name], _DTYPES[kind.dtype]) for name, kind in _COLUMNS.items()}
    return safetensors.numpy.save(typed | {_NAMES: whole[_NAMES]}, metadata={KEY: json.dumps(document)})


def _text(encoded: bytes) -> str:
    return encoded.decode("utf-8", "surrogateescape")


def _looked_at(path: Path) -> tuple[Contents, int]:
    """What the file holds, and where its tensors begin."""
    try:
        with open_regular(path) as file:
            found = look(file, os.fstat(file.fileno()).st_size)
            return found, file.tell()
    except OSError as error:
        raise sentences.index_unreadable(path, error) from None
    except NoTensorFile as error:
        raise sentences.index_damaged(path, str(error)) from None
    except DataError:
        raise
    except ValueError as error:
        raise sentences.index_damaged(path, str(error)) from None


def _header(found: Contents) -> tuple[tuple[str, ...], tuple[Shard, ...]]:
    """Classes and shards. Raises ValueError where the document is not as written."""
    document = parsed((found.metadata or {}).get(KEY, ""))
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT}, the one that this plusx reads")
    classes, names, hashes = (_texts(document, key) for key in ("classes", "shards", "sha256"))
    sizes = document.get("bytes")
    if not isinstance(sizes, list) or not all(type(size) is int and 0 < size < 1 << 62 for size in sizes):
        raise ValueError("the sizes of its shards are not as written")
    if len({*classes}) < len(classes) or len({*names}) < len(names):
        raise ValueError("it names a class or a shard twice")
    if not all(map(_SHARD.fullmatch, names)) or not all(map(_SHA256.fullmatch, hashes)):
        raise ValueError("its shards are not called as shards are, or their SHA-256 are none")
    if not len(names) == len(sizes) == len(hashes) <= MOST_SHARDS:
        raise ValueError("it does not say of every shard how it is called, its size and its SHA-256")
    return tuple(classes), tuple(map(Shard, names, sizes, hashes))


def _texts(document: Mapping[str, Any], key: str) -> list[str]:
    found = document.get(key)
    if not isinstance(found, list) or not found or not all(isinstance(text, str) and text for text in found):
        raise ValueError(f"its {key} are not as written")
    return found


def _column(mapped: Column, start: int, found: Contents, name: str) -> Column:
    """One column as it lies in the file."""
    if {*found.tensors} != {*_COLUMNS, _NAMES}:
        raise ValueError("its columns are not those of an index")
    entry, count = found.tensors[name], found.tensors["length"].shape
    dtype, row = _COLUMNS.get(name, _Kind("U8"))
    if entry.dtype != dtype or len(count) != 1 or not count[0]:
        raise ValueError(f"its column {name} has numbers of another type, or none")
    if len(entry.shape) != 1 if name == _NAMES else entry.shape != (*count, *row):
        raise ValueError(f"its column {name} is not as long as the others")
    column: Column = np.ndarray(entry.shape, _DTYPES[dtype], mapped, start + entry.start)
    return column


def _check_rows(index: Index, first: int, end: int) -> None:
    """Raise ValueError where one of some rows says what cannot be."""
    part, rows = slice(first, end), np.arange(first, min(end, len(index)))
    shard, offset, length = index.shard[part], index.offset[part], index.length[part]
    sizes = np.array([each.bytes for each in index.shards], dtype=np.int64)
    _require((shard >= 0) & (shard < len(sizes)), "a shard that there is not", first)
    _require((length >= 0) & (length <= MAX_BYTES), "a length that no photo has", first)
    _require((offset >= 0) & (offset <= sizes[shard] - length), "bytes outside of its shard", first)
    label, split, group = index.label[part], index.split[part], index.group[part]
    _require((label >= 0) & (label < len(index.classes)), "a class that there is not", first)
    _require((split >= -1) & (split < len(SPLITS)), "a split that there is not", first)
    _require((group >= 0) & (group <= rows), "a group that begins after it", first)
    _require(index.group[group] == group, "a group that is none", first)
    ends = index.name_ends[max(first - 1, 0) : end]
    started = ends if first else np.concatenate([[0], ends])
    _require((np.diff(started) > 0) & (started[1:] <= len(index.blob)) & (started[:-1] >= 0), "no name", first)


def _require(holds: npt.NDArray[np.bool_], otherwise: str, first: int) -> None:
    if not holds.all():
        raise ValueError(f"its photo {first + int(np.argmin(holds)) + 1:,} has {otherwise}")
