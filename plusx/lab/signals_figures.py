"""The figures of the experiment on signals: layers from left to right, or steps; mean and range over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from plusx.lab.results import Figure
from plusx.lab.signals_tables import HOW, NORM_SAID, geometric, ratio
from plusx.lab.twins import COLOURS, TWINS
from plusx.report.axes import Axis
from plusx.report.drawing import Points
from plusx.report.figures import WIDE, Series, line_chart, over_seeds

if TYPE_CHECKING:
    from plusx.lab.signals import Measured, Watched

DEEP = 56
LEAST = 1e-10  # where a logarithmic axis ends: what is less, or nothing, lies there
Curve = list[tuple[float, float]]


def figures(measured: Measured) -> tuple[Figure, ...]:
    """Live first, then layer by layer, then the figure of the paper, then first weights."""
    return (
        *(_live(measured, name) for name in LIVE),
        _by_layer(measured, "gradients-start", "response_gradient", "start"),
        _by_layer(measured, "gradients-later", "response_gradient", "middle"),
        _by_layer(measured, "weight-gradients-later", "weight_gradient", "middle"),
        _by_layer(measured, "responses-start", "response", "start"),
        _by_layer(measured, "updates-start", "update", "start"),
        _by_layer(measured, "updates-later", "update", "middle"),
        _paper(measured, ordered=False),
        _paper(measured, ordered=True),
        _first_weights(measured),
    )


WORDS = {
    "gradients-start": (
        *("gradient of responses", "Gradients at the first step"),
        "Look at how they grow or vanish from right to left, the way they go.",
    ),
    "gradients-later": (
        *("gradient of responses", "Gradients a quarter of the way"),
        "Look at which lines are level.",
    ),
    "weight-gradients-later": (
        *("gradient of weights", "Gradients of weights a quarter of the way"),
        "They are what the optimizer gets.",
    ),
    "responses-start": ("standard deviation", "Responses at the first step", "Batch norm makes all of them one."),
    "updates-start": ("update / weights", "The first update over the weights", "Above one, a layer is thrown away."),
    "updates-later": ("update / weights", "Updates over weights a quarter of the way", "Look at which layers learn."),
}


def _by_layer(measured: Measured, name: str, what: str, when: str) -> Figure:
    def points(row: Watched) -> Curve:
        moment: dict[str, Any] | None = getattr(row, when)
        values = moment[what] if moment else []
        return [(layer, max(v, LEAST)) for layer, v in enumerate(values, start=1) if v is not None]

    label, title, hint = WORDS[name]
    series = _cells(measured, points)
    y = Axis.around(label, [v for line in series for _, v in line.points], log=True, least=LEAST)
    svg = line_chart(title, Axis("layer, from input to output", 0, DEEP), y, series, size=WIDE)
    return Figure(name, f"{title}, layer by layer, of networks of {DEEP} layers. {hint}", svg)


LIVE = {  # what of a moment is drawn, its axis, its title, and what to look for
    "live": (
        *("reach", "first layer / last layer", "Gradient at the first layer over that at the last"),
        "At one it arrives as it left.",
    ),
    "live-responses": (
        *("carry", "last layer / first layer", "Spread of the last layer's responses over that of the first's"),
        "With batch norm it begins near one.",
    ),
    "live-updates": (
        *("update", "update / weights", "Update of a layer over its weights, median of all layers"),
        "Above one, most layers are thrown away at that step.",
    ),
}


def _live(measured: Measured, name: str) -> Figure:
    what, label, title, hint = LIVE[name]

    def points(row: Watched) -> Curve:
        values = [(moment.step, getattr(moment, what)) for moment in row.course]
        return [(step, max(value, LEAST)) for step, value in values if value is not None]

    series = _cells(measured, points)
    steps = max(2, *(moment.step for row in measured.watched for moment in row.course))  # an axis has two ends
    y = Axis.around(label, [v for line in series for _, v in line.points], log=True, least=LEAST)
    svg = line_chart(title, Axis("step", 1, steps, log=True), y, series)
    caption = (
        f"{title}, while networks of {DEEP} layers are trained. {hint} A line of one point is a training that "
        "diverged; the lower edge is nothing at all."
    )
    return Figure(name, caption, svg)


def _cells(measured: Measured, points: Callable[[Watched], Curve]) -> list[Series]:
    series = []
    for kind, said in TWINS.items():
        for norm, how in NORM_SAID.items():
            runs = [curve for row in measured.of(kind, norm, DEEP) if (curve := points(row))]
            if runs:
                series.append(middle(f"{said}, {how}", runs, COLOURS[kind], dashed=norm == "none"))
    return series


def middle(name: str, runs: Sequence[Points], colour: int, *, dashed: bool = False) -> Series:
    """The geometric mean of runs at the values of x that all have, and their range: for logarithmic axes."""
    values = [dict(run) for run in runs]
    common = [x for x, _ in runs[0] if all(x in run for run in values)]
    found = [[run[x] for run in values] for x in common]
    band = [(min(some), max(some)) for some in found] if len(runs) > 1 else ()
    points = [(x, geometric(some)) for x, some in zip(common, found, strict=True)]
    return Series(name, points, colour, dots=len(points) == 1, dashed=dashed, spread=band)


def _paper(measured: Measured, *, ordered: bool) -> Figure:
    """Figure 7 of He et al. 2015: above in the order of layers, below from the largest to the smallest."""
    series = []
    for kind, said in TWINS.items():
        for depth in sorted({row.depth for row in measured.watched}):
            runs = [_curve(row, ordered) for row in measured.of(kind, "batch", depth) if row.response]
            if runs:
                series.append(over_seeds(f"{said}, {depth}", runs, COLOURS[kind], dashed=depth != DEEP))
    y = Axis.around("standard deviation", [0.0, *(v for line in series for _, v in line.points)])
    x = Axis("layer, largest first" if ordered else "layer, from input to output", 0, DEEP)
    svg = line_chart("Responses of trained networks, layer by layer", x, y, series, size=WIDE)
    how = "sorted by size" if ordered else "in the order of layers"
    caption = (
        f"Standard deviation of the responses of trained networks with batch norm to test photos, {how}, as in "
        "He et al. 2015, figure 7. Look at which networks change the signal least in each layer."
    )
    return Figure("responses-sorted" if ordered else "responses", caption, svg)


def _curve(row: Watched, ordered: bool) -> Curve:
    values = [value or 0.0 for value in row.response or ()]
    shown = sorted(values, reverse=True) if ordered else values
    return [(float(layer), value) for layer, value in enumerate(shown, start=1)]


def _first_weights(measured: Measured) -> Figure:
    series = []
    for colour, (how, name) in enumerate(HOW.items(), start=1):
        rows = [row for row in measured.untrained if row.how == how]
        seeds = sorted({row.seed for row in rows})
        known = [(row.seed, float(row.depth), value) for row in rows if (value := ratio(row)) is not None]
        runs = [[(depth, max(value, LEAST)) for own, depth, value in known if own == seed] for seed in seeds]
        series.append(middle(name, runs, colour))
    y = Axis.around("first layer / last layer", [v for line in series for _, v in line.points], log=True, least=LEAST)
    x = Axis("layers", 0, max(row.depth for row in measured.untrained))
    svg = line_chart("Gradient at the first layer against depth, without norms", x, y, series)
    caption = (
        "The gradient at the first layer over that at the last in untrained plain networks without norms, against "
        f"depth. The lower edge is less than {LEAST:.0e}."
    )
    return Figure("first-weights", caption, svg)
