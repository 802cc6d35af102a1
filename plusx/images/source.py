"""Where a photo's bytes lie, and the one way to read them.

What the operating system refuses may be over a moment later: a network file system that lost its server, a file that is
being replaced. Such a file is asked for again, a bounded number of times, before it is named.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plusx.errors import images as errors

MAX_BYTES = 1 << 30  # of one photo's file; 64 million pixels of 16-bit RGBA, uncompressed, are half of it

PAUSES = (0.01, 0.1)  # seconds before a file is asked for a second and a third time
REGAINED = 0.001  # seconds of patience that a file gives back which comes at once
MAY_PASS = frozenset({
    errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOENT, errno.ENOTCONN,
})  # fmt: skip

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

    `file` is text by os.fsdecode, so that names in any encoding survive. `sha256` (hexadecimal) is what they have to
    be, where an index or a listing says so: other bytes are refused.
    """

    file: str
    offset: int = 0
    length: int = -1
    sha256: str = field(default="", compare=False)

    def refuse_other(self, data: bytes) -> None:
        """Raise Undecodable where `data`, all bytes of the photo, are others than were stated."""
        if self.sha256 and hashlib.sha256(data).hexdigest() != self.sha256:
            raise errors.other_bytes()


class Patience:
    """Asks for a file again where the refusal may pass, after each of PAUSES.

    Waiting that was in vain is counted: after `seconds` of it nothing is asked for twice, until files come again. A
    file that comes at once takes REGAINED off the count, one that comes after waiting all of it. So a disk that is gone
    with a million photos costs seconds, photos that fail for good cost `seconds` and REGAINED for each that does not,
    and a glitch every hour of a long training costs nothing.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        self.seconds = seconds
        self.wasted = 0.0

    def bytes_of(self, attempt: Callable[[], bytes], pauses: Sequence[float] = PAUSES) -> bytes:
        """What `attempt` gives; raises its last OSError."""
        try:
            found = attempt()
        except OSError as error:
            if not pauses or self.wasted >= self.seconds or not _may_pass(error):
                raise
        else:
            self.wasted = max(0.0, self.wasted - REGAINED)
            return found
        self.wasted += pauses[0]
        time.sleep(pauses[0])
        found = self.bytes_of(attempt, pauses[1:])
        self.wasted = 0.0
        return found


_PATIENCE = Patience()


def _may_pass(error: OSError) -> bool:
    """A link whose target is missing is no glitch: nothing is being replaced there."""
    dangling = error.errno == errno.ENOENT and isinstance(error.filename, str) and Path(error.filename).is_symlink()
    return error.errno in MAY_PASS and not dangling


def read(source: Source, at_most: int | None = None) -> bytes:
    """The bytes of a photo, or the first `at_most` of them. Never blocks on a pipe or device. Raises Undecodable."""
    try:
        return _PATIENCE.bytes_of(lambda: _read(source, at_most))
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise errors.cannot_open(getattr(error, "strerror", None) or str(error)) from None


def _read(source: Source, at_most: int | None) -> bytes:
    _require_regular(os.stat(source.file).st_mode)  # noqa: PTH116 - a Path costs more than the call
    descriptor = os.open(source.file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _read_open(descriptor, source, at_most)
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
    if at_most is None:
        source.refuse_other(data)
    return data


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise errors.not_a_regular_file(_first_true(_KINDS, mode))


def _first_true(kinds: Sequence[tuple[Callable[[int], bool], str]], mode: int) -> str:
    return next((name for is_kind, name in kinds if is_kind(mode)), "special file")
