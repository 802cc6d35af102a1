"""One decoding process: reads chunks of work from standard input, answers photo by photo on standard output.

It imports Pillow and NumPy and no more. A photo that takes it over costs the parent nothing: what
goes back is a JSON header and raw pixels, which the parent checks, never objects.

A message is two lengths (little-endian uint32), the JSON header and the payload. To the worker: first
the set-up, then lists of [index, file, offset, length]; from it: {"ready": true}, then for each photo
{"index": i} with its pixels, or {"index": i, "code": ..., "reason": ...} without.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from plusx.errors import images as errors
from plusx.images.decode import Undecodable
from plusx.images.preprocess import Preprocess

LENGTHS = struct.Struct("<II")  # header, payload
MAX_BYTES = 1 << 30  # of one photo's file; 64 million pixels of 16-bit RGBA, uncompressed, are half of it
MEMORY = 4 << 30  # address space of one worker; a 64-million-pixel RGBA picture takes about 1 GiB
_GRACE = 5.0  # the parent stops a photo at its time limit; a worker whose parent is gone, this much later

_KINDS = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISCHR, "device"),
)


def read(file: str, offset: int = 0, length: int = -1) -> bytes:
    """`length` bytes of `file` from `offset`, -1: to its end. Never blocks on a pipe or device. Raises Undecodable."""
    try:
        _require_regular(os.stat(file).st_mode)  # noqa: PTH116 - a Path costs more than the call
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise errors.cannot_open(getattr(error, "strerror", None) or str(error)) from None
    try:
        return _read_open(descriptor, offset, length)
    except OSError as error:
        raise errors.cannot_open(error.strerror or str(error)) from None
    finally:
        os.close(descriptor)


def message(header: object, payload: bytes = b"") -> bytes:
    """The bytes of one message."""
    text = json.dumps(header).encode()
    return b"".join((LENGTHS.pack(len(text), len(payload)), text, payload))


def main() -> None:
    """Serve until standard input ends. The process must be ours alone: limits and signals are set for all of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes our input
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.dup(1)
    setup = _receive(requests)
    if setup is None:
        return
    _limit_memory(setup["memory"])
    preprocess = Preprocess.from_json(setup["preprocess"])
    _write(answers, message({"ready": True}))
    _leave_standard_streams()  # only now: until here, what goes wrong must be seen
    while (chunk := _receive(requests)) is not None:
        for index, file, offset, length in chunk:
            with _alarm(setup["seconds"] + _GRACE):
                answer = _answer(preprocess, index, file, offset, length)
            _write(answers, answer)


def _answer(preprocess: Preprocess, index: int, file: str, offset: int, length: int) -> bytes:
    try:
        return message({"index": index}, preprocess.from_bytes(read(file, offset, length)).tobytes())
    except Undecodable as error:
        bad = error
    except MemoryError:
        bad = errors.out_of_memory()
    return message({"index": index, "code": bad.code, "reason": bad.reason})


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise errors.not_a_regular_file(_first_true(_KINDS, mode))


def _first_true(kinds: Sequence[tuple[Callable[[int], bool], str]], mode: int) -> str:
    return next((name for is_kind, name in kinds if is_kind(mode)), "special file")


def _read_open(descriptor: int, offset: int, length: int) -> bytes:
    status = os.fstat(descriptor)
    _require_regular(status.st_mode)  # once more: the name may stand for another file by now
    wanted = status.st_size - offset if length < 0 else length
    if wanted > MAX_BYTES:
        raise errors.too_many_bytes(wanted, MAX_BYTES)
    data = os.pread(descriptor, max(wanted, 0), offset)
    if len(data) < wanted:
        raise errors.cut_archive(wanted, len(data))
    return data


def _receive(requests: BinaryIO) -> Any:
    lengths = requests.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None  # the parent is gone, or done
    header, _ = LENGTHS.unpack(lengths)
    text = requests.read(header)
    return json.loads(text) if len(text) == header else None


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BrokenPipeError:
            raise SystemExit(0) from None  # nobody listens any more


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    # The alarm's default action ends the process in the kernel, however deep in C code it spins.
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def _limit_memory(size: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # macOS refuses; a lower limit of the user's own stays
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _leave_standard_streams() -> None:
    # libtiff and its like print; what they print must neither mix into the answers nor reach the terminal.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)


if __name__ == "__main__":
    main()
