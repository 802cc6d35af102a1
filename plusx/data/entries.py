"""The folders of the cache: how large they may be together, which are in use, and which go first.

An entry is a folder named by what decides its bytes: decoded photos (`cache`), an unpacked archive (`unpacked`), an
object fetched from a URL (`remote`) or the table of what `check` saw (`survey`). It is built under a temporary name
while the lock of its key is held, and renamed into place. The least recently used go first when the cache outgrows its
bound; whoever has one open holds a shared lock on the file in it, and keeps it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from plusx.durable import TEMPORARY, locked, write_json
from plusx.errors import DiskError
from plusx.errors import cache as sentences

DEFAULT_GB = 20.0
SPARE = 500_000_000  # bytes of the disk that the cache leaves alone
LOCKS = "locks"
PIXELS, ARCHIVE, OBJECT = "pixels.u8", "archive.tar", "object"  # what is locked by those who use an entry
INDEX = "index.json"  # what is known of an entry of one file, its size at least
LISTING = "listing.json"  # of what is in an object; nobody has one open for long


@dataclass(frozen=True)
class CacheEntry:
    """One entry: its folder, size in bytes and when it was last used (seconds since the epoch)."""

    folder: Path
    size: int
    used: float

    @property
    def kind(self) -> str:
        """The name of the file in it that is locked: PIXELS, ARCHIVE (unpacked), OBJECT (from a URL), or LISTING."""
        return next((name for name in (ARCHIVE, OBJECT, LISTING) if (self.folder / name).exists()), PIXELS)


def cache_folder() -> Path:
    """Where decoded photos and unpacked archives are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "plusx" / "decoded"


def cache_limit() -> int:
    """The bound in bytes: 20 GB, or PLUSX_CACHE_GB. Raises UsageError where that is no size."""
    text = os.environ.get("PLUSX_CACHE_GB") or str(DEFAULT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        raise sentences.bad_limit(text) from None
    if not (math.isfinite(gigabytes) and gigabytes >= 0):
        raise sentences.bad_limit(text)
    return int(gigabytes * 1e9)


def cache_entries() -> list[CacheEntry]:
    """Every finished entry, least recently used first."""
    return _folders(lambda name: not name.startswith(TEMPORARY) and name != LOCKS)


def cache_size() -> int:
    """Bytes of all entries, those that are being built included."""
    return sum(entry.size for entry in cache_entries() + _unfinished())


def clear() -> int:
    """Remove every entry that nobody uses, every leftover and every free lock; returns the bytes freed."""
    freed = _sweep() + sum(_evict(entry) for entry in cache_entries())
    for lock in (cache_folder() / LOCKS).glob("*"):
        with contextlib.suppress(DiskError, OSError), locked(lock):
            lock.unlink()  # whoever waits for it notices, and makes another one
    return freed


@contextlib.contextmanager
def building(key: str) -> Iterator[None]:
    """Hold the lock of an entry's key: only one process builds it, the others wait."""
    (cache_folder() / LOCKS).mkdir(parents=True, exist_ok=True)
    with locked(_lock(key), wait=True):
        yield


def temporary_of(folder: Path) -> Path:
    """The name under which the entry `folder` is built."""
    return folder.with_name(f"{TEMPORARY}{folder.name}-{uuid.uuid4().hex}")


def remove_dead(folder: Path) -> None:
    """Remove what stands at `folder` and is damaged, and every leftover of building; the caller holds its lock."""
    for dead in (folder, *cache_folder().glob(f"{TEMPORARY}{folder.name}-*")):
        shutil.rmtree(dead, ignore_errors=True)
    _sweep()


def make_room(needed: int) -> bool:
    """Whether `needed` more bytes fit into the bound and on the disk; entries that nobody uses go for it."""
    free = shutil.disk_usage(cache_folder()).free
    excess = max(cache_size() + needed - cache_limit(), needed + SPARE - free)
    for entry in sorted(cache_entries(), key=lambda entry: entry.kind == LISTING):  # those are small, and save a lot
        if excess > 0:
            excess -= _evict(entry)
    return excess <= 0


def hold(file: BinaryIO | int) -> None:
    """Keep the entry of an open file or descriptor from being evicted, until that is closed."""
    fcntl.flock(file, fcntl.LOCK_SH)


def let_go(descriptor: int) -> None:
    """Close a copy of a held file's descriptor, and let its entry be evicted."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough: a mapping keeps a copy of the descriptor
    os.close(descriptor)


def opened(folder: Path, name: str) -> int | None:
    """A descriptor that holds an entry of one file; None where there is none, or it is not as it was written."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        hold(descriptor)  # first: until then the entry could be evicted
        if os.fstat(descriptor).st_size == json.loads((folder / INDEX).read_bytes())["size"]:
            mark_used(folder)
            return descriptor
    except (OSError, ValueError, KeyError, TypeError):
        pass
    os.close(descriptor)
    return None


def built(folder: Path, name: str, write: Callable[[Path], Mapping[str, Any]]) -> None:
    """Make an entry of one file, which `write` writes and syncs, and of which it says what is known.

    In a temporary folder, renamed into place. The caller holds its lock.
    """
    remove_dead(folder)
    temporary = temporary_of(folder)
    temporary.mkdir()
    try:
        known = write(temporary / name)
        write_json(temporary / INDEX, {"size": (temporary / name).stat().st_size, **known})
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def mark_used(folder: Path) -> None:
    """The entry at `folder` was used just now."""
    with contextlib.suppress(OSError):  # a cache that may only be read
        os.utime(folder)


def _lock(key: str) -> Path:
    return cache_folder() / LOCKS / key


def _evict(entry: CacheEntry) -> int:
    """Remove an entry unless somebody has it open; returns the bytes freed."""
    try:
        with (entry.folder / entry.kind).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry.folder)
    except FileNotFoundError:  # damaged, or half gone
        shutil.rmtree(entry.folder, ignore_errors=True)
    except OSError:
        return 0
    return entry.size


def _sweep() -> int:
    """Remove what interrupted builds left; returns the bytes freed. A build in progress holds the lock of its key."""
    freed = 0
    for leftover in _unfinished():
        key = leftover.folder.name.removeprefix(TEMPORARY).split("-")[0]
        with contextlib.suppress(DiskError), locked(_lock(key)):
            shutil.rmtree(leftover.folder, ignore_errors=True)
            freed += leftover.size
    return freed


def _unfinished() -> list[CacheEntry]:
    return _folders(lambda name: name.startswith(TEMPORARY))


def _folders(wanted: Callable[[str], bool]) -> list[CacheEntry]:
    entries: list[CacheEntry] = []
    for folder in cache_folder().glob("*/"):
        with contextlib.suppress(OSError):  # gone since it was listed
            if wanted(folder.name):
                size = sum(p.stat().st_size for p in folder.iterdir())
                entries.append(CacheEntry(folder, size, folder.stat().st_mtime))
    return sorted(entries, key=lambda entry: entry.used)
