"""What is scored at a time: one archive, or so many loose photos, under a name that says what it holds.

The name is a digest of paths and sizes, so a second start, or another machine, finds the same blocks. Nothing that
an archive named by the user holds is listed here: millions of photos cost nothing until their block is in hand.
"""

# ruff: noqa: PTH100, PTH112, PTH113, PTH202, PTH207
# Paths are text by os.fsdecode here, as Source holds them.

from __future__ import annotations

import contextlib
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

from plusx.data import remote
from plusx.data.files import is_glob, is_tar
from plusx.data.source import Photo, walk, walk_archive
from plusx.images.source import Source

LOOSE = 1000  # photos in a block of those that lie in no archive


@dataclass(frozen=True)
class Block:
    """An `archive`, or some loose `photos`. `name` is 32 hexadecimal digits of what it holds, `shown` is for people.

    Paths are absolute, for whoever scores it may stand in another folder; `shown` and the names of photos are as typed.
    """

    name: str
    shown: str
    archive: str | None = None
    photos: tuple[Photo, ...] = ()

    @contextlib.contextmanager
    def open(self) -> Iterator[Sequence[Photo]]:
        """Its photos as files of this machine, in the order of its rows, that of `predict`; what is behind URLs is
        fetched, and may be dropped afterwards. Raises DataError where it cannot be.
        """
        with contextlib.ExitStack() as fetched:
            if self.archive is None:
                yield [_here(photo, fetched) for photo in self.photos]
            else:
                yield walk_archive(_local(self.archive, fetched), self.shown)

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
    """The blocks of photos, folders, globs and archives, in the order of `predict`; equal ones get different names.

    Raises DataError where what is behind a URL cannot be listed.
    """
    held = (one for path in paths for one in _held(os.fspath(path)))
    found, often = list[Block](), Counter[str]()
    for loose, group in itertools.groupby(held, key=lambda one: isinstance(one, Photo)):
        for block in _pieces(group) if loose else map(_archive, group):
            digest = _digest([block.name, often[block.name]])
            often[block.name] += 1
            found.append(dataclasses.replace(block, name=digest))
    return found


def _local(path: str, fetched: contextlib.ExitStack) -> str:
    if not remote.is_url(path):
        return path
    fetched.callback(remote.let_go, path)
    return str(remote.local(path))


def _here(photo: Photo, fetched: contextlib.ExitStack) -> Photo:
    source = dataclasses.replace(photo.source, file=_local(photo.source.file, fetched))
    return dataclasses.replace(photo, source=source)


def _held(path: str) -> Iterator[Photo | str]:
    """Loose photos, and paths of archives, also of those that lie in a folder."""
    if remote.is_url(path):
        yield from (url if remote.is_archive(url) else Photo(url, Source(url)) for url in remote.expanded(path))
    elif is_glob(path) and (matches := sorted(glob.glob(path, recursive=True))):
        for match in matches:
            yield from _held(match)
    elif is_tar(path) and not os.path.isdir(path):
        yield path
    else:
        for archive, photos in itertools.groupby(walk([path]), key=_archive_around):
            yield from photos if archive is None else (archive,)


def _archive_around(photo: Photo) -> str | None:
    """The path of the archive that a photo lies in, as its name begins."""
    if photo.source.length < 0:
        return None
    paths = (photo.name[: match.start()] for match in re.finditer("!/", photo.name))
    return next((path for path in paths if is_tar(path) and os.path.isfile(path)), None)


def _archive(path: Photo | str) -> Block:
    assert isinstance(path, str), "an archive"
    return Block(_digest([path, _size(path)]), path, _absolute(path))


def _pieces(photos: Iterable[Photo | str]) -> Iterator[Block]:
    """Loose photos, so many in a block."""
    rest = (photo for photo in photos if isinstance(photo, Photo))
    while piece := tuple(itertools.islice(rest, LOOSE)):
        held = [[photo.name, photo.source.offset, photo.source.length, _size(photo.source.file)] for photo in piece]
        more = f" and {len(piece) - 1:,} more" if len(piece) > 1 else ""
        yield Block(_digest(held), piece[0].name + more, photos=tuple(map(_placed, piece)))


def _placed(photo: Photo) -> Photo:
    return dataclasses.replace(photo, source=dataclasses.replace(photo.source, file=_absolute(photo.source.file)))


def _absolute(path: str) -> str:
    return path if remote.is_url(path) else os.path.abspath(path)


def _size(path: str) -> int | tuple[int, str]:
    """Bytes; behind a URL with what changes as these do. Raises DataError where a server does not say."""
    if remote.is_url(path):
        seen = remote.seen(path)
        return seen.size, seen.stamp
    try:
        return os.path.getsize(path)
    except OSError:  # it will be a row with an error
        return -1


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]
