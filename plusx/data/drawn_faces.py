"""Cat and dog faces as polygons in units of the head's radius; what tells them apart is shape alone.

Legend: points are float arrays [n, 2], x to the right and y down, the head around (0, 0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw

Points = npt.NDArray[np.float64]
Colour = tuple[int, int, int]
CAT, DOG = 0, 1


@dataclass(frozen=True)
class Coat:
    """The colours of one animal; both kinds draw them from the same law."""

    fur: Colour
    shade: Colour
    inner: Colour
    light: Colour
    eye: Colour
    dark: Colour


@dataclass(frozen=True)
class Pen:
    """Where the face's own units land on the picture, and what draws there."""

    canvas: ImageDraw.ImageDraw
    matrix: Points  # [2, 2], head units to pixels
    centre: Points  # [2], pixels

    def fill(self, points: Points, colour: Colour) -> None:
        """A filled polygon."""
        self.canvas.polygon(self._pixels(points), fill=colour)

    def line(self, points: Points, colour: Colour, width: float) -> None:
        """A polyline `width` head units thick."""
        thick = max(1, round(width * float(np.sqrt(abs(np.linalg.det(self.matrix))))))
        self.canvas.line(self._pixels(points), fill=colour, width=thick, joint="curve")

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for x, y in points @ self.matrix.T + self.centre]


def ellipse(x: float, y: float, width: float, height: float, tilt: float = 0.0) -> Points:
    """An ellipse of half axes `width` and `height`, turned by `tilt` radians, [28, 2]."""
    turn = np.linspace(0.0, 2.0 * np.pi, 28, endpoint=False)
    across, down = width * np.cos(turn), height * np.sin(turn)
    return np.stack(
        [x + across * np.cos(tilt) - down * np.sin(tilt), y + across * np.sin(tilt) + down * np.cos(tilt)], axis=1
    )


def draw_face(pen: Pen, label: int, coat: Coat, rng: np.random.Generator) -> None:
    """The whole face of class `label`; every measure varies, and the two kinds overlap in most."""
    wide, tall = rng.uniform(0.86, 1.08), rng.uniform(0.84, 1.02)
    if label == CAT:
        _pointed_ears(pen, coat, wide, rng)
    pen.fill(ellipse(0, 0, wide, tall), coat.shade)
    pen.fill(ellipse(0, -0.02, wide * 0.96, tall * 0.96), coat.fur)
    _markings(pen, coat, rng)
    _eyes(pen, label, coat, rng)
    _MUZZLES[label](pen, coat, rng)
    if label == DOG:
        _hanging_ears(pen, coat, wide, rng)


def _pointed_ears(pen: Pen, coat: Coat, wide: float, rng: np.random.Generator) -> None:
    height, lean, base = rng.uniform(1.25, 1.75), rng.uniform(0.45, 0.95), rng.uniform(0.5, 0.68)
    for side in (-1, 1):
        tip = np.array([side * lean * wide, -height * rng.uniform(0.95, 1.05)])
        outer, inner = np.array([side * wide * 0.95, -0.25]), np.array([side * wide * (0.75 - base), -0.75])
        ear = np.stack([outer, tip, inner])
        pen.fill(ear, coat.shade)
        middle = ear.mean(axis=0)
        pen.fill(middle + (ear - middle) * 0.62, coat.inner)


def _hanging_ears(pen: Pen, coat: Coat, wide: float, rng: np.random.Generator) -> None:
    length, breadth, tilt = rng.uniform(0.5, 0.85), rng.uniform(0.22, 0.36), rng.uniform(0.05, 0.55)
    root = rng.uniform(-0.6, -0.35)
    for side in (-1, 1):
        x = side * (wide * 0.86 + np.sin(tilt) * length * 0.7)
        y = root + np.cos(tilt) * length * 0.75
        pen.fill(ellipse(x, y, breadth, length, -side * tilt), coat.shade)
        pen.fill(ellipse(x, y + 0.06, breadth * 0.6, length * 0.72, -side * tilt), coat.inner)


def _markings(pen: Pen, coat: Coat, rng: np.random.Generator) -> None:
    kind = rng.integers(4)
    if kind == 0:
        for x in (-0.25, 0.0, 0.25):
            pen.line(np.array([[x, -0.8], [x * 0.7, -0.45]]), coat.shade, 0.08)
    elif kind == 1:
        pen.fill(ellipse(rng.choice([-0.4, 0.4]), -0.22, 0.36, 0.4), coat.light)
    elif kind == 2:
        pen.fill(ellipse(0, -0.35, 0.16, 0.55), coat.light)


def _eyes(pen: Pen, label: int, coat: Coat, rng: np.random.Generator) -> None:
    apart, up, big = rng.uniform(0.34, 0.46), rng.uniform(-0.3, -0.12), rng.uniform(0.15, 0.21)
    look = rng.uniform(-0.05, 0.05)
    for side in (-1, 1):
        x = side * apart
        if label == CAT:
            pen.fill(ellipse(x, up, big * 1.2, big * 0.85, side * -0.3), coat.eye)
            pen.fill(ellipse(x + look, up, big * 0.28, big * 0.78), coat.dark)
        else:
            pen.fill(ellipse(x, up, big, big), coat.eye)
            pen.fill(ellipse(x + look, up, big * 0.6, big * 0.6), coat.dark)
        pen.fill(ellipse(x + look + 0.04, up - 0.05, 0.035, 0.035), (250, 250, 250))


def _cat_muzzle(pen: Pen, coat: Coat, rng: np.random.Generator) -> None:
    y, big = rng.uniform(0.28, 0.4), rng.uniform(0.2, 0.28)
    for side in (-1, 1):
        pen.fill(ellipse(side * big * 0.8, y + 0.15, big, big * 0.8), coat.light)
    pen.fill(np.array([[-0.13, y - 0.08], [0.13, y - 0.08], [0.0, y + 0.08]]), coat.dark)
    pen.line(np.array([[-0.2, y + 0.2], [0.0, y + 0.28], [0.2, y + 0.2]]), coat.dark, 0.035)
    for side in (-1, 1):
        for rise in (-0.14, 0.02, 0.18):
            pen.line(np.array([[side * 0.35, y + 0.14], [side * 1.1, y + 0.14 + rise]]), coat.light, 0.025)


def _dog_muzzle(pen: Pen, coat: Coat, rng: np.random.Generator) -> None:
    y, wide, tall = rng.uniform(0.36, 0.46), rng.uniform(0.36, 0.48), rng.uniform(0.36, 0.48)
    pen.fill(ellipse(0, y, wide, tall), coat.light)
    pen.fill(ellipse(0, y - tall * 0.45, rng.uniform(0.13, 0.19), 0.11), coat.dark)
    pen.line(np.array([[0.0, y - 0.1], [0.0, y + 0.14]]), coat.dark, 0.035)
    pen.line(np.array([[-0.24, y + 0.08], [0.0, y + 0.16], [0.24, y + 0.08]]), coat.dark, 0.035)
    if rng.random() < 0.4:
        pen.fill(ellipse(0.02, y + 0.3, 0.12, 0.18), coat.inner)


_MUZZLES: dict[int, Callable[[Pen, Coat, np.random.Generator], None]] = {CAT: _cat_muzzle, DOG: _dog_muzzle}
