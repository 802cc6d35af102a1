"""Figures that answer the pointer and the keyboard, without scripts: a surface that turns, a dial read step by step.

They are drawn whole: zones above the drawing decide by the page's style what of it is seen. Where nothing is pointed
at, and on paper, they rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from plusx.report.axes import Axis
from plusx.report.contours import Grid
from plusx.report.drawing import HEIGHT, TOP, WIDTH, Plane, Svg, drawing, legend, words
from plusx.report.figures import Series, series_line
from plusx.report.surfaces import SURFACE, View, surface_body, surface_box

AZIMUTHS = (-50.0, -30.0, -10.0, 10.0, 30.0, 50.0, 70.0)  # from left to right; style.css knows as many views
MOST = 25  # cells in a row of a surface that turns
REST = 4  # the view that is seen while nothing is pointed at


def turning_surface(name: str, x: Axis, y: Axis, z: Axis, grid: Grid) -> Svg:
    """As `plusx.report.surfaces.surface`, seen from another side as the pointer moves across it.

    A fine grid is drawn at every n-th point only: each view is a drawing of its own.
    """
    grid = grid.every(_step_of(len(grid.x) - 1))
    views = [View(azimuth) for azimuth in AZIMUTHS]
    width = SURFACE[0] / len(views)
    zones = [_zone(f"zone z{k}", k * width, width, SURFACE[1], f"seen from side {k + 1}") for k in range(len(views))]
    body = [_view(k, [*surface_box(view, x, y, z), surface_body(x, y, z, grid, view)]) for k, view in enumerate(views)]
    return drawing(name, SURFACE, [*zones, *body])


def _step_of(cells: int) -> int:
    """The least step that leaves at most MOST cells in a row, and the last of them."""
    return next((step for step in range(1, cells) if cells % step == 0 and cells // step <= MOST), 1)


def _zone(style: str, left: float, width: float, height: int, told: str) -> str:
    place = f'x="{left:.1f}" y="0" width="{width:.1f}" height="{height}"'
    return f'<rect class="{style}" {place} aria-label="{escape(told)}"/>'


def _view(k: int, parts: Sequence[str]) -> str:
    rest = " rest" if k == REST else ""
    return "\n".join([f'<g class="view v{k}{rest}">', *parts, "</g>"])


def dial(name: str, x: Axis, y: Axis, series: Sequence[Series], said: Callable[[float], str]) -> Svg:
    """A line chart that is read step by step: at each value of x the values of all lines, and what `said` tells of x.

    All lines have the same values of x.
    """
    plane = Plane(x, y)
    names, rows = legend([(line.name, line.style) for line in series], plane.width)
    lines = [series_line(plane, line, True, shown) for line, shown in zip(series, names, strict=True)]
    steps = [_step(plane, series, at, said(px)) for at, (px, _) in enumerate(series[0].points)]
    return drawing(name, (WIDTH, HEIGHT), [plane.frame(), *lines, *steps], rows)


def _step(plane: Plane, series: Sequence[Series], at: int, said: str) -> str:
    places = [plane.across(px) for px, _ in series[0].points]
    left = (places[at] + places[at - 1]) / 2 if at else places[0] - 8
    right = (places[at] + places[at + 1]) / 2 if at + 1 < len(places) else places[-1] + 8
    told = "; ".join([said, *(f"{line.name} {plane.y.said(line.points[at][1])}" for line in series)])
    zone = _zone("zone", left, right - left, plane.bottom, told)
    here = f'<line class="mark" x1="{places[at]:.1f}" x2="{places[at]:.1f}" y1="{TOP}" y2="{plane.bottom}"/>'
    return "\n".join(
        ['<g class="step">', zone, '<g class="told">', here, *_values(plane, series, at, said), "</g></g>"]
    )


def _values(plane: Plane, series: Sequence[Series], at: int, said: str) -> list[str]:
    """What a step tells, beside its line: x at the top, values at their points, kept apart."""
    place = plane.across(series[0].points[at][0])
    right = place < 0.7 * plane.width
    shift, anchor = (6, "start") if right else (-6, "end")
    parts, taken = [words(place + shift, TOP + 10, said, anchor, "halo")], float(TOP + 10)
    for line in sorted(series, key=lambda line: -line.points[at][1]):
        value = line.points[at][1]
        taken = max(plane.up(value) + 4, taken + 13)
        parts.append(words(place + shift, taken, f"{line.name} {plane.y.said(value)}", anchor, "halo"))
    return parts
