"""Small pictures as files, of every format and kind that plusx reads: what the fuzz campaign damages.

All are drawn in memory. What Pillow cannot write (interlaced PNG, 16-bit colour, run lengths in a BMP, tiles in a TIFF)
is put together here; HEIC comes from the encoder of the tests.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

WIDTH, HEIGHT = 40, 32
TILE = 16
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

Samples = npt.NDArray[Any]


def pictures() -> dict[str, bytes]:
    """Files by what they are; the first word of a name is the format."""
    return {name: data for kind in (_jpegs, _pngs, _webps, _gifs, _bmps, _tiffs, _heics) for name, data in kind()}


def picture(number: int = 0) -> Image.Image:
    """A slope of colour with a disc in it and a little noise, RGB."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = np.stack([6 * x, 7 * y, 3 * (x + y)], axis=2).astype(np.float64)
    planes[(x - 12 - number) ** 2 + (y - 14) ** 2 < 81] = (230, 60, 20)
    planes += np.random.default_rng(number).normal(0, 6, planes.shape)
    return Image.fromarray(planes.clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    """The bytes of `image` as a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(
    samples: Samples, colour: int, *, interlaced: bool = False, chunks: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """A PNG of `samples`, uint8 or uint16 [H, W, C], of a colour type of the format; `chunks` go before the pixels."""
    height, width, _ = samples.shape
    depth = 8 * samples.itemsize
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    big = samples.astype(samples.dtype.newbyteorder(">"))
    rows = [row for x, y, across, down in passes for row in big[y::down, x::across] if row.size]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    every = ((b"IHDR", header), *chunks, (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, content) for name, content in every)


def chunk(name: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def tiff(tags: dict[int, tuple[int, ...]], blocks: Sequence[bytes], where: int, sizes: int) -> bytes:
    """A little-endian TIFF of one directory: `tags` of LONGs, `blocks` of samples with their offsets in tag `where`
    and their sizes in tag `sizes`.
    """
    entries = {**tags, where: (0,) * len(blocks), sizes: tuple(map(len, blocks))}
    start = 8 + 2 + 12 * len(entries) + 4
    outside = sum(4 * len(values) for values in entries.values() if len(values) > 1)
    offsets = np.cumsum([start + outside, *map(len, blocks)])[:-1].tolist()
    entries[where] = tuple(offsets)
    directory, values_after = struct.pack("<H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        directory += struct.pack("<HHI", tag, 4, len(values))
        directory += packed if len(values) == 1 else struct.pack("<I", start + len(values_after))
        values_after += packed if len(values) > 1 else b""
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + values_after + b"".join(blocks)


def _jpegs() -> Iterator[tuple[str, bytes]]:
    image, exif = picture(), Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    yield "JPEG 4:2:0", saved(image, "JPEG")
    yield "JPEG 4:4:4", saved(image, "JPEG", subsampling=0, optimize=True)
    yield "JPEG progressive", saved(image, "JPEG", progressive=True)
    yield "JPEG grey", saved(image.convert("L"), "JPEG")
    yield "JPEG CMYK", saved(image.convert("CMYK"), "JPEG")
    yield "JPEG progressive CMYK", saved(image.convert("CMYK"), "JPEG", progressive=True)
    yield "JPEG restarts", saved(image, "JPEG", restart_marker_blocks=2)
    yield "JPEG EXIF", saved(image, "JPEG", exif=exif, comment=b"a comment")
    yield "JPEG profile", saved(image, "JPEG", icc_profile=b"no profile " * 50)


def _pngs() -> Iterator[tuple[str, bytes]]:
    image, told, exif = picture(), PngInfo(), Image.Exif()
    clear = image.convert("RGBA")
    clear.putalpha(picture(3).convert("L"))
    palette, deep = image.convert("P"), np.asarray(clear).astype(np.uint16) * 257
    for compressed in (False, True):
        told.add_text("title", "text " * 20, zip=compressed)
        told.add_itxt("more", "text " * 20, zip=compressed)
    exif[0x0112] = 8
    yield "PNG RGB", saved(image, "PNG")
    yield "PNG grey", saved(image.convert("L"), "PNG")
    yield "PNG 1 bit", saved(image.convert("1"), "PNG")
    yield "PNG palette", saved(palette, "PNG")
    yield "PNG 4-bit palette", saved(image.quantize(16), "PNG", bits=4)
    yield "PNG palette and alpha", saved(palette, "PNG", transparency=bytes(range(256)))
    yield "PNG RGBA", saved(clear, "PNG")
    yield "PNG grey and alpha", saved(clear.convert("LA"), "PNG")
    yield "PNG 16-bit grey", saved(Image.fromarray(deep[:, :, 0]), "PNG")
    yield "PNG 16-bit RGB", png(deep[:, :, :3], 2, chunks=[(b"tRNS", bytes(6))])
    yield "PNG 16-bit RGBA", png(deep, 6)
    yield "PNG 16-bit grey and alpha", png(deep[:, :, 2:], 4)
    yield "PNG interlaced", png(np.asarray(image), 2, interlaced=True)
    yield "PNG interlaced palette", _interlaced(palette)
    yield "PNG interlaced 16-bit", png(deep, 6, interlaced=True)
    yield "PNG texts", saved(image, "PNG", pnginfo=told, exif=exif, icc_profile=b"no profile" * 9)
    yield "PNG animated", saved(image, "PNG", save_all=True, append_images=[picture(2), picture(4)])


def _interlaced(palette: Image.Image) -> bytes:
    colours = bytes(palette.getpalette() or ())
    return png(np.asarray(palette)[:, :, None], 3, interlaced=True, chunks=[(b"PLTE", colours), (b"tRNS", bytes(9))])


def _webps() -> Iterator[tuple[str, bytes]]:
    image, exif = picture(), Image.Exif()
    exif[0x0112] = 3
    clear = image.convert("RGBA")
    clear.putalpha(picture(3).convert("L"))
    yield "WebP lossy", saved(image, "WEBP")
    yield "WebP lossless", saved(image, "WEBP", lossless=True)
    yield "WebP lossy and alpha", saved(clear, "WEBP")
    yield "WebP lossless and alpha", saved(clear, "WEBP", lossless=True)
    yield "WebP EXIF", saved(image, "WEBP", exif=exif, icc_profile=b"no profile")
    yield "WebP animated", saved(image, "WEBP", save_all=True, append_images=[picture(2), picture(4)])


def _gifs() -> Iterator[tuple[str, bytes]]:
    image = picture()
    yield "GIF interlaced", saved(image, "GIF")
    yield "GIF", saved(image, "GIF", interlace=0, comment=b"a comment")
    yield "GIF clear", saved(image.convert("P"), "GIF", transparency=3)
    yield (
        "GIF animated",
        saved(image, "GIF", save_all=True, append_images=[picture(2), picture(4)], duration=50, loop=0),
    )


def _bmps() -> Iterator[tuple[str, bytes]]:
    image = picture()
    yield "BMP 24 bit", saved(image, "BMP")
    yield "BMP 32 bit", saved(image.convert("RGBA"), "BMP")
    yield "BMP palette", saved(image.convert("P"), "BMP")
    yield "BMP grey", saved(image.convert("L"), "BMP")
    yield "BMP 1 bit", saved(image.convert("1"), "BMP")
    yield "BMP run lengths", _run_lengths(image.quantize(16))


def _run_lengths(palette: Image.Image) -> bytes:
    """An 8-bit BMP of runs (RLE8)."""
    lines = [b"".join(bytes((1, value)) for value in row) for row in np.asarray(palette)[::-1].tolist()]
    body = b"\0\0".join(lines) + b"\0\1"
    colours = b"".join(bytes((i, 255 - i, i // 2, 0)) for i in range(256))
    start = 14 + 40 + len(colours)
    header = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, 1, len(body), 0, 0, 256, 0)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + header + colours + body


def _tiffs() -> Iterator[tuple[str, bytes]]:
    image = picture()
    deep = np.asarray(image).astype(np.uint16)[:, :, 0] * 257
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "tiff_lzma"):
        with contextlib.suppress(OSError, ValueError):  # not in every build of libtiff
            yield f"TIFF {compression}", saved(image, "TIFF", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield f"TIFF {compression}", saved(image.convert("1"), "TIFF", compression=compression)
    yield "TIFF palette", saved(image.convert("P"), "TIFF", compression="tiff_lzw")
    yield "TIFF RGBA", saved(image.convert("RGBA"), "TIFF", compression="tiff_adobe_deflate")
    yield "TIFF CMYK", saved(image.convert("CMYK"), "TIFF")
    yield "TIFF LAB", saved(Image.frombytes("LAB", image.size, image.tobytes()), "TIFF")
    yield "TIFF 16-bit grey", saved(Image.fromarray(deep), "TIFF")
    yield "TIFF 32-bit", saved(Image.fromarray(deep.astype(np.int32)), "TIFF", compression="tiff_lzw")
    yield "TIFF float", saved(Image.fromarray((deep / 65535).astype(np.float32)), "TIFF")
    yield "TIFF large offsets", saved(image, "TIFF", big_tiff=True)
    yield "TIFF pages", saved(image, "TIFF", save_all=True, append_images=[picture(2), picture(4)])
    yield "TIFF tiles", _tiled(image, compressed=False)
    yield "TIFF packed tiles", _tiled(image, compressed=True)


def _tiled(image: Image.Image, *, compressed: bool) -> bytes:
    corners = [(x, y) for y in range(0, HEIGHT, TILE) for x in range(0, WIDTH, TILE)]
    tiles = [image.crop((x, y, x + TILE, y + TILE)).tobytes() for x, y in corners]
    # width, height, bits, compression (none or deflate), photometric RGB, samples a pixel, planes together, tile sides
    tags = {256: (WIDTH,), 257: (HEIGHT,), 258: (8, 8, 8), 259: (8 if compressed else 1,), 262: (2,), 277: (3,)}
    tags |= {284: (1,), 322: (TILE,), 323: (TILE,)}
    return tiff(tags, [zlib.compress(tile) if compressed else tile for tile in tiles], where=324, sizes=325)


def _heics() -> Iterator[tuple[str, bytes]]:
    """None where pi-heif is not installed: then no HEIC is read, either."""
    from plusx.images.decode import heif_version
    from tests.images.heic import heic

    if heif_version() is None:
        return
    luma = np.asarray(picture().convert("L").resize((32, 32)))
    yield "HEIC", heic(luma, blue=90, red=200)
    yield "HEIC turned", heic(luma, turns=1)
