"""Where a photo's bytes lie, and the one way to read them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plusx.errors import images as errors

MAX_BYTES = 1 << 30  # of one photo's file; 64 million pixels of 16-bit RGBA, uncompressed, are half of it

_KINDS = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISCHR, "device"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a photo's bytes lie: `length` bytes of `file` from `offset`, -1: to its end.

    `file` is text by os.fsdecode, so that names in any encoding survive.
    """

    file: str
    offset: int = 0
    length: int = -1


def read(source: Source, at_most: int | None = None) -> bytes:
    """The bytes of a photo, or the first `at_most` of them. Never blocks on a pipe or device. Raises Undecodable."""
    try:
        _require_regular(os.stat(source.file).st_mode)  # noqa: PTH116 - a Path costs more than the call
        descriptor = os.open(source.file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise errors.cannot_open(getattr(error, "strerror", None) or str(error)) from None
    try:
        return _read_open(descriptor, source, at_most)
    except OSError as error:
        raise errors.cannot_open(error.strerror or str(error)) from None
    finally:
        os.close(descriptor)


def _read_open(descriptor: int, source: Source, at_most: int | None) -> bytes:
    status = os.fstat(descriptor)
    _require_regular(status.st_mode)  # once more: the name may stand for another file by now
    wanted = max(status.st_size - source.offset, 0) if source.length < 0 else source.length
    wanted = wanted if at_most is None else min(wanted, at_most)
    if wanted > MAX_BYTES:
        raise errors.too_many_bytes(wanted, MAX_BYTES)
    data = os.pread(descriptor, wanted, source.offset)
    if len(data) < wanted:
        raise errors.cut_archive(wanted, len(data))
    return data


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise errors.not_a_regular_file(_first_true(_KINDS, mode))


def _first_true(kinds: Sequence[tuple[Callable[[int], bool], str]], mode: int) -> str:
    return next((name for is_kind, name in kinds if is_kind(mode)), "special file")
