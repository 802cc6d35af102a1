"""What is odd about single photos, from the rows of a survey: blank, tiny, long, animated, turned, odd modes, names."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from plusx.data.source import Listing
from plusx.data.survey import FORMATS, Survey

BLANK = 8  # of 255: the most that colours of a blank photo differ, in a 32nd of its sides
TINY, SMALL = 32, 64  # pixels of the short side: too few to learn from; few, if the others have twice as many
LONG = 3.0  # times as long as wide, from which the square that the network sees is less than a third of the photo

_USUAL = (b"RGB", b"L")
_MODES = {
    "P": "colours from a palette",
    "CMYK": "colours of print (CMYK)",
    "RGBA": "with transparency",
    "LA": "grey with transparency",
    "PA": "a palette with transparency",
    "1": "black and white",
}
_ENDINGS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".bmp", ".dib"), "BMP"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".heic", ".heif"), "HEIC"),
    **{".png": "PNG", ".webp": "WebP", ".gif": "GIF", ".avif": "AVIF", ".jp2": "JPEG 2000", ".jxl": "JPEG XL"},
}
_SEVERAL_FRAMES = ("GIF", "PNG", "WebP", "TIFF")  # a JPEG's or HEIC's further pictures are previews of it

Noted = Iterator[tuple[int, str]]  # a position, and what is to be said of that photo
Mask = npt.NDArray[np.bool_]


def blank(found: Survey) -> Noted:
    """Photos of one colour, or nearly."""
    for i in _where(found, found.rows["contrast"] <= BLANK):
        yield i, "all one colour" if found.rows["contrast"][i] == 0 else "nearly all one colour"


def tiny(found: Survey) -> Noted:
    """Photos with a short side under 32 pixels, or under 64 and under half of the usual."""
    short = np.minimum(found.rows["width"], found.rows["height"])
    usual = float(np.median(short[found.good])) if len(found.good) else 0.0
    return _sized(found, (short < TINY) | ((short < SMALL) & (short < usual / 2)))


def stretched(found: Survey) -> Noted:
    """Photos that are very long or very tall."""
    sides = found.rows["width"].astype(np.float64), found.rows["height"].astype(np.float64)
    return _sized(found, np.maximum(*sides) >= LONG * np.maximum(np.minimum(*sides), 1))


def animated(found: Survey) -> Noted:
    """Files of several frames, of which the first counts."""
    several = np.isin(found.rows["format"], [FORMATS.index(name) for name in _SEVERAL_FRAMES])
    for i in _where(found, several & (found.rows["frames"] > 1)):
        yield i, f"{found.rows['frames'][i]:,} frames"


def turned(found: Survey) -> Noted:
    """Photos that are turned or mirrored as their EXIF says."""
    for i in _where(found, found.rows["orientation"] > 1):
        yield i, f"EXIF orientation {found.rows['orientation'][i]}"


def odd_modes(found: Survey) -> Noted:
    """Photos that are not plain colour or grey of 8 bits."""
    odd = ~np.isin(found.rows["mode"], _USUAL) | found.rows["alpha"]
    for i in _where(found, odd):
        mode = found.rows["mode"][i].decode()
        words = _MODES.get(mode, "more than 8 bits a sample" if mode[:1] in ("I", "F") else f"mode {mode}")
        clear = found.rows["alpha"][i] and "transparency" not in words
        yield i, f"{words}, with transparency" if clear else words


def misnamed(listing: Listing, found: Survey) -> Noted:
    """Photos whose name ends as that of another format."""
    kinds = found.rows["format"]
    for i in found.good.tolist():
        stated = _ENDINGS.get(os.path.splitext(listing.photos[i].name)[1].lower())  # noqa: PTH122 - of a million names
        if stated is not None and stated != FORMATS[kinds[i]]:
            yield i, f"is {FORMATS[kinds[i]]}"


def _sized(found: Survey, mask: Mask) -> Noted:
    for i in _where(found, mask):
        yield i, f"{found.rows['width'][i]:,} x {found.rows['height'][i]:,} pixels"


def _where(found: Survey, mask: Mask) -> list[int]:
    return [i for i in np.flatnonzero(mask).tolist() if i not in found.bad]
