"""What is scored at a time: one archive, or so many loose photos, under a name that says what it holds.

The name is a digest of paths, sizes and times, so a second start, or another machine, finds the same blocks. Nothing
that an archive holds is listed here: millions of photos cost nothing until their block is in hand.
"""

# ruff: noqa: PTH100, PTH112, PTH116, PTH207
# Paths are text by os.fsdecode here, as Source holds them.

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plusx.data import remote, unpacked
from plusx.data.files import is_glob, is_tar
from plusx.data.source import Photo, walk_archive, walk_folder
from plusx.errors import scoring as sentences
from plusx.images.source import Source

LOOSE = 1000  # photos in a block of those that lie in no archive

Seen = tuple[int, int | str]  # of a file: its bytes, and what changes as these do


@dataclass(frozen=True)
class Block:
    """An `archive`, or some loose `photos`. `name` is 32 hexadecimal digits of what it holds, `shown` is for people.

    Paths are absolute, for whoever scores it may stand in another folder; `shown` and the names of photos are as typed.
    `seen` says how each file was when it was listed, None of one that was not there.
    """

    name: str
    shown: str
    archive: str | None = None
    photos: tuple[Photo, ...] = ()
    seen: tuple[Seen | None, ...] = ()

    @contextlib.contextmanager
    def open(self) -> Iterator[Sequence[Photo]]:
        """Its photos as files of this machine, in the order of its rows, that of `predict`; what is behind URLs is
        fetched, what is compressed is unpacked, and both may be dropped afterwards.

        Raises DataError where that cannot be done, and, before and after, where a file that was there when it was
        listed is another, or is not there: what is missing for a moment must not be taken for a bad photo.
        """
        with contextlib.ExitStack() as taken:
            self._refuse_changed()
            if self.archive is None:
                yield [_here(photo, taken) for photo in self.photos]
            else:
                yield _inside(_local(self.archive, taken), self.shown, self.seen[0] is not None, taken)
            self._refuse_changed()

    def _refuse_changed(self) -> None:
        files = [photo.source.file for photo in self.photos] if self.archive is None else [self.archive]
        for file, before in zip(files, self.seen, strict=True):
            if before is not None and _seen(file) != before:
                raise sentences.photos_changed(file)

    def to_json(self) -> str:
        """As text, for another process."""
        photos = [[photo.name, *dataclasses.astuple(photo.source)] for photo in self.photos]
        return json.dumps([self.name, self.shown, self.archive, photos, self.seen])

    @classmethod
    def from_json(cls, text: str) -> Block:
        """What `to_json` wrote."""
        name, shown, archive, photos, seen = json.loads(text)
        sources = tuple(Photo(photo[0], Source(*photo[1:])) for photo in photos)
        return cls(name, shown, archive, sources, tuple(one and (one[0], one[1]) for one in seen))


def blocks_of(paths: Iterable[str | Path]) -> list[Block]:
    """The blocks of photos, folders, globs and archives, each in the order of `predict`; equal ones have other names.

    Loose photos are dealt as if no archive lay between them: so more archives change no block that was there before.
    Raises DataError where what is behind a URL cannot be listed.
    """
    found, often = list[Block](), Counter[str]()
    for block in _blocks(one for path in paths for one in _held(os.fspath(path))):
        digest = _digest([block.name, often[block.name]])
        often[block.name] += 1
        found.append(dataclasses.replace(block, name=digest))
    return found


def _blocks(held: Iterable[Photo | str]) -> Iterator[Block]:
    loose = list[Photo]()
    for one in held:
        if isinstance(one, str):
            yield _archive(one)
            continue
        loose.append(one)
        if len(loose) == LOOSE:
            yield _piece(loose)
            loose = []
    if loose:
        yield _piece(loose)


def _local(path: str, taken: contextlib.ExitStack) -> str:
    if not remote.is_url(path):
        return path
    taken.callback(remote.let_go, path)
    return str(remote.local(path))


def _here(photo: Photo, taken: contextlib.ExitStack) -> Photo:
    source = dataclasses.replace(photo.source, file=_local(photo.source.file, taken))
    return dataclasses.replace(photo, source=source)


def _inside(path: str, shown: str, seen: bool, taken: contextlib.ExitStack) -> Sequence[Photo]:
    """The photos in an archive; what a compressed one was unpacked to is given back to the cache with `taken`."""
    photos = walk_archive(path, shown, seen=seen)
    for tar in {photo.source.file for photo in photos} - {path}:
        taken.callback(unpacked.let_go, Path(tar))
    return photos


def _held(path: str) -> Iterator[Photo | str]:
    """Loose photos, and paths of archives, also of those that lie in a folder."""
    if remote.is_url(path):
        yield from (url if remote.is_archive(url) else Photo(url, Source(url)) for url in remote.expanded(path))
    elif is_glob(path) and (matches := sorted(glob.glob(path, recursive=True))):
        for match in matches:
            yield from _held(match)
    elif is_tar(path) and not os.path.isdir(path):
        yield path
    elif os.path.isdir(path):
        for photo in walk_folder(path, closed=True):
            yield photo.name if is_tar(photo.name) and not os.path.isdir(photo.source.file) else photo
    else:
        yield Photo(path, Source(path))


def _archive(path: str) -> Block:
    seen = _seen(path)
    return Block(_digest([path, seen]), path, _absolute(path), seen=(seen,))


def _piece(photos: Sequence[Photo]) -> Block:
    seen = tuple(_seen(photo.source.file) for photo in photos)
    more = f" and {len(photos) - 1:,} more" if len(photos) > 1 else ""
    digest = _digest([[photo.name, one] for photo, one in zip(photos, seen, strict=True)])
    return Block(digest, photos[0].name + more, photos=tuple(map(_placed, photos)), seen=seen)


def _placed(photo: Photo) -> Photo:
    return dataclasses.replace(photo, source=dataclasses.replace(photo.source, file=_absolute(photo.source.file)))


def _absolute(path: str) -> str:
    return path if remote.is_url(path) else os.path.abspath(path)


def _seen(path: str) -> Seen | None:
    """How a file is, or what is behind a URL; None where it is not there. Raises DataError where a server fails."""
    if remote.is_url(path):
        seen = remote.seen(path)
        return seen.size, seen.stamp
    try:
        found = os.stat(path)
    except OSError:  # it will be a row with an error
        return None
    return found.st_size, found.st_mtime_ns


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]
