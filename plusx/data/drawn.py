"""Drawn pictures of cats and dogs: a labelled set that needs no network and no licence.

Colours, backgrounds, poses, light, occlusion, blur and noise follow one law for both classes, so
that neither colour nor a coarse grid of pixels gives the answer away; the shape of the face does.
Picture (seed, index, label) is a pure function of these three: the same bytes every time.
"""

from __future__ import annotations

import colorsys
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from plusx import keyed
from plusx.data.drawn_faces import CAT, DOG, Coat, Colour, Pen, Points, draw_face, ellipse
from plusx.errors import disk

CLASSES = ("cat", "dog")  # the label is the position
PER_CLASS: Mapping[str, int] = {"train": 1000, "test": 200}
_SUPERSAMPLING = 2


def draw(seed: int, index: int, label: int, size: int = 96) -> Image.Image:
    """Picture `index` of class `label` (0 cat, 1 dog), RGB, `size` x `size` pixels."""
    assert label in (CAT, DOG)
    rng = keyed.generator(seed, label, index, "drawn")
    side = size * _SUPERSAMPLING
    image = _background(side, rng)
    canvas = ImageDraw.Draw(image)
    pen = _pose(canvas, side, rng)
    coat = _coat(rng)
    pen.fill(ellipse(0, 1.5, rng.uniform(0.7, 1.1), 0.9), coat.shade)
    draw_face(pen, label, coat, rng)
    if rng.random() < 0.3:
        _shapes(canvas, side, rng, 1, 0.12)
    return _camera(image.reduce(_SUPERSAMPLING), rng)


def write_set(
    folder: Path,
    per_class: Mapping[str, int] = PER_CLASS,
    *,
    seed: int = 0,
    size: int = 96,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `folder`/SPLIT/CLASS/0000.jpg ..., `per_class[SPLIT]` pictures a class; a folder that is there stays.

    It appears whole or not at all: the pictures are drawn beside it and the folder is renamed last.
    Raises DiskError where it cannot be written.
    """
    if folder.exists():
        return
    temporary = folder.with_name(f"tmp-{uuid.uuid4().hex}")
    total = len(CLASSES) * sum(per_class.values())
    try:
        for done, (path, index, label) in enumerate(_places(temporary, per_class), start=1):
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(seed, index, label, size).save(path, quality=92)
            if on_progress is not None:
                on_progress(done, total)
        temporary.replace(folder)
    except OSError as error:
        raise disk.cannot_write(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _places(folder: Path, per_class: Mapping[str, int]) -> Iterator[tuple[Path, int, int]]:
    start = 0
    for split, count in per_class.items():
        for number in range(count):
            for label, name in enumerate(CLASSES):
                yield folder / split / name / f"{number:04d}.jpg", start + number, label
        start += count  # no index is used in two splits


def _background(side: int, rng: np.random.Generator) -> Image.Image:
    ends = rng.uniform(20, 235, (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    grid = np.linspace(-0.5, 0.5, 16)
    ramp = np.clip(0.5 + grid[None, :] * np.cos(angle) + grid[:, None] * np.sin(angle), 0, 1)  # [16, 16]
    pixels = ends[0] + ramp[:, :, None] * (ends[1] - ends[0]) + rng.normal(0, rng.uniform(0, 22), (16, 16, 1))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image = image.resize((side, side), Image.Resampling.BICUBIC)
    _shapes(ImageDraw.Draw(image), side, rng, int(rng.integers(0, 7)), 0.3)
    return image


def _shapes(canvas: ImageDraw.ImageDraw, side: int, rng: np.random.Generator, count: int, largest: float) -> None:
    for _ in range(count):
        middle, half = rng.uniform(0, side, 2), rng.uniform(0.04, largest, 2) * side
        points = ellipse(0, 0, 1, 1)[:: int(rng.choice([1, 7, 9]))] * half + middle  # oval, four- or three-cornered
        canvas.polygon([(float(x), float(y)) for x, y in points], fill=_any_colour(rng))


def _pose(canvas: ImageDraw.ImageDraw, side: int, rng: np.random.Generator) -> Pen:
    scale, angle = side * rng.uniform(0.19, 0.29), rng.uniform(-0.6, 0.6)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    squeeze = np.array([[rng.uniform(0.8, 1.1), rng.uniform(-0.15, 0.15)], [0.0, rng.uniform(0.85, 1.1)]])
    matrix: Points = scale * (turn @ squeeze)
    centre: Points = side * np.array([rng.uniform(0.36, 0.64), rng.uniform(0.4, 0.62)])
    return Pen(canvas, matrix, centre)


def _coat(rng: np.random.Generator) -> Coat:
    hue, colourful, bright = rng.uniform(0.03, 0.13), rng.uniform(0.05, 0.65), rng.uniform(0.25, 0.92)
    darker = rng.uniform(0.6, 0.85)
    return Coat(
        fur=_rgb(hue, colourful, bright),
        shade=_rgb(hue, colourful, bright * darker),
        inner=_rgb(0.99, rng.uniform(0.15, 0.5), rng.uniform(0.5, 0.95)),
        light=_rgb(hue, colourful * 0.4, min(1.0, bright + rng.uniform(0.08, 0.3))),
        eye=_rgb(rng.uniform(0.08, 0.6), rng.uniform(0.2, 0.75), rng.uniform(0.5, 0.95)),
        dark=_rgb(0.02, 0.3, rng.uniform(0.05, 0.2)),
    )


def _camera(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light from one side, sometimes a soft focus, always some noise."""
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.1)))
    pixels = np.asarray(image, np.float64)  # [S, S, 3]
    line = np.linspace(-0.5, 0.5, len(pixels))
    slope = rng.uniform(-0.5, 0.5, 2)
    light = rng.uniform(0.75, 1.2) + line[None, :] * slope[0] + line[:, None] * slope[1]  # [S, S]
    pixels = pixels * light[:, :, None] * rng.uniform(0.9, 1.1, 3) + rng.normal(0, rng.uniform(1, 10), pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _any_colour(rng: np.random.Generator) -> Colour:
    return _rgb(rng.random(), rng.uniform(0.0, 0.8), rng.uniform(0.15, 0.95))


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
