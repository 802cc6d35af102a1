"""DATA in all its layouts: a folder, an archive, a list or URLs of archives become one listing of labelled photos.

Every layout is first a flat list of named files (on disk or inside tars) and then read the same way:
`train/cat/1.jpg`, `cat/1.jpg`, `cat.1.jpg`, WebDataset's `1.jpg` + `1.cls`, or the rows of a CSV.
"""

# ruff: noqa: PTH112, PTH113, PTH207
# Paths are text by os.fsdecode here, as Source holds them.

from __future__ import annotations

import contextlib
import gc
import glob
import hashlib
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from plusx.data import index, layouts, remote, shards
from plusx.data.files import File, Files, add_folder, add_tar, is_glob, is_tar, list_files
from plusx.data.listing import Digests, IndexedPhotos, Listing, Photo
from plusx.data.reading import read
from plusx.errors import DataError
from plusx.errors import data as sentences
from plusx.errors import remote as remote_errors
from plusx.errors.images import Undecodable
from plusx.images.source import Source

__all__ = [
    "Listing",
    "Photo",
    "content_hashes",
    "indexed",
    "scan",
    "uncollected",
    "walk",
    "walk_archive",
    "walk_folder",
]

_HASHING_THREADS = 4
_HASHED_TOGETHER = 64


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the cyclic garbage collector, which would look again and again through millions of objects that stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@uncollected()
def scan(data: str | Path | Sequence[str | Path], *, trainable: bool = True) -> Listing:
    """The listing of DATA: a folder, a tar, a glob, a CSV, the URL of one of the first three, or several of them.

    A folder of shards is listed by its index.

    Raises DataError where photos or labels are missing and, if `trainable`, where there is nothing to
    learn from: one class, an empty class, fewer than two photos in a class, or a validation or test
    folder with a class that train lacks; or where a class is called like an answer or a decision.
    """
    roots = [os.fspath(data)] if isinstance(data, str | Path) else [os.fspath(d) for d in data]
    if not roots:
        raise sentences.no_data()
    root = " ".join(roots)
    if len(roots) == 1 and (found_index := _index_of(root)):
        return indexed(root, found_index, f"{root.rstrip('/')}/", trainable=trainable)
    found = list_files(roots)
    if len(found.files) == 1 and len(roots) == 1 and not os.path.isdir(root):
        _refuse_other_files(root, found.files[0])
    labelled = layouts.label_files(root, found)
    classes = labelled.classes
    if trainable:
        layouts.refuse_unusable(root, labelled, classes)
    label = {name: i for i, name in enumerate(classes)}
    photos = tuple(Photo(e.file.name, e.file.source, label[e.label], e.split) for e in labelled.entries)
    has_splits = any(photo.split in ("val", "test") for photo in photos)
    return Listing(root, classes, photos, labelled.junk, has_splits, tuple(found.outside))


def indexed(root: str, path: Path, base: str, *, trainable: bool = True) -> Listing:
    """The listing of shards by the index at `path`: no tar is read. `base`: the folder or URL that holds the shards.

    Raises DataError as `scan`, and where the index is damaged or is that of other shards.
    """
    found = index.open_index(path, base)
    if os.path.isdir(base):
        found.refuse_stale()
    else:
        shards.expect({base + shard.name: shard.sha256 for shard in found.shards})
        if sizes := _sizes_below(base):
            found.refuse_stale(sizes)
    counts = layouts.counted(found.split, found.label, found.classes)
    if trainable:
        layouts.refuse_counts(root, found.classes, counts)
    has_splits = any(split in ("val", "test") for split, _ in counts)
    return Listing(root, found.classes, IndexedPhotos(found), (), has_splits)


def _sizes_below(base: str) -> dict[str, int]:
    """The bytes of what lies below a URL, by name; nothing where its server does not list: shards are hashed anyway."""
    if base.lower().startswith("http"):  # pages with links, without sizes
        return {}
    try:
        found = remote.below(base)
    except DataError as error:
        if error.code == remote_errors.NETWORK:
            raise
        return {}
    return {url.removeprefix(base): seen.size for url, seen in found.items()}


def _index_of(root: str) -> Path | None:
    """The index of the shards in a folder, or below a URL that is neither archive nor pattern; None where none is."""
    if not remote.is_url(root):
        return index.beside(root) if os.path.isdir(root) else None
    if remote.is_archive(root) or remote.is_pattern(root):
        return None
    try:
        return remote.local(f"{root.rstrip('/')}/{index.INDEX}")
    except DataError as error:
        if error.code != remote_errors.MISSING:
            raise
        return None


def walk(paths: Iterable[str | Path]) -> list[Photo]:
    """Photos without labels, for predicting: files as given, folders and tars walked in sorted order.

    What does not exist or cannot be opened still gives a photo, whose reading will fail: one row with
    an error. Names start with the path as it was typed; a member of an archive is `a.tar!/cat/1.jpg`.
    """
    return [photo for path in paths for photo in _walked(os.fspath(path))]


@uncollected()
def content_hashes(photos: Sequence[Photo]) -> Digests:
    """SHA-256 of each photo's bytes; of a photo that cannot be read, one of its name. An index knows them already.

    Unreadable photos thus never count as copies of each other; the decoder names what is wrong with them.
    """
    if isinstance(photos, IndexedPhotos):
        return photos.hashes
    runs = [range(i, min(i + _HASHED_TOGETHER, len(photos))) for i in range(0, len(photos), _HASHED_TOGETHER)]
    found = np.empty((len(photos), 32), np.uint8)
    with ThreadPoolExecutor(_HASHING_THREADS) as threads:
        hashed = threads.map(lambda rows: b"".join(_hash_run([photos[i] for i in rows])), runs)
        for rows, digests in zip(runs, hashed, strict=True):
            found[rows.start : rows.stop] = np.frombuffer(digests, np.uint8).reshape(-1, 32)
    return Digests(found)


def _hash_run(photos: Sequence[Photo]) -> Iterator[bytes]:
    """Hashes of some photos; an archive that holds many in a row is opened once."""
    for file, group in itertools.groupby(photos, key=lambda photo: photo.source.file):
        if remote.is_url(file):
            yield from map(_hash_behind_url, group)
            continue
        try:
            opened = _open_regular(file)
        except OSError:
            yield from map(_asked_again, group)
            continue
        with opened:
            yield from (_content_hash(photo, opened.fileno()) for photo in group)


def _hash_behind_url(photo: Photo) -> bytes:
    """The hash that was made when the archive was listed; of a photo for itself, one of its bytes."""
    if photo.source.length < 0:
        return _asked_again(photo)
    return bytes.fromhex(shards.listing(photo.source.file).hashes[photo.source.offset])


def _open_regular(file: str) -> io.FileIO:
    if not os.path.isfile(file):  # a pipe or device would be waited for
        raise FileNotFoundError(file)
    return io.FileIO(file)


def _content_hash(photo: Photo, descriptor: int) -> bytes:
    source = photo.source
    try:
        length = os.fstat(descriptor).st_size if source.length < 0 else source.length
        data = os.pread(descriptor, length, source.offset)
    except OSError:
        return _asked_again(photo)
    return hashlib.sha256(data).digest() if len(data) == length else _unreadable_hash(photo)


def _asked_again(photo: Photo) -> bytes:
    """The hash of a photo that was refused once: as patiently as it is going to be decoded."""
    try:
        return hashlib.sha256(read(photo.source)).digest()
    except Undecodable:
        return _unreadable_hash(photo)


def _unreadable_hash(photo: Photo) -> bytes:
    return hashlib.sha256(b"unreadable " + photo.name.encode("utf-8", "surrogateescape")).digest()


def _walked(path: str) -> list[Photo]:
    if remote.is_url(path):
        return _walked_urls(path)
    if is_glob(path):
        matches = sorted(glob.glob(path, recursive=True))
        return [photo for match in matches for photo in _walked(match)] or [Photo(path, Source(path))]
    if os.path.isdir(path):
        return walk_folder(path)
    return walk_archive(path) if is_tar(path) else [Photo(path, Source(path))]


def _walked_urls(path: str) -> list[Photo]:
    try:
        urls = remote.expanded(path)
    except DataError as error:
        if error.code != remote_errors.MISSING:
            raise
        return [Photo(path, Source(path))]
    return [p for url in urls for p in (walk_archive(url) if remote.is_archive(url) else [Photo(url, Source(url))])]


def walk_folder(path: str, *, closed: bool = False) -> list[Photo]:
    """Photos of a folder, as `walk` lists them; with `closed`, each archive in it is one of them, not looked into."""
    found = Files(lenient=True, closed=closed)
    add_folder(found, path, (path.rstrip("/") or "",), ())
    return _photos_in(found)


@uncollected()
def walk_archive(path: str, shown: str | None = None, *, seen: bool = False) -> list[Photo]:
    """Photos of the tar at `path`, as `walk` lists them, named as if it were `shown`; itself where it is not whole.

    Raises DataError where the operating system refuses one that was `seen` before: it may be there again.
    """
    found = Files(lenient=True, seen=seen)
    add_tar(found, path, (shown or path,), ())
    return _photos_in(found)


def _photos_in(found: Files) -> list[Photo]:
    photos, _ = layouts.photos_only(found.files)
    return [Photo(file.name, file.source) for file in sorted(photos + found.unread, key=lambda f: f.name)]


def _refuse_other_files(path: str, file: File) -> None:
    if file.name.lower().endswith(".csv") or file.source.offset:
        return
    photos, _ = layouts.photos_only([file])
    raise sentences.single_photo(path) if photos else sentences.unknown_kind(path)
