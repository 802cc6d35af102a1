"""What an exported file says of itself, and what it is made of, read without the runtime that computes with it.

ONNX is a protocol buffer: fields one after another, each with its number, its kind and, of text and messages, its
length (onnx.proto, ModelProto). What nobody asks for is stepped over, so a file of any size is read in no time, and
what no exported file of plusx has is found before a runtime sees it. The last field is the SHA-256 of all the bytes
before it.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from plusx.tensor_file import open_regular

SUFFIX = ".onnx"
OWN_DOMAINS = frozenset({"", "ai.onnx"})  # of operators that ONNX itself defines
MOST_FIELDS, MOST_DEPTH = 500_000, 12  # beyond these a file is no network, but made to keep a reader busy
MOST_TOLD = 256 << 20  # bytes of one piece of metadata; 8 for each of 20 million photos, in base64

_METADATA, _KEY, _VALUE = 14, 1, 2  # fields of ModelProto, and of the StringStringEntryProto in it
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # kinds of fields
_SIGNATURE = "plusx.sha256"
_LARGEST_TAG = 1 << 32  # readers that keep 32 bits would see another field in a larger one

# Messages by name: which of their fields are messages in turn, and of which name (onnx.proto).
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "operators", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_DOMAINS = {("node", 7), ("operators", 1)}
_OPERATOR, _LOOPS = ("node", 4), (b"Loop", b"Scan", b"SequenceMap")
_EXTERNAL_DATA, _DATA_LOCATION = ("tensor", 13), ("tensor", 14)


@dataclass(frozen=True)
class Parts:
    """What a file is made of that no exported file of plusx has: data kept in other files, operators of other
    `domains` than ONNX's own, functions or training graphs (`programs`), and `loops`, which can be gone through
    without end."""

    external: bool
    domains: frozenset[str]
    programs: bool
    loops: bool = False


class _Field(NamedTuple):
    """A field: its number, its kind, its value where that is a number, and where its content lies."""

    number: int
    kind: int
    value: int
    start: int
    end: int


def is_onnx(path: Path) -> bool:
    """Whether the file is one by its name."""
    return path.suffix.lower() == SUFFIX


def metadata(path: Path) -> dict[str, str]:
    """Keys and values of the metadata. Raises OSError, and ValueError where the file is no whole protocol buffer."""
    found = {}
    with open_regular(path) as file:
        for count, field in enumerate(_fields(file, os.fstat(file.fileno()).st_size)):
            if count > MOST_FIELDS or (field.number == _METADATA and field.end - field.start > MOST_TOLD):
                raise ValueError("it has more to say of itself than any network")
            if field.number == _METADATA and field.kind == _BYTES:
                key, value = _entry(_content(file, field))
                found[key] = value
    return found


def parts(content: bytes) -> Parts:
    """What the bytes of a file are made of, subgraphs and all. Raises ValueError where they are no ONNX file."""
    external, domains, programs, loops = False, set(), False, False
    file = io.BytesIO(content)
    for count, (message, field) in enumerate(_walk(file, "model", len(content))):
        if count > MOST_FIELDS:
            raise ValueError(f"it has more than {MOST_FIELDS:,} parts")
        place = (message, field.number)
        external |= place == _EXTERNAL_DATA or (place == _DATA_LOCATION and field.value != 0)
        programs |= _MESSAGES.get(message, {}).get(field.number) in ("function", "training")
        if place == _OPERATOR and field.kind == _BYTES:
            loops |= field.end - field.start < 20 and _content(file, field) in _LOOPS
        if place in _DOMAINS and field.kind == _BYTES:
            domains.add(_content(file, field).decode())
    return Parts(external, frozenset(domains - OWN_DOMAINS), programs, loops)


def signed(content: bytes) -> bytes:
    """The same file, which ends with the SHA-256 of what it was, as one more piece of metadata.

    Fields of a protocol buffer follow one another, so any reader takes it for what it is.
    """
    return content + _signature(content)


def is_as_written(content: bytes) -> bool:
    """Whether the hash at the end of a file is right; files from before there was one are believed."""
    length = len(_signature(b""))
    before, end = content[:-length], content[-length:]
    return _SIGNATURE.encode() not in end or end == _signature(before)


def _signature(content: bytes) -> bytes:
    key, value = _SIGNATURE.encode(), hashlib.sha256(content).hexdigest().encode()
    entry = _written(_KEY, key) + _written(_VALUE, value)
    return _written(_METADATA, entry)


def _written(number: int, content: bytes) -> bytes:
    """A field of fewer than 128 bytes."""
    return bytes([number << 3 | _BYTES, len(content)]) + content


def _walk(file: IO[bytes], message: str, end: int, depth: int = 0) -> Iterator[tuple[str, _Field]]:
    """Every field of a message and of the messages in it, each with the name of its message."""
    if depth > MOST_DEPTH:
        raise ValueError("its graphs lie within each other too deeply")
    within = _MESSAGES.get(message, {})
    for field in _fields(file, end):
        yield message, field
        if field.number in within and field.kind == _BYTES:
            file.seek(field.start)
            yield from _walk(file, within[field.number], field.end, depth + 1)


def _entry(value: bytes) -> tuple[str, str]:
    file = io.BytesIO(value)
    texts = {field.number: _content(file, field).decode() for field in _fields(file, len(value))}
    return texts.get(_KEY, ""), texts.get(_VALUE, "")


def _content(file: IO[bytes], field: _Field) -> bytes:
    file.seek(field.start)
    return file.read(field.end - field.start)


def _fields(file: IO[bytes], end: int) -> Iterator[_Field]:
    """The fields from here to `end`; whoever gets one may read elsewhere before asking for the next."""
    place = file.tell()
    while place < end:
        field = _next_field(file, end)
        place = field.end
        yield field
        file.seek(place)


def _next_field(file: IO[bytes], end: int) -> _Field:
    tag, value = _varint(file), 0
    number, kind = tag >> 3, tag & 7
    if tag >= _LARGEST_TAG:
        raise ValueError("a field without a number")
    if kind == _BYTES:
        length = _varint(file)
    elif kind in (_FIXED64, _FIXED32):
        length = 8 if kind == _FIXED64 else 4
    elif kind == _VARINT:
        value, length = _varint(file), 0
    else:
        raise ValueError(f"a field of kind {kind}")
    start = file.tell()
    if start + length > end:
        raise ValueError("it ends too early")
    return _Field(number, kind, value, start, start + length)


def _varint(file: IO[bytes]) -> int:
    """Seven bits a byte, the lowest first; the eighth says that there are more."""
    number = 0
    for place in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends too early")
        number |= (byte[0] & 0x7F) << place
        if byte[0] < 0x80:
            return number
    raise ValueError("a number without end")
