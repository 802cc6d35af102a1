"""Loss surfaces drawn: contours, in three dimensions, and one line with running and with batch statistics."""

from __future__ import annotations

from collections.abc import Mapping

from plusx.lab.landscape_findings import Kind, Measured, Surface
from plusx.lab.results import Figure
from plusx.lab.twins import COLOURS, TWINS
from plusx.report.axes import Axis
from plusx.report.contours import Grid
from plusx.report.figures import WIDE, Series, Svg, line_chart
from plusx.report.moving import turning_surface
from plusx.report.surfaces import contour_plot

X, Y = "first direction", "second direction"
CUT = 100.0  # the loss at which pictures end: with the cliffs of a deep plain network whole, nothing else is seen


def figures(measured: Measured) -> tuple[Figure, ...]:
    """Contours and a view in 3-D of every network, on one scale, then the lines."""
    surfaces = measured.surfaces
    if not surfaces:
        return ()
    ends = (float(end) for s in surfaces.values() for end in (s.heights.min(), s.heights.max()))
    scale = Axis.around("loss", (min(end, CUT) for end in ends), log=True)
    drawn = [figure for kind, shown in surfaces.items() for figure in _of_one(kind, shown, scale)]
    deep = measured.depths[1]
    caption = (
        f"The loss along the first direction, networks of {deep} layers; dashed with the statistics of each batch in "
        "the place of running ones. Look at how high the plain network climbs, and what batch statistics leave of that."
    )
    return (*drawn, Figure("lines", caption, _lines(surfaces, deep)))


def _of_one(kind: Kind, shown: Surface, scale: Axis) -> tuple[Figure, Figure]:
    name, said = f"{kind[0]}{kind[1]}", f"{TWINS[kind[0]]} network of {kind[1]} layers"
    ends = shown.steps[0], shown.steps[-1]
    axes = (Axis(X, *ends), Axis(Y, *ends), scale)
    grid = Grid(shown.steps, shown.steps, shown.heights)
    told = f"All four have one scale, logarithmic, which ends at {scale.high:g}."
    contours = contour_plot(f"Contours of the loss around a {said}", *axes, grid, [(0.0, 0.0, f"{shown.middle:.2f}")])
    relief = turning_surface(f"The loss around a {said}", *axes, grid)
    return (
        Figure(f"contour-{name}", f"The loss around the {said}. {told} Look at how close the lines are.", contours),
        Figure(f"surface-{name}", f"The same in three dimensions: {said}. {told} Look for cliffs and hollows.", relief),
    )


def _lines(surfaces: Mapping[Kind, Surface], deep: int) -> Svg:
    series = []
    for kind, said in TWINS.items():
        shown = surfaces[kind, deep]
        middle = shown.heights[len(shown.steps) // 2].tolist()
        series.append(Series(said, list(zip(shown.steps, middle, strict=True)), COLOURS[kind]))
        batch = list(zip(shown.steps, shown.batch, strict=True))
        series.append(Series(f"{said}, batch statistics", batch, COLOURS[kind], dashed=True))
    x = Axis(X, series[0].points[0][0], series[0].points[-1][0])
    y = Axis.around("loss", (height for line in series for _, height in line.points), log=True)
    return line_chart("The loss along the first direction", x, y, series, size=WIDE)
