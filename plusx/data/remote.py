"""Objects behind URLs (s3://bucket/x.tar) as files of the bounded local cache: each fetched whole, once, when needed.

An entry of the cache is named by the URL and what the server says of its bytes, or by its SHA-256 where that is known.
What a server said of an object first holds for as long as the process lives: an object that is replaced meanwhile is
refused, so that no command sees two states of its photos. Nobody but this module turns a URL into bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from plusx.data import fetch
from plusx.data.entries import (
    OBJECT,
    building,
    built,
    cache_folder,
    cache_limit,
    make_room,
    opened,
)
from plusx.data.entries import let_go as unlock
from plusx.data.fetch import Seen
from plusx.durable import sha256_lines
from plusx.errors import remote as sentences

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: one is a Windows drive
_THIS_PROCESS = uuid.uuid4().hex  # stands for the stamp of objects that have none: never the same twice


@dataclass(frozen=True)
class _Held:
    """An entry kept from eviction: where it is, and the descriptor that holds it."""

    folder: Path
    descriptor: int


_held: dict[str, _Held] = {}
_seen: dict[str, Seen] = {}  # what the server said first
_changing = threading.Lock()  # of the two; never held while anything is fetched


def is_url(path: str) -> bool:
    """Whether a path is the address of something that fsspec opens, such as s3://bucket/x.tar."""
    return _URL.match(path) is not None


def is_pattern(url: str) -> bool:
    """Whether a URL stands for many: it holds * or [, or ? where that is not the beginning of a query."""
    rest = url.split("://", 1)[1]
    queries = url.lower().startswith("http") or "?versionId=" in rest
    return any(sign in rest for sign in "*[") or ("?" in rest and not queries)


def is_archive(url: str) -> bool:
    """Whether a URL is called a tar archive, plain or compressed."""
    return url.split("?", 1)[0].lower().endswith(ARCHIVES)


def expanded(url: str) -> list[str]:
    """The sorted URLs that a URL stands for: those it matches, the archives of a folder, or itself.

    A folder ends in "/", or is found to be one. Raises DataError where there is none, and where the network fails.
    """
    if is_pattern(url):
        return _known(url, fetch.matching(url))
    if url.endswith("/") or not (is_archive(url) or not fetch.is_folder(url)):
        found = fetch.below(url)
        archives = {name: seen for name, seen in found.items() if is_archive(name)}
        if found and not archives:
            raise sentences.no_archives(url)
        return _known(url, archives)
    return [url]


def local(url: str, sha256: str | None = None) -> Path:
    """The object at `url` as a file of the cache, fetched where it is not there; it stays until `let_go`.

    `sha256` (hexadecimal) is what its bytes have to be; they are then looked for without asking the server. Raises
    DataError for what is not there, is refused, has changed, or cannot be had after bounded waiting; DiskError where
    it cannot be written.
    """
    return _at_hand(url, _folder(url, sha256), lambda path: _fetched(url, (0, seen(url).size), path, sha256))


def local_part(url: str, offset: int, length: int, sha256: str | None = None) -> Path:
    """Some bytes of the object as a file of their own; it stays until its `part_name` is let go.

    `sha256` is what these bytes have to be. Raises as `local` does.
    """
    name = part_name(url, offset, length)
    folder = cache_folder() / sha256_lines(("part", key(url), str(offset), str(length), sha256 or ""))[:32]
    return _at_hand(name, folder, lambda path: _fetched(url, (offset, offset + length), path, sha256))


def part_name(url: str, offset: int, length: int) -> str:
    """What a part is let go of by."""
    return f"{url}#{offset}+{length}"


def let_go(url: str) -> None:
    """The object at `url` may be evicted from here on, where this process held it."""
    with _changing:
        held = _held.pop(url, None)
    if held:
        unlock(held.descriptor)


def forget() -> None:
    """Let go of everything, and of what servers said: the next look is a new one."""
    for url in list(_held):
        let_go(url)
    with _changing:
        _seen.clear()


def seen(url: str) -> Seen:
    """What the server said of the object when this process saw it first."""
    with _changing:
        known = _seen.get(url)
    if known is None:
        known = fetch.seen(url)
        with _changing:
            known = _seen.setdefault(url, known)
    return known


def key(url: str) -> str:
    """What names the object at `url` as it is: another after it was replaced."""
    what = seen(url)
    return sha256_lines(("object", url, str(what.size), what.stamp or _THIS_PROCESS))[:32]


def part(url: str, offset: int, length: int, sha256: str | None = None) -> bytes:
    """Some bytes of the object: out of the cache where it is there, else asked for alone.

    `sha256` is that of the whole object, where it is known. Raises as `local` does.
    """
    with contextlib.suppress(OSError), (_folder(url, sha256) / OBJECT).open("rb") as file:
        data = os.pread(file.fileno(), length, offset)
        if len(data) == length:
            return data
    seen(url)  # before the bytes: what is looked at afterwards has to be the same
    data = b"".join(fetch.pieces(url, offset + length, offset))
    _refuse_changed(url)
    return data


def is_here(url: str, sha256: str | None = None) -> bool:
    """Whether the object, of this SHA-256 where it is known, is in the cache already."""
    return (_folder(url, sha256) / OBJECT).exists()


def below(url: str) -> dict[str, Seen]:
    """Every object in the folder `url`, by its URL, as the server sees it now. Raises DataError where it does not."""
    found = fetch.below(url)
    _remember(found)
    return found


def _known(url: str, found: dict[str, Seen]) -> list[str]:
    if not found:
        raise sentences.nothing_matches(url)
    _remember(found)
    return sorted(found)


def _remember(found: dict[str, Seen]) -> None:
    with _changing:
        for name, what in found.items():
            _seen.setdefault(name, what)


def _folder(url: str, sha256: str | None) -> Path:
    """The entry of an object."""
    return cache_folder() / (key(url) if sha256 is None else sha256_lines(("object", sha256))[:32])


def _at_hand(name: str, folder: Path, fetch_into: Callable[[Path], str]) -> Path:
    """The file in an entry, held under a name; built where it is not there. `fetch_into` returns its SHA-256."""
    with _changing:
        held = _held.get(name)
    if held and held.folder == folder and (folder / OBJECT).exists():
        return folder / OBJECT
    with _writable(name), building(folder.name):
        if not _open(name, folder):
            _build(name, folder, fetch_into)
    return folder / OBJECT


def _open(name: str, folder: Path) -> bool:
    """Hold the entry; False where there is none or it is not as it was written."""
    descriptor = opened(folder, OBJECT)
    if descriptor is None:
        return False
    let_go(name)
    with _changing:
        _held[name] = _Held(folder, descriptor)
    return True


def _build(name: str, folder: Path, fetch_into: Callable[[Path], str]) -> None:
    built(folder, OBJECT, lambda path: {"url": name, "sha256": fetch_into(path)})
    if not _open(name, folder):
        raise OSError(f"{folder} was changed while it was written")


def _fetched(url: str, between: tuple[int, int], path: Path, sha256: str | None) -> str:
    """The SHA-256 of the bytes that were fetched into `path`; once more where it is not what it has to be."""
    seen(url)  # before the bytes: what is looked at afterwards has to be the same
    found = _fetch(url, between, path)
    if sha256 is None:
        _refuse_changed(url)
    elif found != sha256 and (found := _fetch(url, between, path)) != sha256:
        _refuse_changed(url)
        raise sentences.wrong_bytes(url, sha256, found)
    return found


def _refuse_changed(url: str) -> None:
    """Raise DataError where the object is no longer what the server said first."""
    if fetch.seen(url) != seen(url):
        raise sentences.changed(url)


def _fetch(url: str, between: tuple[int, int], path: Path) -> str:
    """Fetch bytes of the object into `path`, as long as there is room; returns their SHA-256."""
    (start, end), limit, digest = between, cache_limit(), hashlib.sha256()
    if end - start > limit:
        raise sentences.too_large(url, end - start, limit)
    with path.open("wb") as file:
        for piece in fetch.pieces(url, end, start):
            if not make_room(len(piece)):
                raise sentences.no_room(url, cache_folder(), limit)
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


@contextlib.contextmanager
def _writable(url: str) -> Iterator[None]:
    """Raise DiskError for what the operating system refuses to keep in the cache."""
    try:
        yield
    except OSError as error:
        raise sentences.cannot_write(url, cache_folder(), error.strerror or str(error)) from None
