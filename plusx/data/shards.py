"""Archives behind URLs: opened as plain local tars while somebody reads in them, and what is in each, remembered.

What is in an archive (names, places, SHA-256 of every file) is found out once, while it is at hand, and kept in the
cache by the key of the object: the next command lists and hashes its photos without fetching it. Small files that say
the class of a photo (`.cls`) are kept with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from plusx.data import remote, unpacked
from plusx.data.entries import LISTING, cache_folder, make_room
from plusx.data.tar import Member, members
from plusx.durable import sha256_lines, write_json
from plusx.errors import Error
from plusx.errors import data as sentences

FORMAT = 1
LABEL, LONGEST_LABEL = ".cls", 4096  # files whose bytes are kept in the listing
_REMEMBERED = 8  # listings in memory
_PIECE = 1 << 20  # bytes that are hashed at a time

_lock = threading.Lock()  # of the two below; fetching is done without it
_users: Counter[str] = Counter()
_tars: dict[str, Path] = {}  # what compressed archives were unpacked to, held or not
_expected: dict[str, str] = {}  # SHA-256 of archives, where an index states them
Given = TypeVar("Given")


@dataclass(frozen=True)
class Listing:
    """The files in an archive in its order, the SHA-256 of each in hexadecimal, by its place, and short texts."""

    members: tuple[Member, ...]
    hashes: dict[int, str]
    texts: dict[int, str]


def expect(hashes: Mapping[str, str]) -> None:
    """From here on these archives have to have this SHA-256, by URL; others are refused when they are fetched."""
    with _lock:
        _expected.update(hashes)


def opened(url: str) -> Path:
    """The plain tar behind `url` as a local file, which stays until it was let go as often as it was opened.

    Raises as `remote.local` and `unpacked.plain` do.
    """
    with _lock:
        _users[url] += 1
    try:
        return _opened(url)
    except BaseException:
        let_go(url)
        raise


def let_go(url: str) -> None:
    """One of those who opened `url` needs it no more."""
    with _lock:
        _users[url] -= 1
        if _users[url] > 0:
            return
        del _users[url]
        remote.let_go(url)
        if url in _tars:
            unpacked.let_go(_tars[url], url)


def is_open(url: str) -> bool:
    """Whether somebody in this process has opened `url` and not let it go."""
    with _lock:
        return _users[url] > 0


def listing(url: str) -> Listing:
    """What is in the archive behind `url`; it is fetched only where no process has listed it before.

    Raises DataError where it is no whole tar, and as `opened` does.
    """
    return _listing(url, remote.key(url))


def text(url: str, offset: int) -> str | None:
    """The text of a short file at `offset`; None where there is none."""
    return listing(url).texts.get(offset)


def is_packed(url: str) -> bool:
    """Whether the archive behind `url` is compressed, by its first bytes: then places in it are of what it holds."""
    return _is_packed(url, remote.key(url))


def is_here(url: str) -> bool:
    """Whether the archive is in the cache already."""
    return remote.is_here(url, _expected.get(url))


def part(url: str, offset: int, length: int) -> bytes:
    """Some bytes of the archive as it lies there, of which no more is asked for. Raises as `remote.part` does."""
    return remote.part(url, offset, length, _expected.get(url))


@lru_cache(maxsize=4096)
def _is_packed(url: str, key: str) -> bool:  # noqa: ARG001 - another object has another key
    return unpacked.is_packed(part(url, 0, min(6, remote.seen(url).size)))


def _opened(url: str) -> Path:
    with _lock:
        tar = _tars.get(url)
        if tar is not None and unpacked.again(tar, url):
            return tar
    path = remote.local(url, _expected.get(url))
    tar = _under_its_url(url, path, lambda packed: unpacked.plain(packed, url))
    if tar != path:
        with _lock:
            _tars[url] = tar
        remote.let_go(url)
    return tar


def _under_its_url(url: str, path: Path, do: Callable[[Path], Given]) -> Given:
    """What `do` makes of the local copy; where it refuses that, the sentence names the URL."""
    try:
        return do(path)
    except Error as error:
        raise type(error)(error.message.replace(str(path), url), code=error.code) from None


@lru_cache(maxsize=_REMEMBERED)
def _listing(url: str, key: str) -> Listing:
    file = cache_folder() / sha256_lines(("listing", str(FORMAT), key))[:32] / LISTING
    try:
        return _from_json(json.loads(file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        found = _looked_through(url)
    with contextlib.suppress(OSError, Error):  # it is only found out again then
        _keep(file, _to_json(found))
    return found


def _keep(file: Path, listing: dict[str, Any]) -> None:
    """Write a listing into the cache, where there is room for it."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    if make_room(len(json.dumps(listing, indent=2)) + 1):
        file.parent.mkdir(exist_ok=True)
        write_json(file, listing)


def _looked_through(url: str) -> Listing:
    tar = opened(url)
    try:
        inside = tuple(_under_its_url(url, tar, lambda path: members(path, url)))
        hashes, texts = dict[int, str](), dict[int, str]()
        with tar.open("rb") as file:
            for member in inside:
                hashes[member.offset] = _hash(url, file.fileno(), member)
                if member.name.endswith(LABEL) and member.length <= LONGEST_LABEL:
                    data = os.pread(file.fileno(), member.length, member.offset)
                    texts[member.offset] = data.decode("utf-8", "surrogateescape")
        return Listing(inside, hashes, texts)
    finally:
        let_go(url)


def _hash(url: str, descriptor: int, member: Member) -> str:
    """The SHA-256 of a file in an archive, hexadecimal, read a piece at a time: it may be larger than memory."""
    digest, at, end = hashlib.sha256(), member.offset, member.offset + member.length
    while at < end:
        piece = os.pread(descriptor, min(_PIECE, end - at), at)
        if not piece:
            raise sentences.bad_tar(url, f"{member.name} ends {end - at:,} bytes too early")
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()


def _to_json(found: Listing) -> dict[str, Any]:
    rows = [[m.name, m.offset, m.length, found.hashes[m.offset]] for m in found.members]
    return {"files": rows, "texts": {str(offset): text for offset, text in found.texts.items()}}


def _from_json(kept: Any) -> Listing:
    inside = tuple(Member(str(name), int(offset), int(length)) for name, offset, length, _ in kept["files"])
    hashes = {int(offset): str(sha256) for _, offset, _, sha256 in kept["files"]}
    return Listing(inside, hashes, {int(offset): str(text) for offset, text in kept["texts"].items()})
