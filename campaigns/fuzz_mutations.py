"""What happens to files: flipped bits, lost and doubled stretches, lengths that lie, halves of two files in one.

`mutated` is a function of (seed, trial) alone, so that a trial can be looked at again by its number.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from plusx.images.sniff import sniff

SMALL = (0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 63, 64, 127, 128, 254, 255)
LARGE = (0x100, 0x3FFF, 0x4000, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
MOST = 4  # mutations of one file
REPAIRED = 0.7  # of the PNGs get right checksums again: else nearly all would be refused by these
_IN_CASE = 4096  # bytes from the start that are looked through for fields of a GIF
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HOLDERS = {b"meta": 12, b"iprp": 8, b"ipco": 8, b"iinf": 14, b"dinf": 8}  # boxes of boxes, and where these begin

Field = tuple[int, int, bool]  # offset, bytes, whether the most significant comes first
Mutation = Callable[[random.Random, bytearray, bytes], bytearray]


@dataclass(frozen=True)
class Mutant:
    """A damaged file, of which picture, and by what."""

    picture: str
    mutations: tuple[str, ...]
    data: bytes


def mutated(seed: int, trial: int, pictures: Mapping[str, bytes]) -> Mutant:
    """The file of one trial: a picture with one to four mutations."""
    chance = random.Random(seed << 48 | trial)
    names = list(pictures)
    name, other = chance.choice(names), chance.choice(names)
    data, applied = bytearray(pictures[name]), list[str]()
    for _ in range(min(MOST, 1 + int(chance.expovariate(0.8)))):
        kind = chance.choice(list(MUTATIONS))
        data = MUTATIONS[kind](chance, data, pictures[other])
        applied.append(kind)
    if data.startswith(b"\x89PNG") and chance.random() < REPAIRED:
        data = with_checksums(data)
        applied.append("checksums")
    return Mutant(name, tuple(applied), bytes(data))


def flip_bits(chance: random.Random, data: bytearray, _: bytes) -> bytearray:
    """One to eight bits."""
    for _number in range(chance.randint(1, 8) if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def overwrite(chance: random.Random, data: bytearray, _: bytes) -> bytearray:
    """A number of one, two or four bytes that programs trip over, anywhere."""
    size = chance.choice((1, 2, 4))
    if len(data) >= size:
        _put(chance, data, (chance.randrange(len(data) - size + 1), size, chance.random() < 0.5))
    return data


def lie(chance: random.Random, data: bytearray, _: bytes) -> bytearray:
    """A length, a size or a count that the format itself has there, a little or far off."""
    known = [field for field in fields(data) if field[0] + field[1] <= len(data)]
    if known:
        _put(chance, data, chance.choice(known))
    return data


def lose(chance: random.Random, data: bytearray, _: bytes) -> bytearray:
    """A stretch is gone."""
    start, end = _stretch(chance, data)
    del data[start:end]
    return data


def double(chance: random.Random, data: bytearray, _: bytes) -> bytearray:
    """A stretch is there twice, or many times."""
    start, end = _stretch(chance, data)
    data[end:end] = data[start:end] * chance.choice((1, 1, 2, 30))
    return data


def scatter(chance: random.Random, data: bytearray, _: bytes) -> bytearray:
    """A stretch of noise."""
    start, end = _stretch(chance, data)
    data[start:end] = chance.randbytes(end - start)
    return data


def cut(chance: random.Random, data: bytearray, _: bytes) -> bytearray:
    """The end is missing."""
    del data[chance.randrange(len(data) + 1) :]
    return data


def splice(chance: random.Random, data: bytearray, other: bytes) -> bytearray:
    """The beginning of one file and the end of another."""
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation for mutation in (flip_bits, overwrite, lie, lose, double, scatter, cut, splice)
}


def with_checksums(data: bytearray) -> bytearray:
    """A PNG whose chunks have the checksums that their bytes ask for."""
    for start, length in _chunks(data):
        checked = data[start + 4 : start + 8 + length]
        struct.pack_into(">I", data, start + 8 + length, zlib.crc32(checked))
    return data


def fields(data: bytearray) -> Sequence[Field]:
    """Where a file states lengths, sizes, counts and offsets."""
    find = _FIELDS.get(sniff(bytes(data[:1024])))
    return [] if find is None else list(find(data))


def _put(chance: random.Random, data: bytearray, field: Field) -> None:
    offset, size, big = field
    order: Literal["little", "big"] = "big" if big else "little"
    before = int.from_bytes(data[offset : offset + size], order)
    near = (before + chance.randint(-9, 9), before * 2, before // 2, before << 8, before * 256 + 255)
    value = chance.choice((chance.choice(SMALL), chance.choice(LARGE), chance.choice(near)))
    data[offset : offset + size] = (value % (1 << 8 * size)).to_bytes(size, order)


def _stretch(chance: random.Random, data: bytearray) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + int(chance.expovariate(1 / 24)) + 1)


def _chunks(data: bytearray) -> Iterator[tuple[int, int]]:
    """Start and length of every whole chunk of a PNG."""
    start = 8
    while start + 12 <= len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        if start + 12 + length > len(data):
            return
        yield start, length
        start += 12 + length


def _png_fields(data: bytearray) -> Iterator[Field]:
    yield from ((16, 4, True), (20, 4, True), (24, 1, True), (25, 1, True), (28, 1, True))
    yield from ((start, 4, True) for start, _ in _chunks(data))


def _jpeg_fields(data: bytearray) -> Iterator[Field]:
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker = data[start + 1]
        yield start + 2, 2, True
        if marker in _SOF:
            yield from ((start + 4, 1, True), (start + 5, 2, True), (start + 7, 2, True), (start + 9, 1, True))
            yield from ((start + 11 + 3 * i, 1, True) for i in range(3))  # sampling factors
        if marker == 0xDA:
            return
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")


def _riff_fields(data: bytearray) -> Iterator[Field]:
    yield 4, 4, False
    start = 12
    while start + 8 <= len(data):
        yield start + 4, 4, False
        if bytes(data[start : start + 4]) in (b"VP8X", b"ANMF"):
            yield from ((start + 8 + 4 + 3 * i, 3, False) for i in range(4))
        if data[start : start + 4] == b"VP8 ":
            yield from ((start + 14, 2, False), (start + 16, 2, False))
        if data[start : start + 4] == b"VP8L":
            yield start + 9, 4, False
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        start += 8 + size + size % 2


def _gif_fields(data: bytearray) -> Iterator[Field]:
    yield from ((6, 2, False), (8, 2, False), (10, 1, False))
    for start in range(13, min(len(data), _IN_CASE)):
        if data[start] == 0x2C:  # perhaps the separator before an image
            yield from ((start + 1 + 2 * i, 2, False) for i in range(4))
            yield from ((start + 9, 1, False), (start + 10, 1, False), (start + 11, 1, False))
        if data[start] == 0x21:
            yield start + 2, 1, False


def _bmp_fields(_: bytearray) -> Iterator[Field]:
    yield from ((offset, 4, False) for offset in (2, 10, 14, 18, 22, 30, 34, 46, 50, 54, 58, 62))
    yield from ((26, 2, False), (28, 2, False))


def _tiff_fields(data: bytearray) -> Iterator[Field]:
    big = data[:2] == b"MM"
    order: Literal["little", "big"] = "big" if big else "little"
    large = bytes(data[2:4]) in (b"+\0", b"\0+")
    offset, entry, count = (8, 20, 8) if large else (4, 12, 2)
    wide = 8 if large else 4
    yield offset, wide, big
    directory = int.from_bytes(data[offset : offset + wide], order)
    entries = int.from_bytes(data[directory : directory + count], order)
    yield directory, count, big
    for number in range(min(entries, 40)):
        start = directory + count + number * entry
        yield from ((start, 2, big), (start + 2, 2, big), (start + 4, wide, big), (start + 4 + wide, wide, big))
    yield directory + count + entries * entry, wide, big  # the next directory


def _box_fields(data: bytearray, start: int = 0, end: int | None = None) -> Iterator[Field]:
    end = len(data) if end is None else min(end, len(data))
    while start + 8 <= end:
        size, name = int.from_bytes(data[start : start + 4], "big"), bytes(data[start + 4 : start + 8])
        yield start, 4, True
        if name in (b"ispe", b"iloc"):
            yield from ((at, 4, True) for at in range(start + 12, min(start + size, end) - 3, 4))
        if name in _HOLDERS:
            yield from _box_fields(data, start + _HOLDERS[name], start + size)
        if size < 8:
            return
        start += size


_FIELDS: dict[str, Callable[[bytearray], Iterator[Field]]] = {
    "PNG": _png_fields,
    "JPEG": _jpeg_fields,
    "WebP": _riff_fields,
    "GIF": _gif_fields,
    "BMP": _bmp_fields,
    "TIFF": _tiff_fields,
    "HEIC": _box_fields,
}
