"""The cache of decoded photos: exactly the bytes that preprocess gives, memory-mapped, built once.

An entry is a folder named by what decides its bytes: the preprocess and the content of every photo in
order. It holds `pixels.u8`, raw [N, S, S, 3], and `index.json`. Entries are built under a lock and renamed
into place, so two runs that need the same one build it once; the least recently used go first when the
cache outgrows its bound. Whoever has an entry open holds a shared lock on its pixels, and keeps it.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import math
import os
import shutil
import threading
import uuid
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from plusx.data.near_duplicates import SIDE, thumbnails
from plusx.data.source import Photo
from plusx.durable import TEMPORARY, locked, sha256_lines, write_json
from plusx.errors import DiskError
from plusx.errors import cache as sentences
from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool
from plusx.images.preprocess import Preprocess
from plusx.version import __version__

DEFAULT_GB = 20.0
FORMAT = 1
SPARE = 500_000_000  # bytes of the disk that the cache leaves alone
PASSING = frozenset({"worker-died", "timeout"})  # faults that may be gone next time: looked at again when opened
LOOKED_AT = 256  # photos at once, where all are looked through
PIXELS, INDEX, LOCKS = "pixels.u8", "index.json", "locks"

Pixels = npt.NDArray[np.uint8]
Thumbnails = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]
Bad = dict[int, BadPhoto]


class PixelStore:
    """Decoded photos in a memory-mapped file, uint8 [N, S, S, 3]; rows of bad photos are zeros.

    `file` comes with a shared lock, held until `close`: an entry in use is not evicted.
    """

    notice: str | None = None

    def __init__(self, file: BinaryIO, count: int, size: int) -> None:
        self._release = weakref.finalize(self, _unlock, os.dup(file.fileno()))
        shape = (count, size, size, 3)
        self.pixels: Pixels = np.memmap(file, np.uint8, "r", shape=shape) if count else np.zeros(shape, np.uint8)
        self.size = size

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, rows: Rows) -> Pixels:
        """The photos at `rows`, uint8 [n, S, S, 3], copied out of the file."""
        return np.asarray(self.pixels[rows])

    def thumbnails(self, rows: Rows) -> Thumbnails:
        """The photos at `rows` as near-duplicates are compared, uint8 [n, T, T]."""
        runs = range(0, len(rows), LOOKED_AT)
        return np.concatenate([_thumbnails(self.pixels[rows[i : i + LOOKED_AT]]) for i in runs])

    def close(self) -> None:
        """Let the entry be evicted; its pixels stay readable in this process."""
        self._release()


class StreamingStore:
    """Photos decoded anew for every batch: slow, but needs no space. Readers wait for each other."""

    def __init__(self, photos: Sequence[Photo], pool: DecodePool, notice: str, small: Thumbnails) -> None:
        self._photos, self._pool, self.notice, self._small = photos, pool, notice, small
        self._reading = threading.Lock()
        self.size = pool.preprocess.crop

    def __len__(self) -> int:
        return len(self._photos)

    def read(self, rows: Rows) -> Pixels:
        """The photos at `rows`, uint8 [n, S, S, 3]. Raises DataError for one that cannot be read any more."""
        pixels = np.zeros((len(rows), self.size, self.size, 3), dtype=np.uint8)
        places = list(range(len(rows)))
        with self._reading:
            for _ in range(2):  # a worker that died or was late gets a second chance
                lost = self._fill(pixels, rows, places)
                places = list(lost)
        for place, bad in lost.items():
            raise sentences.photo_lost(self._photos[rows[place]].name, bad.reason)
        return pixels

    def thumbnails(self, rows: Rows) -> Thumbnails:
        """The photos at `rows` as near-duplicates are compared, uint8 [n, T, T]: kept when all were read once."""
        return np.asarray(self._small[rows])

    def close(self) -> None:
        """End the decoding workers."""
        self._pool.close()

    def _fill(self, pixels: Pixels, rows: Rows, places: Sequence[int]) -> Bad:
        lost: Bad = {}
        for i, result in self._pool.map([self._photos[rows[place]].source for place in places]):
            if isinstance(result, BadPhoto):
                lost[places[i]] = result
            else:
                pixels[places[i]] = result
        return lost


@dataclass(frozen=True)
class _Job:
    """What is decoded, how, by how many workers, and who is told."""

    photos: Sequence[Photo]
    preprocess: Preprocess
    workers: int | None
    on_progress: Progress | None

    def progress(self, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(done, total)

    @property
    def bytes(self) -> int:
        return len(self.photos) * self.preprocess.crop**2 * 3


def pixel_store(
    photos: Sequence[Photo],
    hashes: Sequence[str],
    preprocess: Preprocess,
    *,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> tuple[PixelStore | StreamingStore, Bad]:
    """The pixels of `photos` as `preprocess` gives them, and which of them are bad, by position.

    Opens the cache entry, or builds it first; `on_progress` hears (done, total). A set that the cache or
    the disk cannot hold is streamed, and `notice` on the store says so. A photo that failed in a way that
    may pass (PASSING) is decoded again whenever its entry is opened, so such a verdict is never final.
    """
    job = _Job(photos, preprocess, workers, on_progress)
    folder = cache_folder() / _key(hashes, preprocess)
    try:
        (cache_folder() / LOCKS).mkdir(parents=True, exist_ok=True)
        with locked(_lock(folder.name), wait=True):
            opened = _open(folder, len(photos), preprocess.crop)
            if opened is not None:
                return _looked_at_again(folder, opened, job)
            notice = _no_room(folder, job.bytes)
            if notice is None:
                return _build(folder, job)
    except (OSError, DiskError) as error:
        notice = sentences.cannot_cache(cache_folder(), getattr(error, "strerror", None) or str(error))
    return _streaming(job, notice)


@dataclass(frozen=True)
class CacheEntry:
    """One decoded set: its folder, size in bytes and when it was last used (seconds since the epoch)."""

    folder: Path
    size: int
    used: float


def cache_folder() -> Path:
    """Where decoded photos are kept."""
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
    """Remove every entry that nobody uses and every leftover; returns the bytes freed."""
    return _sweep() + sum(_evict(entry) for entry in cache_entries())


def _key(hashes: Sequence[str], preprocess: Preprocess) -> str:
    return sha256_lines(itertools.chain((str(FORMAT), preprocess.key()), hashes))[:32]


def _lock(key: str) -> Path:
    return cache_folder() / LOCKS / key


def _open(folder: Path, count: int, size: int) -> tuple[PixelStore, Bad] | None:
    """The entry, kept from eviction from here on; None where there is none or it is damaged."""
    try:
        with (folder / PIXELS).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            bad = _read_index(folder, count)  # after the lock: until then the entry could be evicted
            if os.fstat(file.fileno()).st_size != count * size * size * 3:
                return None
            with contextlib.suppress(OSError):  # a cache that may only be read
                os.utime(folder)
            return PixelStore(file, count, size), bad
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _unlock(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough: the mapping keeps a copy of the descriptor
    os.close(descriptor)


def _read_index(folder: Path, count: int) -> Bad:
    index = json.loads((folder / INDEX).read_bytes())
    if index["count"] != count:
        raise ValueError("the index of another set")
    return {int(i): BadPhoto(str(code), str(reason)) for i, (code, reason) in index["bad"].items()}


def _write_index(folder: Path, job: _Job, bad: Bad) -> None:
    rows = {str(i): (b.code, b.reason) for i, b in sorted(bad.items())}
    index: dict[str, Any] = {"plusx": __version__, "count": len(job.photos), "size": job.preprocess.crop, "bad": rows}
    write_json(folder / INDEX, index)


def _build(folder: Path, job: _Job) -> tuple[PixelStore, Bad]:
    """Decode everything into a temporary folder, synced before it is renamed into place."""
    temporary = folder.with_name(f"{TEMPORARY}{folder.name}-{uuid.uuid4().hex}")
    try:
        temporary.mkdir()
        with (temporary / PIXELS).open("wb") as file:
            file.truncate(job.bytes)
            bad = _decode(file, range(len(job.photos)), job)
        _write_index(temporary, job, bad)
        opened = _open(temporary, len(job.photos), job.preprocess.crop)
        if opened is None:
            raise OSError(f"{temporary} was changed while it was written")
        temporary.rename(folder)  # opened before: nobody can evict it in between
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return opened


def _looked_at_again(folder: Path, opened: tuple[PixelStore, Bad], job: _Job) -> tuple[PixelStore, Bad]:
    """An open entry whose PASSING faults were tried once more; what can be read now is added to it."""
    store, bad = opened
    rows = [i for i, b in bad.items() if b.code in PASSING]
    if not rows:
        return opened
    with (folder / PIXELS).open("r+b") as file:
        still = _decode(file, rows, job)
    bad = {i: still.get(i, b) for i, b in bad.items() if i in still or i not in rows}
    _write_index(folder, job, bad)
    return store, bad


def _decode(file: BinaryIO, rows: Sequence[int], job: _Job) -> Bad:
    """Write the pixels of the photos at `rows` to their places in `file` and sync it; returns the bad ones."""
    bad: Bad = {}
    # Written and not mapped: on a full disk a write is an error to deal with, a mapping is a fatal signal.
    with DecodePool(job.preprocess, job.workers) as pool:
        for done, (i, result) in enumerate(pool.map([job.photos[row].source for row in rows]), start=1):
            if isinstance(result, BadPhoto):
                bad[rows[i]] = result
            else:
                file.seek(rows[i] * result.nbytes)
                file.write(result.tobytes())
            job.progress(done, len(rows))
    file.flush()
    os.fsync(file.fileno())
    return bad


def _streaming(job: _Job, notice: str) -> tuple[StreamingStore, Bad]:
    """A store without a cache; every photo is read once now, so that bad ones are known before training."""
    pool = DecodePool(job.preprocess, job.workers)
    bad: Bad = {}
    blank = _thumbnails(np.zeros((1, job.preprocess.crop, job.preprocess.crop, 3), np.uint8))
    small = np.repeat(blank, len(job.photos), axis=0)
    for done, (i, result) in enumerate(pool.map([photo.source for photo in job.photos]), start=1):
        if isinstance(result, BadPhoto):
            bad[i] = result
        else:
            small[i] = _thumbnails(result[None])[0]
        job.progress(done, len(job.photos))
    return StreamingStore(job.photos, pool, notice, small), bad


def _thumbnails(pixels: Pixels) -> Thumbnails:
    """Thumbnails of photos [n, S, S, 3]; of the smallest, every pixel counts several times."""
    times = -(-SIDE // pixels.shape[1])
    return thumbnails(pixels.repeat(times, axis=1).repeat(times, axis=2) if times > 1 else pixels)


def _no_room(folder: Path, needed: int) -> str | None:
    """Make room for an entry of `needed` bytes at `folder`; a sentence where that is not possible.

    What stands at `folder` is damaged, and a leftover of its building is dead: the caller holds its lock.
    """
    root, limit = cache_folder(), cache_limit()
    for dead in (folder, *root.glob(f"{TEMPORARY}{folder.name}-*")):
        shutil.rmtree(dead, ignore_errors=True)
    _sweep()
    used, free = cache_size(), shutil.disk_usage(root).free
    if needed > limit:
        return sentences.larger_than_cache(needed, limit)
    if needed + SPARE > free + used:
        return sentences.disk_too_full(root, needed, free)
    excess = max(used + needed - limit, needed + SPARE - free)
    for entry in cache_entries():
        if excess > 0:
            excess -= _evict(entry)
    return sentences.cache_in_use(needed, limit) if excess > 0 else None


def _evict(entry: CacheEntry) -> int:
    """Remove an entry unless somebody has it open; returns the bytes freed."""
    try:
        with (entry.folder / PIXELS).open("rb") as file:
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
