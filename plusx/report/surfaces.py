"""Functions of two variables as SVG: contours, a surface in three dimensions, cells of a table coloured by value.

Colours are ten shades of the page's style, from what lies near the paper to what stands out from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from plusx.report.axes import Axis
from plusx.report.contours import Grid, Place, above, lines
from plusx.report.drawing import LEFT, TOP, WIDTH, Plane, Svg, drawing, rect, words
from plusx.report.drawing import WIDE as _WIDE

SHADES = 10
SQUARE = (WIDTH, 400)
SURFACE = (WIDTH, 330)
_CELL, _LETTER = 20, 6.4  # height of a cell and width of a letter


def contour_plot(
    name: str, x: Axis, y: Axis, z: Axis, grid: Grid, marks: Sequence[tuple[float, float, str]] = ()
) -> Svg:
    """Nine labelled lines of equal height, evenly through `z` (on a logarithmic one by factors), over coloured areas.

    `marks` are (x, y, text): points with a word beside them.
    """
    plane, levels = Plane(x, y, *SQUARE), z.between(SHADES - 1)
    ground = rect(LEFT, TOP, plane.right - LEFT, plane.bottom - TOP, "q0", f"{z.label} up to {z.said(levels[0])}")
    areas = [_area(plane, grid, level, f"q{k + 1}") for k, level in enumerate(levels)]
    drawn = [lines(grid, level) for level in levels]
    paths = [plane.path(line, "level") for some in drawn for line in some]
    labels = _labels(plane, [z.said(level) for level in levels], drawn)
    spots = [_spot(plane, *mark) for mark in marks]
    return drawing(name, SQUARE, [plane.frame(), ground, *areas, *paths, *labels, *spots])


def _area(plane: Plane, grid: Grid, level: float, shade: str) -> str:
    parts = [f"M{plane.places(polygon)}z" for polygon in above(grid, level)]
    return f'<path class="{shade}" d="{"".join(parts)}"/>' if parts else ""


def _spot(plane: Plane, x: float, y: float, text: str) -> str:
    across, up = plane.across(x), plane.up(y)
    return f'<circle class="spot" cx="{across:.1f}" cy="{up:.1f}" r="3.5"/>' + words(
        across + 6, up + 4, text, "start", "halo"
    )


def _labels(plane: Plane, said: Sequence[str], drawn: Sequence[Sequence[Sequence[Place]]]) -> list[str]:
    """One label on the longest line of each level, each as far from the others as it can be."""
    placed: list[Place] = []
    texts = []
    for text, some in zip(said, drawn, strict=True):
        longest = max(some, key=len, default=())
        spots = [(plane.across(x), plane.up(y)) for x, y in longest]
        spots = [s for s in spots if LEFT + 20 < s[0] < plane.right - 20 and TOP + 12 < s[1] < plane.bottom - 8]
        if not spots:
            continue
        at = max(spots, key=lambda spot: min((math.dist(spot, other) for other in placed), default=0.0))
        if all(math.dist(at, other) > 14 for other in placed):
            placed.append(at)
            texts.append(words(at[0], at[1] + 4, text, "middle", "halo"))
    return texts


@dataclass(frozen=True)
class View:
    """From where a surface is looked at, in degrees: turned by `azimuth`, from `elevation` above its floor."""

    azimuth: float = 30.0
    elevation: float = 28.0
    size: tuple[int, int] = SURFACE

    def place(self, u: float, v: float, height: float) -> Place:
        """Where a point of the box [-1, 1] x [-1, 1] x [0, 1] lies: parallel projection, turned about the middle."""
        across, away = self.turned(u, v)
        scale, tilt = 0.29 * self.size[0], math.radians(self.elevation)
        up = away * math.sin(tilt) + 1.15 * height * math.cos(tilt)
        return self.size[0] / 2 + 14 + scale * across, self.size[1] * 0.7 - scale * up

    def turned(self, u: float, v: float) -> Place:
        """How far to the right and how far away a point of the floor is."""
        turn = math.radians(self.azimuth)
        return u * math.cos(turn) - v * math.sin(turn), u * math.sin(turn) + v * math.cos(turn)


def surface(name: str, x: Axis, y: Axis, z: Axis, grid: Grid, view: View | None = None) -> Svg:
    """The function as a surface over its grid, coloured by height; what is above `z` is cut off there.

    Parallel projection; far cells are drawn first (the painter's algorithm), which is exact for a function.
    """
    view = view or View()
    return drawing(name, view.size, [*surface_box(view, x, y, z), surface_body(x, y, z, grid, view)])


def surface_body(x: Axis, y: Axis, z: Axis, grid: Grid, view: View) -> str:
    """The cells of a surface alone, as one group."""
    us, vs = [2 * x.place(value) - 1 for value in grid.x], [2 * y.place(value) - 1 for value in grid.y]
    heights = [[z.place(float(value)) for value in row] for row in grid.heights]
    at = [[view.place(u, v, h) for u, h in zip(us, row, strict=True)] for v, row in zip(vs, heights, strict=True)]
    cells = [(j, i) for j in range(len(vs) - 1) for i in range(len(us) - 1)]
    cells.sort(key=lambda cell: -view.turned(us[cell[1]] + us[cell[1] + 1], vs[cell[0]] + vs[cell[0] + 1])[1])
    return "\n".join(['<g class="mesh">', *(_quad(at, heights, j, i) for j, i in cells), "</g>"])


def _quad(at: Sequence[Sequence[Place]], heights: Sequence[Sequence[float]], j: int, i: int) -> str:
    corners = ((j, i), (j, i + 1), (j + 1, i + 1), (j + 1, i))
    mean = sum(heights[row][column] for row, column in corners) / 4
    places = [at[row][column] for row, column in corners]
    return f'<path class="q{_shade(mean)}" d="{_outline(places)}"/>'


def _outline(places: Sequence[Place]) -> str:
    """A closed path, from corner to corner by differences: half the bytes of a polygon."""
    tenths = [(round(10 * x), round(10 * y)) for x, y in places]
    steps = [(x - x0, y - y0) for (x0, y0), (x, y) in pairwise(tenths)]
    joined = "".join(f"{dx / 10: g}{dy / 10:+g}".replace("+", " ") for dx, dy in steps).strip()
    return f"M{tenths[0][0] / 10:g} {tenths[0][1] / 10:g}l{joined}z"


def surface_box(view: View, x: Axis, y: Axis, z: Axis) -> list[str]:
    """Floor, names of the axes along its two near sides, and the heights at its leftmost corner."""
    corners: list[Place] = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    floor = " ".join("{:.1f},{:.1f}".format(*view.place(u, v, 0)) for u, v in corners)
    parts = [f'<polygon class="floor" points="{floor}"/>']
    u, v = min(corners, key=lambda corner: view.turned(*corner)[0])
    foot, top = view.place(u, v, 0), view.place(u, v, 1)
    parts.append(f'<line class="axis" x1="{foot[0]:.1f}" y1="{foot[1]:.1f}" x2="{top[0]:.1f}" y2="{top[1]:.1f}"/>')
    for tick in z.ticks():
        across, up = view.place(u, v, z.place(tick))
        parts.append(f'<line class="axis" x1="{across - 4:.1f}" x2="{across:.1f}" y1="{up:.1f}" y2="{up:.1f}"/>')
        parts.append(words(across - 7, up + 4, z.said(tick), "end"))
    parts.append(words(6, top[1] - 14, z.label, "start", "strong"))
    return parts + [_side(view, axis.label, along) for axis, along in ((x, True), (y, False))]


def _side(view: View, text: str, along_x: bool) -> str:
    """A name below the nearer of the two sides along an axis."""
    middles: list[Place] = [(0, -1), (0, 1)] if along_x else [(-1, 0), (1, 0)]
    u, v = min(middles, key=lambda middle: view.turned(*middle)[1])
    across, up = view.place(1.12 * u, 1.12 * v, 0)
    anchor = "start" if view.turned(u, v)[0] > 0.2 else "end" if view.turned(u, v)[0] < -0.2 else "middle"
    return words(across, up + 14, text, anchor)


def heat_map(
    name: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], scale: Axis
) -> Svg:
    """A table whose cells are coloured by their value on `scale`, with the number in each; None leaves a cell empty."""
    width = WIDTH if len(columns) <= 7 else _WIDE[0]
    left = 10 + _LETTER * max((len(row) for row in rows), default=0)
    cell = (width - left - 6) / max(1, len(columns))
    head = [words(left + (i + 0.5) * cell, 26, column, "middle") for i, column in enumerate(columns)]
    body = [words(left, 9, scale.label, "start", "strong"), *head]
    for j, (row, cells) in enumerate(zip(rows, values, strict=True)):
        top = 32 + j * _CELL
        body.append(words(left - 6, top + 14, row, "end"))
        named = [(f"{row}, {column}", value) for column, value in zip(columns, cells, strict=True)]
        body += _cells(named, scale, (left, top, cell))
    return drawing(name, (width, 38 + _CELL * len(rows)), body)


def _cells(named: Iterable[tuple[str, float | None]], scale: Axis, where: tuple[float, float, float]) -> list[str]:
    left, top, width = where
    parts = []
    for i, (told, value) in enumerate(named):
        if value is None or not math.isfinite(value):
            continue
        shade, said = _shade(scale.place(value)), _said(scale, value)
        parts.append(rect(left + i * width + 0.5, top, width - 1, _CELL - 1, f"q{shade}", f"{told}: {said}"))
        if _LETTER * len(said) < width:
            style = "strong on" if shade >= SHADES - 4 else "strong"
            parts.append(words(left + (i + 0.5) * width, top + 14, said, "middle", style))
    return parts


def _said(scale: Axis, value: float) -> str:
    """A cell has room for two digits."""
    return scale.said(value if scale.share or abs(value) >= 100 else float(f"{value:.2g}"))


def _shade(place: float) -> int:
    """Which shade a place in [0, 1] of an axis has."""
    return min(SHADES - 1, int(place * SHADES))
