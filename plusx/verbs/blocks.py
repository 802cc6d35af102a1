"""What is scored at a time: one archive, or so many loose photos, under a name that says what it holds.

The name is a digest of paths and sizes, so a second start, or another machine, finds the same blocks. Nothing that
an archive named by the user holds is listed here: millions of photos cost nothing until their block is in hand.
"""

# ruff: noqa: PTH113, PTH202, PTH207
# Paths are text by os.fsdecode here, as Source holds them.

from __future__ import annotations

import dataclasses
import glob
import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plusx.data.files import is_glob, is_tar
from plusx.data.source import Photo, walk
from plusx.images.source import Source

LOOSE = 1000  # photos in a block of those that lie in no archive


@dataclass(frozen=True)
class Block:
    """An `archive`, or some loose `photos`. `name` is 32 hexadecimal digits of what it holds, `shown` is for people."""

    name: str
    shown: str
    archive: str | None = None
    photos: tuple[Photo, ...] = ()

    def listed(self) -> Sequence[Photo]:
        """Its photos, in the order of its rows: that of `predict`."""
        return self.photos if self.archive is None else walk([self.archive])

    def to_json(self) -> str:
        """As text, for another process."""
        photos = [[photo.name, *dataclasses.astuple(photo.source)] for photo in self.photos]
        return json.dumps([self.name, self.shown, self.archive, photos])

    @classmethod
    def from_json(cls, text: str) -> Block:
        """What `to_json` wrote."""
        name, shown, archive, photos = json.loads(text)
        return cls(name, shown, archive, tuple(Photo(photo[0], Source(*photo[1:])) for photo in photos))


def blocks_of(paths: Iterable[str | Path]) -> list[Block]:
    """The blocks of photos, folders, globs and archives, in the order of `predict`; equal ones get names of their own."""
    unnamed = [block for path in paths for block in _blocks(os.fspath(path))]
    found, often = list[Block](), Counter[str]()
    for block in unnamed:
        digest = _digest([block.name, often[block.name]])
        often[block.name] += 1
        found.append(dataclasses.replace(block, name=digest))
    return found


def _blocks(path: str) -> Iterator[Block]:
    if is_glob(path) and (matches := sorted(glob.glob(path, recursive=True))):
        together = itertools.groupby(matches, key=lambda match: is_tar(match) and not os.path.isdir(match))
        for tars, group in together:
            yield from map(_archive, group) if tars else _loose(walk(group))
    elif is_tar(path) and not os.path.isdir(path):
        yield _archive(path)
    else:
        yield from _loose(walk([path]))


def _loose(photos: Sequence[Photo]) -> Iterator[Block]:
    """Archives that lie in a folder are blocks of their own; what lies between them is cut into pieces."""
    for archive, group in itertools.groupby(photos, key=_archive_around):
        if archive is not None:
            yield _archive(archive)
            continue
        run = tuple(group)
        yield from (_piece(run[start : start + LOOSE]) for start in range(0, len(run), LOOSE))


def _archive_around(photo: Photo) -> str | None:
    """The path of the archive that a photo lies in, as its name begins."""
    if photo.source.length < 0:
        return None
    ends = (match.start() for match in re.finditer("!/", photo.name))
    return next((photo.name[:end] for end in ends if is_tar(photo.name[:end]) and os.path.isfile(photo.name[:end])), None)


def _archive(path: str) -> Block:
    return Block(_digest([path, _size(path)]), path, path)


def _piece(photos: tuple[Photo, ...]) -> Block:
    held = [[photo.name, photo.source.offset, photo.source.length, _size(photo.source.file)] for photo in photos]
    more = f" and {len(photos) - 1:,} more" if len(photos) > 1 else ""
    return Block(_digest(held), photos[0].name + more, photos=photos)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # it will be a row with an error
        return -1


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]
