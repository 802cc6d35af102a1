"""Files that are small and want to be large: what a decoder that believes them would have to make room for."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from tests.images import heic as module

MEGABYTE = 1 << 20


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    """The bytes of `image` as a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(width: int = 60, height: int = 40) -> Image.Image:
    """Noise."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def chunk(name: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, pixels: bytes, *before: bytes, colour: int = 2) -> bytes:
    """An 8-bit PNG with compressed `pixels`, and chunks before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def with_chunks(photo: bytes, *chunks: bytes) -> bytes:
    """A PNG with chunks after its header."""
    return photo[:33] + b"".join(chunks) + photo[33:]


@cache
def zeros(megabytes: int) -> bytes:
    """Compressed zeros, about a kilobyte for every megabyte."""
    packer = zlib.compressobj(9, wbits=-15)
    one = packer.compress(bytes(MEGABYTE)) + packer.flush(zlib.Z_FULL_FLUSH)  # depends on nothing before it
    checksum = megabytes * MEGABYTE % 65521 << 16 | 1
    return b"\x78\xda" + one * megabytes + packer.flush() + struct.pack(">I", checksum)


def two_gigabytes_claimed() -> bytes:
    """A PNG of 2 MB that holds the 2 GB of pixels it claims."""
    return png(25_000, 27_000, zeros(2_000))


def two_gigabytes_unclaimed() -> bytes:
    """A PNG of 100 x 100 pixels with 2 GB of pixels behind the last."""
    return png(100, 100, zeros(2_000))


def texts(kind: bytes, megabytes: int, count: int = 1) -> bytes:
    """A PNG with compressed texts."""
    head = b"comment\0\0" if kind == b"zTXt" else b"comment\0\1\0en\0\0"
    text = chunk(kind, head + zeros(megabytes))
    return with_chunks(saved(picture(), "PNG"), *[text] * count)


def profile(megabytes: int) -> bytes:
    """A PNG with a colour profile of so many megabytes."""
    return with_chunks(saved(picture(), "PNG"), chunk(b"iCCP", b"large\0\0" + zeros(megabytes)))


def gif(width: int, height: int, second: tuple[int, int] | None = None) -> bytes:
    """A GIF that claims a screen of this size, or whose second frame claims another."""
    data = bytearray(saved(picture(), "GIF", save_all=True, append_images=[picture().rotate(90)]))
    if second is not None:
        at = data.rindex(b"\x2c", 0, len(data) - 900)
        struct.pack_into("<HH", data, at + 5, *second)
        return bytes(data)
    struct.pack_into("<HH", data, 6, width, height)
    return bytes(data)


def animated_png() -> bytes:
    """A PNG whose second frame claims to be huge."""
    data = bytearray(saved(picture(), "PNG", save_all=True, append_images=[picture().rotate(90)]))
    at = data.index(b"fcTL", data.index(b"IDAT"))
    struct.pack_into(">II", data, at + 8, 65_535, 65_535)
    struct.pack_into(">I", data, at + 30, zlib.crc32(data[at : at + 30]))
    return bytes(data)


def tiff_pages() -> bytes:
    """A TIFF whose second page claims to be huge."""
    data = bytearray(saved(picture(), "TIFF", save_all=True, append_images=[picture()]))
    for tag in (256, 257):
        entry = data.rindex(struct.pack("<HH", tag, 4))
        struct.pack_into("<HHII", data, entry, tag, 4, 1, 65_535)
    return bytes(data)


def tiff_tile(side: int, compressed: bool = True) -> bytes:
    """A TIFF of 16 x 16 pixels in one tile of `side` x `side`."""
    pixels = zeros(max(1, side * side * 3 // MEGABYTE + 1)) if compressed else bytes(16 * 16 * 3)
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 2, 277: 3, 284: 1, 322: side, 323: side, 324: 0, 325: len(pixels)}
    tags[324] = 8 + 2 + 12 * len(tags) + 4 + 6
    body = struct.pack("<H", len(tags))
    for tag, value in sorted(tags.items()):
        count, value = (3, tags[324] - 6) if tag == 258 else (1, value)
        body += struct.pack("<HHII", tag, 3 if tag == 258 else 4, count, value)
    return b"II*\0" + struct.pack("<I", 8) + body + bytes(4) + struct.pack("<3H", 8, 8, 8) + pixels


def tiff_chain(pages: int) -> bytes:
    """A TIFF of one picture and then so many directories that hold nothing."""
    data = bytearray(saved(picture(), "TIFF"))
    data += bytes(-len(data) % 2)
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, len(data))
    entry = struct.pack("<HHII", 256, 3, 1, 1)
    for page in range(pages):
        after = len(data) + 18 if page < pages - 1 else 0
        data += struct.pack("<H", 1) + entry + struct.pack("<I", after)
    return bytes(data)


def gif_chain(frames: int) -> bytes:
    """A GIF of one picture and then so many frames of one pixel."""
    data = saved(picture(), "GIF")
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return data[:-1] + frame * frames + b";"


def jpeg(width: int, height: int, **options: Any) -> bytes:
    """A JPEG that claims another size than it has."""
    data = bytearray(saved(picture(), "JPEG", **options))
    at = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, height, width)
    return bytes(data)


def webp(width: int, height: int) -> bytes:
    """An animated WebP that claims another canvas than its frames have."""
    data = bytearray(saved(picture(), "WEBP", save_all=True, append_images=[picture().rotate(90)]))
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def bmp(width: int, height: int) -> bytes:
    """A BMP that claims another size than it has."""
    data = bytearray(saved(picture(), "BMP"))
    struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)


def exif_loop(entries: int = 65_535) -> bytes:
    """A PNG with a megabyte of EXIF: a directory full of entries that all point back at it, and at itself."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    directory = struct.pack("<H", entries) + b"".join(
        entry if i % 2 else struct.pack("<HHII", i % 60_000, 7, entries * 12, 8) for i in range(entries)
    )
    exif = b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 8)
    return with_chunks(saved(picture(), "PNG"), chunk(b"eXIf", exif + bytes(max(0, MEGABYTE - len(exif)))))


def heic_of(claimed: int) -> bytes:
    """A HEIC whose container claims 16 x 16 pixels and whose stream `claimed` x `claimed`."""
    real = module._sequence
    with mock.patch.object(module, "_sequence", return_value=real(claimed, claimed)):
        return module.heic(np.zeros((16, 16), np.uint8))
