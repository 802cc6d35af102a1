"""One decoding process: reads chunks of work from standard input, answers photo by photo on standard output.

It imports Pillow and NumPy and no more. A photo that takes it over costs the parent nothing: what
goes back is a JSON header and raw pixels, which the parent checks, never objects.

A message is two lengths (little-endian uint32), the JSON header and the payload. To the worker: first
the set-up, then {"facts": ..., "photos": [[index, file, offset, length, sha256], ...]}, or {"facts": ...,
"photo": index} with the bytes of a photo that lies in no file; from it: {"ready": true}, then for each photo
{"index": i} with its pixels, beside them "facts" and "contrast" where these were asked for, or {"index": i,
"code": ..., "reason": ...} without pixels.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from plusx.errors import images as errors
from plusx.images.answers import Surveyed
from plusx.images.decode import MAX_PIXELS, Undecodable, decode, inspect
from plusx.images.preprocess import Pixels, Preprocess
from plusx.images.source import Source, read

LENGTHS = struct.Struct("<II")  # header, payload
MEMORY = 4 << 30  # address space of one worker; a 64-million-pixel RGBA picture takes about 1 GiB
_BOXES = 32  # a side, for the contrast
_GRACE = 5.0  # the parent stops a photo at its time limit; a worker whose parent is gone, this much later


def message(header: object, payload: bytes = b"") -> bytes:
    """The bytes of one message."""
    text = json.dumps(header).encode()
    return b"".join((LENGTHS.pack(len(text), len(payload)), text, payload))


def main() -> None:
    """Serve until standard input ends. The process must be ours alone: limits and signals are set for all of it."""
    for number in (signal.SIGINT, signal.SIGTERM):  # these are for the parent, which then closes our input
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.dup(1)
    setup, _ = _receive(requests)
    if setup is None:
        return
    _limit_memory(setup["memory"])
    preprocess, most = Preprocess.from_json(setup["preprocess"]), setup["pixels"]
    _write(answers, message({"ready": True}))
    _leave_standard_streams()  # only now: until here, what goes wrong must be seen
    while (chunk := _receive(requests))[0] is not None:
        for index, bytes_of in _photos(*chunk):
            with _alarm(setup["seconds"] + _GRACE):
                answer = _answer(partial(_LOOKS[chunk[0]["facts"]], preprocess, most=most), index, bytes_of)
            _write(answers, answer)


def pixels_of(preprocess: Preprocess, data: bytes, most: int = MAX_PIXELS) -> Pixels:
    """A photo of `most` pixels at most, uint8 [crop, crop, 3]. Raises Undecodable."""
    return preprocess.from_bytes(data, most)


def survey_of(preprocess: Preprocess, data: bytes, most: int = MAX_PIXELS) -> Surveyed:
    """Facts, contrast and pixels of a photo, which is decoded once and whole. Raises Undecodable."""
    image = decode(data, preprocess.background, most=most)
    return Surveyed(inspect(data), _contrast(image), preprocess(image))


_LOOKS: tuple[Callable[..., Pixels | Surveyed], ...] = (pixels_of, survey_of)  # without facts, with them


def _photos(asked: dict[str, Any], payload: bytes) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """Every photo that is asked for with how to get its bytes."""
    if "photo" in asked:
        yield asked["photo"], lambda: payload
    for index, *where in asked.get("photos", ()):
        yield index, partial(read, Source(*where))


def _contrast(image: Image.Image) -> int:
    boxes = np.asarray(image.resize((_BOXES, _BOXES), Image.Resampling.BOX))  # noise of single pixels evens out
    return int(np.ptp(boxes, axis=(0, 1)).max())


def _answer(look: Callable[[bytes], Pixels | Surveyed], index: int, bytes_of: Callable[[], bytes]) -> bytes:
    try:
        found = look(bytes_of())
        if isinstance(found, Surveyed):
            header = {"index": index, "facts": asdict(found.facts), "contrast": found.contrast}
            return message(header, found.pixels.tobytes())
        return message({"index": index}, found.tobytes())
    except Undecodable as error:
        bad = error
    except MemoryError:
        bad = errors.out_of_memory()
    return message({"index": index, "code": bad.code, "reason": bad.reason})


def _receive(requests: BinaryIO) -> tuple[Any, bytes]:
    """Header and payload of the next message; no header where the parent is gone, or done."""
    lengths = requests.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None, b""
    header, size = LENGTHS.unpack(lengths)
    text, payload = requests.read(header), requests.read(size)
    return (json.loads(text), payload) if len(text) == header and len(payload) == size else (None, b"")


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
