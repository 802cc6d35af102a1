"""Photos written as shards: tars in WebDataset's convention with an index and checksums, all of it or nothing.

A photo lies in a shard with its own bytes, never encoded again, beside its class as text. Which shard that is follows
from its bytes, so that every shard is a random sample of DATA and equal DATA gives equal bytes. The folder is written
under another name beside its place, the index last, and renamed once everything is on the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from plusx.data import remote
from plusx.data.index import INDEX, MOST_SHARDS, SPLITS, Column, Shard, to_bytes
from plusx.data.listing import Digests, Listing, Photo, labels_of, names_of, splits_of
from plusx.data.reading import read
from plusx.data.split import content_keys
from plusx.durable import TEMPORARY, disk_errors, locked, make_folder, require_space, sync_folder
from plusx.errors import DiskError
from plusx.errors import shards as sentences
from plusx.errors.images import Undecodable
from plusx.images.sniff import sniff

SUMS = "SHA256SUMS"
_BLOCK, _END = tarfile.BLOCKSIZE, 2 * tarfile.BLOCKSIZE
_ENDINGS = {"JPEG": "jpg", "PNG": "png", "WebP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tif", "HEIC": "heic"}
_ROW = 256  # bytes of a photo in the index, generously

Indices = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Written:
    """The shards that were written, in order, and the bytes of everything."""

    shards: tuple[Shard, ...]
    bytes: int


def refuse_taken(out: Path, roots: Sequence[str]) -> None:
    """Raise DiskError unless `out` is new or an empty folder, and UsageError where it lies in a folder of DATA."""
    real = os.path.realpath(out)
    for root in roots:
        if Path(root).is_dir() and real.startswith(f"{os.path.realpath(root).rstrip('/')}/"):
            raise sentences.out_in_data(out, root)
    with disk_errors(out):
        taken = next(out.iterdir(), None) is not None if out.is_dir() else os.path.lexists(out)
    if taken:
        raise sentences.out_is_taken(out)


def write_shards(
    out: Path, listing: Listing, hashes: Digests, groups: Indices, size: int, on_progress: Progress | None = None
) -> Written:
    """Write all photos of a listing as shards of at most `size` bytes, or of one photo that is larger, into `out`.

    `groups`: the first photo that shows the same picture, for each, [n]. `on_progress` hears (photos written, all).
    Raises DiskError where there is no room, and DataError for a photo that is not what it was when it was hashed.
    """
    job = _Job(listing, hashes, _lengths(listing), on_progress)
    planned = list(job.planned(size))
    if len(planned) > MOST_SHARDS:
        raise sentences.too_many_shards(len(planned), MOST_SHARDS, size)
    out = Path(os.path.realpath(out))  # a link to an empty folder stays one
    try:
        with _beside(out) as folder:
            refuse_taken(out, ())
            require_space(out, job.needed(planned))
            with disk_errors(out, folder):
                folder.mkdir()
                written = _write_all(folder, job, planned, groups)
                folder.rename(out)
                sync_folder(out.parent)
    except DiskError as error:
        raise sentences.without_flag(error) from error
    return written


@contextlib.contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """Where a folder to be is written: beside its place, held by a lock; a killed process may have left something."""
    make_folder(out.parent)
    beside = out.with_name(f"{TEMPORARY}{out.name}")
    lock, shards = beside / "lock", beside / "shards"
    with disk_errors(out):
        beside.mkdir(exist_ok=True)
        names = {path.name for path in beside.iterdir()}
    if names and names not in ({lock.name}, {lock.name, shards.name}):  # not ours, and not to be swept
        raise sentences.beside_is_taken(beside)
    with locked(lock):
        try:
            shutil.rmtree(shards, ignore_errors=True)
            yield shards
        finally:
            shutil.rmtree(shards, ignore_errors=True)
            with contextlib.suppress(OSError):
                lock.unlink()
                beside.rmdir()


@dataclass(frozen=True)
class _Plan:
    """A shard to be: its name, the rows of its photos in order, and the running number of the first."""

    name: str
    rows: Indices
    first: int


@dataclass
class _Job:
    """What is written, and where every photo came to lie: shard and offset, [n]."""

    listing: Listing
    hashes: Digests
    lengths: Indices
    on_progress: Progress | None
    shard: npt.NDArray[np.int32] = field(init=False)
    offset: Indices = field(init=False)
    done: int = 0

    def __post_init__(self) -> None:
        self.labels, self.splits = labels_of(self.listing.photos), splits_of(self.listing.photos)
        self.texts = [name.encode("utf-8", "surrogateescape") for name in self.listing.classes]
        self.shard, self.offset = np.zeros(len(self.labels), np.int32), np.zeros(len(self.labels), np.int64)

    def planned(self, size: int) -> Iterator[_Plan]:
        """The shards, those of one split behind another."""
        keys = content_keys(self.hashes, 0, "shards")
        taken = _padded(self.lengths) + _padded(np.array([len(text) for text in self.texts])[self.labels])
        first = 0
        for code in np.unique(self.splits).tolist():
            rows = np.flatnonzero(self.splits == code)
            rows = rows[np.argsort(keys[rows], kind="stable")]
            folder = f"{SPLITS[code]}/" if self.listing.has_splits and code >= 0 else ""
            for number, (start, end) in enumerate(_cuts(taken[rows].tolist(), size - _END)):
                yield _Plan(f"{folder}{number:06}.tar", rows[start:end], first + start)
            first += len(rows)

    def needed(self, planned: Sequence[_Plan]) -> int:
        """Bytes of the shards and of what lies beside them."""
        names = sum(len(name) for name in names_of(self.listing.photos))
        texts = np.array([len(text) for text in self.texts])[self.labels]
        photos = int((_padded(self.lengths) + _padded(texts)).sum())
        return photos + len(planned) * (_END + _ROW) + len(self.labels) * _ROW + 4 * names

    def one_more(self) -> None:
        """One more photo is written."""
        self.done += 1
        if self.on_progress is not None:
            self.on_progress(self.done, len(self.labels))


def _lengths(listing: Listing) -> Indices:
    """The bytes of every photo, [n]."""
    return np.fromiter(map(_length, listing.photos), np.int64, len(listing.photos))


def _length(photo: Photo) -> int:
    if photo.source.length >= 0:
        return photo.source.length
    if remote.is_url(photo.source.file):
        return remote.seen(photo.source.file).size
    try:
        return os.stat(photo.source.file).st_size  # noqa: PTH116 - text by os.fsdecode
    except OSError as error:
        raise sentences.photo_changed(photo.name, error.strerror or str(error)) from None


def _padded(lengths: Indices) -> Indices:
    """Bytes of members of a tar, their headers included."""
    return _BLOCK + -(-lengths // _BLOCK) * _BLOCK


def _cuts(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Runs of at most `most` bytes each, or of one photo, as (start, end)."""
    start, filled = 0, 0
    for place, size in enumerate(sizes):
        if filled + size > most and place > start:
            yield start, place
            start, filled = place, 0
        filled += size
    yield start, len(sizes)


def _write_all(folder: Path, job: _Job, planned: Sequence[_Plan], groups: Indices) -> Written:
    """Everything that belongs into the folder, the index last; all of it is on the disk then."""
    shards = tuple(_write_shard(folder, number, plan, job) for number, plan in enumerate(planned))
    columns: dict[str, Column] = {
        **{"shard": job.shard, "offset": job.offset, "length": job.lengths, "label": job.labels},
        **{"split": job.splits, "sha256": job.hashes.array, "group": groups},
    }
    index = to_bytes(job.listing.classes, shards, columns, list(names_of(job.listing.photos)))
    sums = [*((shard.sha256, shard.name) for shard in shards), (hashlib.sha256(index).hexdigest(), INDEX)]
    text = "".join(f"{sha256}  {name}\n" for sha256, name in sums).encode()
    for name, content in ((SUMS, text), (INDEX, index)):
        with _synced(folder / name) as file:
            file.write(content)
    for parent in (*folder.glob("*/"), folder):
        sync_folder(parent)
    return Written(shards, sum(shard.bytes for shard in shards) + len(index) + len(text))


def _write_shard(folder: Path, number: int, plan: _Plan, job: _Job) -> Shard:
    (folder / plan.name).parent.mkdir(exist_ok=True)
    with _synced(folder / plan.name) as file:
        tar = _Tar(file)
        for place, row in enumerate(plan.rows.tolist()):
            data = _bytes_of(job.listing.photos[row], job.hashes[row])
            key = f"{plan.first + place:09}"
            job.shard[row], job.offset[row] = number, tar.add(f"{key}.{_ENDINGS[sniff(data)]}", data)
            tar.add(f"{key}.cls", job.texts[job.labels[row]])
            job.one_more()
        tar.end()
    return Shard(plan.name, tar.size, tar.digest.hexdigest())


def _bytes_of(photo: Photo, sha256: str) -> bytes:
    """The bytes of a photo. Raises DataError where they are not those that were looked at."""
    try:
        data = read(photo.source)
    except Undecodable as error:
        raise sentences.photo_changed(photo.name, error.reason) from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise sentences.photo_changed(photo.name, "other bytes")
    return data


class _Tar:
    """A plain tar that is written once, with the SHA-256 of its bytes; nothing in it tells when or by whom."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size, self.digest = file, 0, hashlib.sha256()

    def add(self, name: str, data: bytes) -> int:
        """Add a file; where its bytes begin."""
        header = tarfile.TarInfo(name)
        header.size = len(data)
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        start = self.size
        self._write(data + bytes(-len(data) % _BLOCK))
        return start

    def end(self) -> None:
        """Two blocks of zeros say that nothing follows."""
        self._write(bytes(_END))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)


@contextlib.contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
