"""safetensors files, looked through before anything is made of them. No torch.

A file is the length of its header (8 bytes), the header as JSON, and the tensors' bytes, one behind the other. Readers
differ in what else they let pass (names twice, bytes that belong to nothing, numbers of other types), and where they
differ one of them can be fooled. Here nothing passes, and what only keeps a reader busy is given up before it is read.
"""

from __future__ import annotations

import json
import math
import os
import stat
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

MOST_HEADER = 16 << 20  # bytes: 20,000 classes, and everything that is said of each
MOST_PARTS, MOST_VALUES = 100_000, 6_000_000  # lists and objects, and commas: as many as 16 MB of numbers hold
MOST_TENSORS, MOST_AXES, MOST_NUMBERS = 20_000, 8, 1 << 40
SHOWN = 60  # characters of a name in a sentence

_BYTES = {  # of one number
    **{"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2},
    **{"U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8},
}
_FIELDS = {"dtype", "shape", "data_offsets"}
_METADATA = "__metadata__"


class NoTensorFile(ValueError):
    """What does not even begin as a safetensors file does, or is a part of one."""


class _Odd(ValueError):
    """JSON that no writer makes: a name twice in an object, or more than a network needs."""


class Entry(NamedTuple):
    """A tensor as the header has it: the type of its numbers, its shape, and where its bytes begin and end."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Contents:
    """What a file holds: texts by key, None where it has none at all, and tensors by name."""

    metadata: Mapping[str, str] | None
    tensors: Mapping[str, Entry]


def contents(path: Path) -> Contents:
    """What the file at `path` holds, its header alone read. Raises OSError, and ValueError as `look` does."""
    with open_regular(path) as file:
        return look(file, os.fstat(file.fileno()).st_size)


def open_regular(path: Path) -> IO[bytes]:
    """The file at `path`, open. Raises OSError, also for a pipe or a device, which might never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no file", str(path))
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path) -> bytes:
    """The bytes of a file. Raises OSError as `open_regular` does."""
    with open_regular(path) as file:
        return file.read()


def look(file: IO[bytes], size: int) -> Contents:
    """What a file of `size` bytes holds. Raises NoTensorFile, and ValueError for what no honest writer makes."""
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= size - 8:
        raise NoTensorFile("its header is longer than the file, or there is none")
    if length > MOST_HEADER:
        raise ValueError(f"its header has {length:,} bytes, and {MOST_HEADER:,} are the most")
    text = file.read(length)
    if text.count(b'"data_offsets"') > MOST_TENSORS:
        raise ValueError(f"it has more than {MOST_TENSORS:,} tensors")
    header = parsed(text)
    if not isinstance(header, dict):
        raise NoTensorFile("its header is no object")
    metadata = header.pop(_METADATA, None)
    if metadata is not None and not _is_texts(metadata):
        raise ValueError("its metadata are no texts")
    tensors = {name: _entry(name, value) for name, value in header.items()}
    _refuse_disorder(tensors, size - 8 - length)
    return Contents(metadata, tensors)


def parsed(text: bytes | str) -> Any:
    """JSON of bounded work, no name twice in an object. Raises NoTensorFile for what is none, ValueError for others."""
    try:
        text = text.decode() if isinstance(text, bytes) else text  # json itself would take UTF-16 as well
        _refuse_many("characters", len(text), MOST_HEADER)
        _refuse_many("lists and objects", text.count("[") + text.count("{"), MOST_PARTS)
        _refuse_many("values", text.count(","), MOST_VALUES)
        return json.loads(text, object_pairs_hook=_each_once)
    except RecursionError:
        raise ValueError("the parts of its header lie within each other too deeply") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise NoTensorFile("its header is no JSON") from None
    except _Odd:
        raise
    except ValueError:
        raise ValueError("its header holds a number of thousands of digits") from None


def short(name: str) -> str:
    """A name from a file, quoted, and no longer than a line takes."""
    return repr(name if len(name) <= SHOWN else f"{name[: SHOWN - 3]}...")


def _refuse_many(what: str, found: int, most: int) -> None:
    if found > most:
        raise _Odd(f"its header has {found:,} {what}, and {most:,} are the most")


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise _Odd(f"its header names {short(twice)} twice")
    return found


def _is_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _entry(name: str, value: object) -> Entry:
    """A tensor's entry. Raises ValueError unless its numbers are known, and as many as its shape says."""
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise ValueError(f"{short(name)} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise ValueError(f"{short(name)} has numbers of the type {short(str(dtype))}, which is unknown here")
    if not _is_counts(shape) or len(shape) > MOST_AXES or math.prod(shape) > MOST_NUMBERS:
        raise ValueError(f"{short(name)} has a shape that is none")
    if not _is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{short(name)} has a place that is none")
    if math.prod(shape) * _BYTES[dtype] != offsets[1] - offsets[0]:
        raise ValueError(f"{short(name)} has another number of bytes than its shape says")
    return Entry(dtype, tuple(shape), *offsets)


def _is_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= MOST_NUMBERS for n in value)


def _refuse_disorder(tensors: Mapping[str, Entry], end: int) -> None:
    """Raise ValueError unless the tensors lie one behind the other and fill the `end` bytes there are."""
    place = 0
    for name, entry in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if entry.start != place:
            how = "overlaps another tensor" if entry.start < place else "leaves bytes before it that nothing uses"
            raise ValueError(f"{short(name)} {how}")
        place = entry.end
    if place > end:
        raise ValueError(f"its tensors end {place - end:,} bytes behind the file")
    if place < end:
        raise ValueError(f"{end - place:,} bytes follow its last tensor")
