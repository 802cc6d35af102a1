"""Tar archives read in place: every regular member by name, offset and length; nothing is unpacked."""

# ruff: noqa: PTH202
# Paths are text by os.fsdecode here, as Source holds them.

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plusx.errors import data as sentences

_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a tar: its path there, and where its bytes lie in the tar."""

    name: str
    offset: int
    length: int


def members(path: Path, shown: object = None) -> list[Member]:
    """Every regular file in the plain tar at `path`, in its order, hard links included.

    Names are UTF-8 with surrogates for other bytes. Raises DataError where it is no whole, plain tar; the sentence
    names what is `shown` to the user, where that is another file.
    """
    named = shown or path
    try:
        with (
            path.open("rb") as file,
            tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as archive,
        ):
            found = list(_regular(archive))
            end = archive.offset
        _refuse_unfinished(path, end, named)
    except (tarfile.TarError, EOFError) as error:
        raise sentences.bad_tar(named, str(error)) from None
    except OSError as error:
        raise sentences.unreadable(named, error) from None
    return found


def _regular(archive: tarfile.TarFile) -> Iterator[Member]:
    seen: dict[str, Member] = {}
    while (info := archive.next()) is not None:
        if info.isreg() and not info.sparse:
            seen[info.name] = member = Member(info.name, info.offset_data, info.size)
            yield member
        elif info.islnk() and info.linkname in seen:  # the same bytes under a second name
            yield Member(info.name, seen[info.linkname].offset, seen[info.linkname].length)
        archive.members = []  # type: ignore[attr-defined] # else the archive remembers every header it has read


def _refuse_unfinished(path: Path, end: int, named: object) -> None:
    # tarfile stops without a word at a cut or damaged header, so the end-of-archive block is looked for here.
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        raise sentences.bad_tar(named, f"its {os.path.getsize(path):,} bytes end before the archive does")
    if any(block):
        raise sentences.bad_tar(named, f"the header at byte {end:,} makes no sense")
