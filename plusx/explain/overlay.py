"""A map laid over its photo, as a person sees it.

Lightness grows with the evidence, so that the order survives colour blindness and black-and-white print (the colours
are those of "inferno", by Smith and van der Walt 2015); a line runs round the area that holds half of the evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from plusx.explain.place import Box, half

Floats = npt.NDArray[np.float64]

MOST = 800  # px of a picture's longer side
SIDE = 480  # px of the longer side of each of two pictures side by side
THUMB, GAP, LINE = 150, 12, 18  # px
UNSEEN = 0.35  # lightness left to what the network did not see
COVER = 0.7  # how much the strongest evidence covers the photo
INK, PAPER = (34, 34, 34), (255, 255, 255)
INFERNO = np.array(
    [
        [0, 0, 4],
        [40, 11, 84],
        [101, 21, 110],
        [159, 42, 99],
        [212, 72, 66],
        [245, 125, 21],
        [250, 193, 39],
        [252, 255, 164],
    ]
)


def overlay(photo: Image.Image, box: Box, values: Floats, most: int = MOST) -> Image.Image:
    """The map [h, w] over the part `box` (left, top, right, bottom) of an upright RGB photo, `most` px at most.

    What the network did not see is dimmed. Only what speaks for the class is coloured, from nothing to the strongest.
    """
    shown = shrunk(photo, most)
    scale = shown.width / photo.width
    left, top, right, bottom = (round(edge * scale) for edge in box)
    size = (max(1, min(right, shown.width) - left), max(1, min(bottom, shown.height) - top))
    strength = _enlarged(np.maximum(values, 0), size)
    grey = np.asarray(shown.convert("L"), dtype=np.float64)[..., None].repeat(3, axis=2)
    canvas = UNSEEN * np.asarray(shown, dtype=np.float64)
    seen = np.s_[top : top + size[1], left : left + size[0]]
    canvas[seen] = _coloured(grey[seen], strength)
    drawn = Image.fromarray(canvas.round().clip(0, 255).astype(np.uint8))
    _outline(drawn, strength, (left, top))
    return drawn


def shrunk(photo: Image.Image, most: int) -> Image.Image:
    """A photo with its longer side at `most` px; a small one grows, so that the map on it can be seen."""
    scale = most / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    return photo.resize(size, Image.Resampling.LANCZOS)


def sheet(
    photo: Image.Image, drawn: Image.Image, title: Sequence[str], near: Sequence[tuple[Image.Image, str]]
) -> Image.Image:
    """One picture: lines of text, the photo, the overlay beside it with its scale, the nearest training photos."""
    plain = photo.resize(drawn.size, Image.Resampling.LANCZOS)
    width = max(2 * drawn.width + 3 * GAP, (5 * (THUMB + GAP) + GAP) if near else 0, SIDE + 2 * GAP)
    top = GAP + LINE * len(title) + GAP
    below = top + drawn.height + GAP + LINE + GAP
    height = below + (2 * LINE + THUMB + GAP if near else 0)
    page = Image.new("RGB", (width, height), PAPER)
    for i, line in enumerate(title):
        _write(page, (GAP, GAP + i * LINE), line, width - 2 * GAP)
    page.paste(plain, (GAP, top))
    page.paste(drawn, (drawn.width + 2 * GAP, top))
    _legend(page, (drawn.width + 2 * GAP, top + drawn.height + GAP), drawn.width)
    if near:
        _write(page, (GAP, below), "nearest training photos", width - 2 * GAP)
    for i, (thumb, caption) in enumerate(near):
        corner = (GAP + i * (THUMB + GAP), below + LINE)
        page.paste(_square(thumb), corner)
        _write(page, (corner[0], corner[1] + THUMB + 2), caption, THUMB)
    return page


def _coloured(grey: Floats, strength: Floats) -> Floats:
    colours = np.stack([np.interp(strength, np.linspace(0, 1, len(INFERNO)), INFERNO[:, c]) for c in range(3)], axis=2)
    cover = COVER * strength[..., None] ** 0.7
    return np.asarray((1 - cover) * grey + cover * colours)


def _enlarged(values: Floats, size: tuple[int, int]) -> Floats:
    """A map from 0 to 1 at `size` (width, height), smooth."""
    large = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    smooth = np.maximum(np.asarray(large, dtype=np.float64), 0)
    return np.asarray(smooth / max(float(smooth.max()), 1e-12))


def _outline(drawn: Image.Image, strength: Floats, corner: tuple[int, int]) -> None:
    """White beside black, so that it shows on any ground."""
    inside = half(strength)
    edge = np.zeros_like(inside)
    edge[:, 1:] |= inside[:, 1:] != inside[:, :-1]
    edge[1:] |= inside[1:] != inside[:-1]
    wide = edge.copy()
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        wide |= np.roll(edge, step, axis)
    for marks, colour in ((wide & inside, PAPER), (wide & ~inside, INK)):
        drawn.paste(colour, corner, Image.fromarray(marks))


def _legend(page: Image.Image, corner: tuple[int, int], width: int) -> None:
    ramp = np.linspace(0, 1, max(2, width // 3))[None].repeat(LINE - 4, axis=0)
    colours = _coloured(np.full((*ramp.shape, 3), 128.0), ramp).astype(np.uint8)
    page.paste(Image.fromarray(colours), (corner[0], corner[1] + 2))
    _write(
        page,
        (corner[0] + ramp.shape[1] + 6, corner[1]),
        "none to strongest; line: half of it",
        width - ramp.shape[1] - 6,
    )


def _square(thumb: Image.Image) -> Image.Image:
    side = min(thumb.size)
    left, top = (thumb.width - side) // 2, (thumb.height - side) // 2
    return thumb.crop((left, top, left + side, top + side)).resize((THUMB, THUMB), Image.Resampling.LANCZOS)


def _write(page: Image.Image, corner: tuple[int, int], text: str, width: int) -> None:
    """Text of one line that fits into `width` px; what does not is left out in its middle."""
    draw, font = ImageDraw.Draw(page), _font()
    text = "".join(letter if letter.isprintable() else "?" for letter in text)  # names of photos hold anything
    shown, cut = text, len(text)
    while draw.textlength(shown, font=font) > width and cut > 8:
        cut -= 1
        shown = f"{text[: cut // 2]}...{text[len(text) - cut // 2 :]}"
    draw.text(corner, shown, fill=INK, font=font)


def _font() -> Any:
    return ImageFont.load_default(13)
