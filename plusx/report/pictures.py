"""Small pictures for pages."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from plusx.data.reading import through
from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool
from plusx.images.preprocess import Pixels, Preprocess
from plusx.images.source import Source

SIDE = 144  # px of a picture among many
_QUALITY = 72  # at which 120 of them stay below a megabyte


def jpeg(pixels: Pixels, quality: int = _QUALITY) -> bytes:
    """Pixels [H, W, 3] as a JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def small_pictures(sources: Sequence[Source], workers: int | None = None) -> list[bytes]:
    """Small JPEGs, in order; empty for a photo that cannot be read any more."""
    found = [b""] * len(sources)
    with DecodePool(Preprocess(resize=SIDE, crop=SIDE), workers) as pool:
        for i, result in through(pool.map, sources):
            if not isinstance(result, BadPhoto):
                found[i] = jpeg(result)
    return found
