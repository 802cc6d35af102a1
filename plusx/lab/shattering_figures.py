"""The figures of the experiment on shattering."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean
from typing import TYPE_CHECKING

from plusx.lab import fully_connected as small
from plusx.lab.autocorrelation import FLOOR
from plusx.lab.input_gradients import POINTS
from plusx.lab.results import Figure
from plusx.lab.twins import COLOURS, TWINS
from plusx.report.axes import Axis
from plusx.report.figures import WIDE, Series, line_chart, over_seeds

if TYPE_CHECKING:
    from plusx.lab.shattering import Measured, Noise

THEORY = (
    ("plain", small.PLAIN, small.BATCH),
    ("residual", small.RESIDUAL, small.BATCH),
    ("residual, means left in", small.RESIDUAL, small.SCALE),
    ("ReLU behind the addition", small.POST, small.BATCH),
)
CURVES = (8, 20, 56, 110)  # layers
LEAST = FLOOR / 4  # where the logarithmic axis of correlations ends; below the floor it is noise


def figures(measured: Measured) -> tuple[Figure, ...]:
    """Against depth first, as it is the answer; then curves, and the fully connected networks."""
    return (
        _against_depth(measured),
        *(_curves(measured, kind) for kind in TWINS),
        _theory(measured),
        *(_line(measured, kind) for kind in (small.PLAIN, small.RESIDUAL)),
        *_examples(measured),
    )


def _against_depth(measured: Measured) -> Figure:
    series = []
    for kind, said in TWINS.items():
        for norm, how in (("batch", "batch norm"), ("none", "no norm")):
            rows = [row for row in measured.photos if (row.kind, row.norm) == (kind, norm)]
            runs = [[(r.depth, r.near) for r in rows if r.seed == s] for s in sorted({r.seed for r in rows})]
            series.append(over_seeds(f"{said}, {how}", _visible(runs), COLOURS[kind], dashed=norm == "none"))
    y = Axis("correlation of gradients", LEAST, 1.0, log=True)
    x = Axis.around("layers", [0.0, *(row.depth for row in measured.photos)])
    svg = line_chart("Correlation of gradients against depth", x, y, series, size=WIDE)
    caption = (
        "Correlation of input gradients a 64th of the way from one photo to another, untrained, against depth; mean "
        f"and range over seeds. Look at how steep the plain lines are. What is below {FLOOR} is noise."
    )
    return Figure("depth", caption, svg)


def _visible(runs: Sequence[Sequence[tuple[float, float]]]) -> list[list[tuple[float, float]]]:
    """What is lost in noise lies at the end of the logarithmic axis."""
    return [[(x, max(y, LEAST)) for x, y in run] for run in runs]


def _curves(measured: Measured, kind: str) -> Figure:
    series, known = [], {row.depth for row in measured.photos}
    for colour, depth in enumerate((depth for depth in CURVES if depth in known), start=1):
        rows = measured.of(kind, "batch", depth)
        runs = [[(lag / (POINTS - 1), v) for lag, v in enumerate(row.autocorrelation)] for row in rows]
        series.append(over_seeds(f"{depth} layers", runs, colour))
    x, y = Axis("distance as a share of the way", 0.0, 0.25, share=True), Axis("autocorrelation", -0.25, 1.0)
    svg = line_chart(f"Autocorrelation of input gradients, {TWINS[kind]}", x, y, series)
    caption = (
        f"Autocorrelation of the input gradients of untrained {TWINS[kind]} networks with batch norm along lines from "
        "photo to photo; mean and range over seeds. White noise would fall to zero at once."
    )
    return Figure(f"autocorrelation-{TWINS[kind]}", caption, svg)


def _theory(measured: Measured) -> Figure:
    series = []
    for (name, kind, norm), colour in zip(THEORY, (*COLOURS.values(), 3, 4), strict=True):
        rows = [row for row in measured.theory if (row.kind, row.norm) == (kind, norm) and row.depth <= 32]
        points = [(row.depth, mean(row.correlations)) for row in rows]
        series.append(Series(name, [(x, y) for x, y in points if y > LEAST], colour, dots=True))
    depths = range(33)
    halves = [(d, 0.5 * 0.5**d) for d in depths if 0.5 * 0.5**d > LEAST]
    series.append(Series("1/2^L", halves, COLOURS["plain"], dashed=True))
    roots = [(d, 0.5 * (d + 1) ** -0.5) for d in depths]
    series.append(Series("1/√(L+1)", roots, COLOURS["resnet"], dashed=True))
    y = Axis("correlation of gradients", LEAST, 1.0, log=True)
    svg = line_chart(
        "Fully connected networks and the theorems", Axis("layers or blocks L", 0, 32), y, series, size=WIDE
    )
    caption = (
        f"Fully connected networks of {small.WIDTH} units with batch norm: correlation of the gradients at independent "
        "inputs (points), and the theorems of Balduzzi et al. 2017 (dashed), from the measured 1/2 of the first layer."
    )
    return Figure("theory", caption, svg)


def _line(measured: Measured, kind: str) -> Figure:
    rows = [row for row in measured.line if (row.name, row.norm) == (kind, small.BATCH)]
    series = [_noise(f"{row.depth} layers", row, colour) for colour, row in enumerate(rows, start=1)]
    others = [row for row in measured.line if row.name.endswith("noise")]
    series += [_noise(row.name, row, 6, dashed=row.name.startswith("white")) for row in others]
    x, y = Axis("distance in points of 256", 0, 30), Axis("autocorrelation", -0.2, 1.0)
    svg = line_chart(f"Autocorrelation along a line of one dimension, {kind}", x, y, series)
    caption = (
        f"The setting of Balduzzi et al. 2017, figure 2: fully connected {kind} networks with batch norm, inputs from "
        f"{-small.SPAN:g} to {small.SPAN:g}; mean over networks, beside white and brown noise."
    )
    return Figure(f"line-{kind}", caption, svg)


def _noise(name: str, row: Noise, colour: int, *, dashed: bool = False) -> Series:
    return Series(name, list(enumerate(row.autocorrelation)), colour, dashed=dashed)


def _examples(measured: Measured) -> Iterator[Figure]:
    """Five small drawings: what a gradient looks like along the line."""
    for name, values in measured.examples.items():
        across = [small.SPAN * (2 * i / (len(values) - 1) - 1) for i in range(len(values))]
        x = Axis("input" if name[0].isdigit() else "point", -small.SPAN, small.SPAN)
        y = Axis.around("gradient" if name[0].isdigit() else "noise", values)
        svg = line_chart(name, x, y, [Series(name, list(zip(across, values, strict=True)), 1, thin=True)])
        caption = f"{name[0].upper()}{name[1:]}, as in Balduzzi et al. 2017, figure 1."
        yield Figure(f"example-{name.replace(' ', '-')}", caption, svg)
