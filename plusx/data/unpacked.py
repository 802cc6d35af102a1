"""Compressed archives: unpacked once into the cache, as one plain tar that is then read in place like any other.

Photos inside a compressed stream have no place of their own, so the whole stream is decompressed, once for every
content: an entry of the cache is named by the SHA-256 of the compressed file. It may be removed at any time and is made
again when it is needed. While a process uses one, it is not evicted.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import logging
import lzma
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from plusx.data.entries import (
    ARCHIVE,
    building,
    built,
    cache_folder,
    cache_limit,
    make_room,
    opened,
)
from plusx.data.entries import let_go as unlock
from plusx.durable import sha256_file
from plusx.errors import data as sentences
from plusx.errors import unpack as errors

_MAGIC: dict[bytes, Callable[[Path], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_OTHER = (b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PK\x05\x06")  # Zstandard, zip
_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
_CHUNK = 1 << 22  # bytes
_PATIENCE = 1.0  # seconds after which somebody who waits is told for what

_log = logging.getLogger("plusx")


@dataclass
class _Held:
    """The descriptor that keeps an entry from eviction, and for whom: equal content may have several names."""

    descriptor: int
    users: set[str] = field(default_factory=set)


_held: dict[Path, _Held] = {}  # the archives that this process reads from, by their entries
_changing = threading.Lock()  # of them


def plain(path: Path, user: str = "") -> Path:
    """The plain tar in the archive at `path`: itself, or, where it is compressed, what it holds, in the cache.

    It is kept from eviction until this process ends, or its `user` lets it go.
    gzip, bzip2 and xz are told by their first bytes, whatever the name says. Raises DataError for other compressions,
    for a stream that is cut off, damaged or larger than the cache may be, and for what cannot be read; DiskError where
    it cannot be written.
    """
    kind = _first_bytes(path)
    if kind.startswith(_OTHER):
        raise sentences.compressed(str(path))
    if not is_packed(kind):
        return path
    with _readable(path):
        key = sha256_file(path)[:32]
    folder = cache_folder() / key
    with _writable(path), building(key):
        if not _open(folder, user):
            built(folder, ARCHIVE, lambda into: _unpacked(path, into))
            if not _open(folder, user):
                raise OSError(f"{folder} was changed while it was written")
    return folder / ARCHIVE


def is_packed(first: bytes) -> bool:
    """Whether a file with these first six bytes is compressed in a way that is unpacked."""
    return first.startswith(tuple(_MAGIC))


def again(tar: Path, user: str = "") -> bool:
    """Whether a tar that `plain` has unpacked is still there; then `user` holds it once more."""
    return _open(tar.parent, user)


def let_go(tar: Path, user: str = "") -> None:
    """A tar that `plain` has unpacked may be evicted from here on, unless it has other users."""
    with _changing:
        held = _held.get(tar.parent)
        if held is None:
            return
        held.users.discard(user)
        if not held.users:
            del _held[tar.parent]
            unlock(held.descriptor)


def _first_bytes(path: Path) -> bytes:
    with _readable(path), path.open("rb") as file:
        return file.read(6)


def _open(folder: Path, user: str) -> bool:
    """Hold the entry for a user; False where there is none or it is not as it was written."""
    descriptor = opened(folder, ARCHIVE)
    if descriptor is None:
        return False
    with _changing:
        held = _held.setdefault(folder, _Held(descriptor))
        if held.descriptor != descriptor:
            os.close(held.descriptor)
            held.descriptor = descriptor
        held.users.add(user)
    return True


def _unpacked(path: Path, into: Path) -> dict[str, int]:
    """Unpack into a file, and sync it; there is nothing to be known of it but its size."""
    with into.open("wb") as file:
        _unpack(path, file)
        file.flush()
        os.fsync(file.fileno())
    return {}


def _unpack(path: Path, file: BinaryIO) -> None:
    """Decompress `path` into `file`, as long as there is room."""
    size, limit, started, told = 0, cache_limit(), time.monotonic(), False
    for chunk in _chunks(path):
        if size + len(chunk) > limit:
            raise errors.too_large(path, limit)
        if not make_room(len(chunk)):
            raise errors.no_room(path, cache_folder(), limit)
        file.write(chunk)
        size += len(chunk)
        if not told and time.monotonic() - started > _PATIENCE:
            told = True
            _log.warning(errors.unpacking(path, cache_folder()))


def _chunks(path: Path) -> Iterator[bytes]:
    decompressed = next(opened for magic, opened in _MAGIC.items() if _first_bytes(path).startswith(magic))
    with _readable(path), decompressed(path) as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise DataError for what the compressed file or the operating system refuses within."""
    try:
        yield
    except _DAMAGE as error:
        raise errors.damaged(path, str(error)) from None
    except OSError as error:
        raise errors.damaged(path, str(error)) if error.errno is None else sentences.unreadable(path, error) from None


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Raise DiskError for what the operating system refuses to keep in the cache."""
    try:
        yield
    except OSError as error:
        raise errors.cannot_write(path, cache_folder(), error.strerror or str(error)) from None
