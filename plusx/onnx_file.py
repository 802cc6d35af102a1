"""What an exported file says of itself, read without the runtime that computes with it: the metadata of an ONNX file.

ONNX is a protocol buffer: fields one after another, each with its number, its kind and, of text and messages, its
length (onnx.proto, ModelProto). The graph is stepped over, so a file of any size is read in no time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

SUFFIX = ".onnx"
_METADATA, _KEY, _VALUE = 14, 1, 2  # fields of ModelProto, and of the StringStringEntryProto in it
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # kinds of fields


def is_onnx(path: Path) -> bool:
    """Whether the file is one by its name."""
    return path.suffix.lower() == SUFFIX


def metadata(path: Path) -> dict[str, str]:
    """Keys and values of the metadata. Raises OSError, and ValueError where the file is no whole protocol buffer."""
    end, found = path.stat().st_size, {}
    with path.open("rb") as file:
        for field, value in _fields(file, end, wanted=_METADATA):
            if field == _METADATA:
                entry = _entry(value)
                found[entry[0]] = entry[1]
    return found


def _entry(value: bytes) -> tuple[str, str]:
    parts = dict(_fields(io.BytesIO(value), len(value), wanted=None))
    return parts.get(_KEY, b"").decode(), parts.get(_VALUE, b"").decode()


def _fields(file: IO[bytes], end: int, wanted: int | None) -> Iterator[tuple[int, bytes]]:
    """Numbers and contents of fields; of those of bytes only the `wanted` ones are read, all for None."""
    while file.tell() < end:
        tag = _varint(file)
        field, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _varint(file)
        elif kind in (_FIXED64, _FIXED32):
            file.seek(8 if kind == _FIXED64 else 4, 1)
        elif kind == _BYTES:
            length = _varint(file)
            if file.tell() + length > end:
                raise ValueError("it ends too early")
            if wanted in (None, field):
                yield field, file.read(length)
            else:
                file.seek(length, 1)
        else:
            raise ValueError(f"a field of kind {kind}")


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
