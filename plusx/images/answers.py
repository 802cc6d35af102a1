"""What a decoding process may answer. Nothing it says is trusted: whatever is not exactly due raises ValueError."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from plusx.images.decode import MAX_PIXELS, BadPhoto, Facts
from plusx.images.preprocess import Pixels
from plusx.images.sniff import IMAGES
from plusx.images.source import MAX_BYTES

CODES = frozenset({"empty", "truncated", "not-an-image", "unreadable", "too-large"})  # what a worker may say


@dataclass(frozen=True, slots=True, eq=False)
class Surveyed:
    """A photo looked at once: what its file states, its pixels uint8 [crop, crop, 3], and its contrast.

    `contrast`: the greatest range of a colour over the whole photo in 32 x 32 boxes, 0 (one colour) to 255.
    """

    facts: Facts
    contrast: int
    pixels: Pixels


def bad_photo(header: dict[str, Any]) -> BadPhoto:
    """A photo that could not be decoded, in words that can be printed."""
    code, reason = header["code"], header["reason"]
    if code not in CODES or not isinstance(reason, str):
        raise ValueError("a code that does not exist")
    return BadPhoto(code, "".join(letter if letter.isprintable() else "?" for letter in reason))


def pixels(payload: bytearray, crop: int) -> Pixels:
    """The pixels of a photo, [crop, crop, 3]."""
    return np.frombuffer(payload, dtype=np.uint8).reshape(crop, crop, 3)


def surveyed(header: dict[str, Any], payload: bytearray, crop: int) -> Surveyed:
    """What a survey asked for."""
    contrast = header["contrast"]
    if type(contrast) is not int or not 0 <= contrast <= 255:
        raise ValueError("a contrast out of range")
    return Surveyed(_facts(header["facts"]), contrast, pixels(payload, crop))


def _facts(stated: dict[str, Any]) -> Facts:
    facts = Facts(**stated)
    sizes = (facts.width, facts.height, facts.frames, facts.orientation)
    if facts.format not in IMAGES or re.fullmatch(r"[0-9A-Za-z;]{1,8}", facts.mode) is None:
        raise ValueError("a format or a mode that does not exist")
    if any(type(size) is not int or size < 1 for size in sizes) or type(facts.alpha) is not bool:
        raise ValueError("a size that is no whole number above zero")
    if facts.width * facts.height > MAX_PIXELS or facts.frames > MAX_BYTES or facts.orientation > 8:
        raise ValueError("a size out of range")  # no file has more frames than bytes
    return facts
