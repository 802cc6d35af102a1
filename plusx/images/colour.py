"""Every pixel format a file can hold becomes 8-bit RGB.

White is the file's own white: 16-bit samples are scaled, never clipped. Pillow itself keeps only the
high byte of 16-bit colour (RGB, RGBA, grey with alpha), which is within one step of x / 257; 16-bit
grey arrives whole and is rounded here. Embedded colour profiles are not applied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Background = tuple[int, int, int]
WHITE: Background = (255, 255, 255)

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF 6.0, section 8 and 19
_WHITE_IS_ZERO = 0
_BAND = 4_000_000  # pixels laid over the background at a time: a copy of a whole large photo could be too much


def flatten(image: Image.Image, background: Background = WHITE) -> Image.Image:
    """`image`, of any mode and loaded, as RGB; what is transparent shows `background` in proportion.

    A mode of more than 8 bits is scaled by these rules. 16-bit grey: by the depth its file states.
    32-bit integers: white is the least of 255, 65,535 and 2^32 - 1 that no sample exceeds, and
    negative samples are black. Floats: the same with 1, 255, 65,535 and then the greatest finite
    sample; samples that are not numbers are black.
    """
    if image.mode.startswith("I;16"):
        image = _grey16(image)
    elif image.mode in ("I", "F"):
        image = _grey32(image)
    if image.has_transparency_data:
        return _over(image, background)
    if image.mode == "LAB":
        return _lab(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _over(image: Image.Image, background: Background) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    elif image.mode not in ("RGBA", "RGBa", "RGB", "L", "1", "P", "PA", "LA"):
        return image.convert("RGB")  # a transparent colour makes sense in no other mode
    canvas = Image.new("RGB", image.size, background)
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        layer = image.crop(box).convert("RGBA")
        canvas.paste(layer, box, layer)
    return canvas


def _grey16(image: Image.Image) -> Image.Image:
    samples = np.asarray(image)
    peak = 2 ** _tiff_tag(image, _BITS_PER_SAMPLE, 16) - 1
    levels = np.minimum(np.arange(2**16), peak)
    table = ((levels * 255 + peak // 2) // peak).astype(np.uint8)  # [65536], rounded to nearest
    if _tiff_tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        table = 255 - table
    grey = Image.fromarray(table[samples])
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(samples == clear, 0, 255).astype(np.uint8)))
    return grey


def _grey32(image: Image.Image) -> Image.Image:
    samples = np.asarray(image)
    if image.mode == "I" and image.format == "TIFF" and _tiff_tag(image, _SAMPLE_FORMAT, 1) == 1:
        samples = samples.view(np.uint32)  # Pillow hands unsigned samples over with their top bit as a sign
    ceilings = (255.0, 65535.0, 2.0**32 - 1) if image.mode == "I" else (1.0, 255.0, 65535.0)
    values = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0) if image.mode == "F" else samples
    return Image.fromarray(_scaled(values, ceilings))


def _scaled(values: npt.NDArray[Any], ceilings: tuple[float, ...]) -> npt.NDArray[np.uint8]:
    peak = float(values.max())
    white = next((ceiling for ceiling in ceilings if peak <= ceiling), peak)
    scaled = np.clip(values.astype(np.float64) * (255 / white), 0, 255)
    return np.rint(scaled).astype(np.uint8)


def _tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms  # here, because few builds of Pillow and fewer photos need it

    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None, "only an in-place conversion returns None"
    return converted
