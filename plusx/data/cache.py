"""The cache of decoded photos: exactly the bytes that preprocess gives, memory-mapped, built once.

An entry is a folder named by what decides its bytes: the preprocess and the content of every photo in
order. It holds `pixels.u8`, raw [N, S, S, 3], and `index.json`. Entries are built under a lock and renamed
into place, so two runs that need the same one build it once. Whoever has an entry open holds a shared lock on its
pixels, and keeps it; `plusx.data.entries` says when others go.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from plusx.data.entries import (
    PIXELS,
    SPARE,
    building,
    cache_folder,
    cache_limit,
    cache_size,
    hold,
    let_go,
    make_room,
    mark_used,
    remove_dead,
    temporary_of,
)
from plusx.data.near_duplicates import SIDE, thumbnails
from plusx.data.reading import Waiting, through
from plusx.data.source import Photo
from plusx.durable import sha256_lines, write_json
from plusx.errors import DiskError
from plusx.errors import cache as sentences
from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool
from plusx.images.preprocess import Preprocess
from plusx.version import __version__

FORMAT = 1
LOOKED_AT = 256  # photos at once, where all are looked through
INDEX = "index.json"

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
        self._release = weakref.finalize(self, let_go, os.dup(file.fileno()))
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
    """Photos decoded anew for every batch: slow, but needs no space. Readers wait for each other.

    `waiting` is entered while one waits for the network of DATA.
    """

    def __init__(self, photos: Sequence[Photo], pool: DecodePool, notice: str, small: Thumbnails | None) -> None:
        self._photos, self._pool, self.notice, self._small = photos, pool, notice, small
        self._reading = threading.Lock()
        self.waiting: Waiting = nullcontext
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
            raise sentences.photo_lost(self._photos[int(rows[place])].name, bad.reason)
        return pixels

    def thumbnails(self, rows: Rows) -> Thumbnails:
        """The photos at `rows` as near-duplicates are compared, uint8 [n, T, T]: kept when all were read once."""
        assert self._small is not None, "photos that nobody read have no thumbnails; their index knows who is alike"
        return np.asarray(self._small[rows])

    def close(self) -> None:
        """End the decoding workers."""
        self._pool.close()

    def _fill(self, pixels: Pixels, rows: Rows, places: Sequence[int]) -> Bad:
        lost: Bad = {}
        sources = (self._photos[int(rows[place])].source for place in places)
        for i, result in through(self._pool.map, sources, self.waiting):
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
    known_good: bool = False

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
    known_good: bool = False,
) -> tuple[PixelStore | StreamingStore, Bad]:
    """The pixels of `photos` as `preprocess` gives them, and which of them are bad, by position.

    Opens the cache entry, or builds it first; `on_progress` hears (done, total). A set that the cache or
    the disk cannot hold is streamed, and `notice` on the store says so. A photo that could not be read is tried again
    whenever its entry is opened: it may have been gone, or its worker stopped, between its hash and its decoding.
    `known_good`: somebody has looked at all of them before; those that are streamed are not read once for it.
    """
    job = _Job(photos, preprocess, workers, on_progress, known_good)
    folder = cache_folder() / _key(hashes, preprocess)
    try:
        with building(folder.name):
            opened = _open(folder, len(photos), preprocess.crop)
            if opened is not None:
                return _looked_at_again(folder, opened, job)
            notice = _no_room(folder, job.bytes)
            if notice is None:
                return _build(folder, job)
    except (OSError, DiskError) as error:
        notice = sentences.cannot_cache(cache_folder(), getattr(error, "strerror", None) or str(error))
    return _streaming(job, notice)


def _key(hashes: Sequence[str], preprocess: Preprocess) -> str:
    return sha256_lines(itertools.chain((str(FORMAT), preprocess.key()), hashes))[:32]


def _open(folder: Path, count: int, size: int) -> tuple[PixelStore, Bad] | None:
    """The entry, kept from eviction from here on; None where there is none or it is damaged."""
    try:
        with (folder / PIXELS).open("rb") as file:
            hold(file)
            bad = _read_index(folder, count)  # after the lock: until then the entry could be evicted
            if os.fstat(file.fileno()).st_size != count * size * size * 3:
                return None
            mark_used(folder)
            return PixelStore(file, count, size), bad
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


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
    temporary = temporary_of(folder)
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
    """An open entry whose bad photos were tried once more; what can be read now is added to it."""
    store, bad = opened
    if not bad or not os.access(folder / PIXELS, os.W_OK):
        return opened
    with (folder / PIXELS).open("r+b") as file:
        still = _decode(file, list(bad), job)
    if still != bad:
        _write_index(folder, job, still)
    return store, still


def _decode(file: BinaryIO, rows: Sequence[int], job: _Job) -> Bad:
    """Write the pixels of the photos at `rows` to their places in `file` and sync it; returns the bad ones."""
    bad: Bad = {}
    # Written and not mapped: on a full disk a write is an error to deal with, a mapping is a fatal signal.
    with DecodePool(job.preprocess, job.workers) as pool:
        for done, (i, result) in enumerate(through(pool.map, (job.photos[row].source for row in rows)), start=1):
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
    """A store without a cache; every photo is read once now, so that bad ones are known, unless all are known good."""
    pool = DecodePool(job.preprocess, job.workers)
    bad: Bad = {}
    if job.known_good:
        return StreamingStore(job.photos, pool, notice, None), bad
    blank = _thumbnails(np.zeros((1, job.preprocess.crop, job.preprocess.crop, 3), np.uint8))
    small = np.repeat(blank, len(job.photos), axis=0)
    for done, (i, result) in enumerate(through(pool.map, (photo.source for photo in job.photos)), start=1):
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

    The caller holds its lock.
    """
    limit = cache_limit()
    remove_dead(folder)
    used, free = cache_size(), shutil.disk_usage(cache_folder()).free
    if needed > limit:
        return sentences.larger_than_cache(needed, limit)
    if needed + SPARE > free + used:
        return sentences.disk_too_full(cache_folder(), needed, free)
    return None if make_room(needed) else sentences.cache_in_use(needed, limit)
