"""Charts as SVG text, by hand: colours come from the page's style, so that a figure follows it into dark and print.

Every figure has role="img" and a name for those who hear it, scales by its viewBox, and tells the numbers behind a
point in a <title>, which browsers show when it is pointed at. What belongs to one line is one group: pages make the
others pale while it is pointed at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plusx.metrics import percent
from plusx.report.axes import Axis
from plusx.report.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    TOP,
    WIDTH,
    Plane,
    Points,
    circle,
    drawing,
    legend,
    rect,
    series_group,
    whisker,
    words,
)
from plusx.report.drawing import WIDE as WIDE
from plusx.report.drawing import Svg as Svg

SERIES = 6  # colours that style.css has
MANY = 400  # points in a figure, above which a pointer could not tell them apart, and the file would grow


@dataclass(frozen=True)
class Spread:
    """A mean and what lies around it: `low` to `high`."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The mean of repetitions, such as seeds, from the lowest to the highest of them."""
        return cls(sum(values) / len(values), min(values), max(values))


@dataclass(frozen=True)
class Series:
    """Points (x, y) in order; `dots` shows each, `thin` draws a quieter line, `colour` counts from 1.

    `spread` holds (low, high) for each point: a band around a line, error bars on dots.
    """

    name: str
    points: Points
    colour: int = 1
    dots: bool = False
    thin: bool = False
    dashed: bool = False
    spread: Points = ()

    @property
    def style(self) -> str:
        """The classes of its line."""
        return f"line s{self.colour}" + " thin" * self.thin + " dashed" * self.dashed


def over_seeds(
    name: str, runs: Sequence[Points], colour: int = 1, *, dashed: bool = False, dots: bool = False
) -> Series:
    """The mean of runs at the values of x that all have, with a band from the lowest to the highest."""
    values = [dict(points) for points in runs]
    common = [x for x, _ in runs[0] if all(x in run for run in values)]
    spreads = [Spread.of([run[x] for run in values]) for x in common]
    band = [(s.low, s.high) for s in spreads] if len(runs) > 1 else ()
    points = [(x, s.mean) for x, s in zip(common, spreads, strict=True)]
    return Series(name, points, colour, dots=dots, dashed=dashed, spread=band)


def line_chart(
    name: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    marks: Sequence[tuple[float, str]] = (),
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Svg:
    """Lines over common axes; `marks` are (x, text): vertical lines with a word at their top. `WIDE` has more room."""
    plane = Plane(x, y, *size)
    names, rows = legend([(line.name, line.style) for line in series], plane.width)
    many = sum(len(line.points) for line in series) > MANY
    lines = [series_line(plane, line, many, shown) for line, shown in zip(series, names, strict=True)]
    body = [plane.frame(), *(plane.mark(at, text) for at, text in marks), '<g class="choice">', *lines, "</g>"]
    return drawing(name, size, body, rows)


def series_line(plane: Plane, line: Series, many: bool, shown: str) -> str:
    """A line, its band, its points unless there are `many`, and its name in the legend, as one group."""
    parts = [_band(plane, line), plane.path(line.points, line.style)]
    if line.dots or not many:
        parts += [_point(plane, line, px, py) for px, py in line.points]
    else:
        parts.append(plane.path(line.points, "hit"))
    return series_group(line.name, [*parts, shown])


def _point(plane: Plane, line: Series, px: float, py: float) -> str:
    told = f"{line.name}: {plane.y.said(py)} at {plane.x.said(px)}"
    radius, style = (3, f"f{line.colour}") if line.dots else (6, "hover")
    return circle(plane.across(px), plane.up(py), radius, style, told)


def _band(plane: Plane, line: Series) -> str:
    if not line.spread:
        return ""
    around = [(px, low, high) for (px, _), (low, high) in zip(line.points, line.spread, strict=True)]
    if line.dots:
        colour = f"s{line.colour}"
        return "".join(whisker(plane.across(px), plane.up(low), plane.up(high), colour) for px, low, high in around)
    edge = [(px, high) for px, _, high in around] + [(px, low) for px, low, _ in reversed(around)]
    return f'<polygon class="band f{line.colour}" points="{plane.places(edge)}"/>'


def bar_chart(name: str, y: Axis, bars: Sequence[tuple[str, float, str]]) -> Svg:
    """Upright bars (label, value, what a pointer shows) from the bottom of the axis."""
    plane = Plane(Axis("", 0, max(1, len(bars))), y)
    body = [plane.grid(), words(LEFT, TOP - 1, y.label, "start")]
    for i, (label, value, told) in enumerate(bars):
        left, right, top = plane.across(i + 0.18), plane.across(i + 0.82), plane.up(value)
        body.append(rect(left, top, right - left, plane.bottom - top, "f1", told))
        body.append(words((left + right) / 2, plane.bottom + 16, label, "middle"))
        body.append(words((left + right) / 2, top - 5, y.said(value), "middle", "strong"))
    return drawing(name, (WIDTH, HEIGHT), body)


@dataclass(frozen=True)
class Bars:
    """One bar in each group, None where there is none."""

    name: str
    values: Sequence[Spread | None]
    colour: int = 1


def grouped_bars(
    name: str,
    y: Axis,
    groups: Sequence[str],
    bars: Sequence[Bars],
    label: str = "",
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Svg:
    """Groups of bars side by side, each with its spread; `label` says what the groups are."""
    plane = Plane(Axis(label, 0, max(1, len(groups))), y, *size)
    names, rows = legend([(b.name, f"line s{b.colour}") for b in bars], plane.width)
    body = [plane.grid(), plane.named_axes()]
    body += [words(plane.across(i + 0.5), plane.bottom + 16, group, "middle") for i, group in enumerate(groups)]
    body.append('<g class="choice">')
    for at, (one, shown) in enumerate(zip(bars, names, strict=True)):
        drawn = [_bar(plane, one, i, (at, len(bars)), group) for i, group in enumerate(groups)]
        body.append(series_group(one.name, [*drawn, shown]))
    return drawing(name, size, [*body, "</g>"], rows)


def _bar(plane: Plane, bars: Bars, group: int, place: tuple[int, int], label: str) -> str:
    value = bars.values[group]
    if value is None:
        return ""
    at, of = place
    left, right = (plane.across(group + 0.12 + 0.76 * (at + k) / of) for k in (0, 1))
    said, top, middle = plane.y.said, plane.up(value.mean), (left + right) / 2
    told = f"{bars.name}, {label}: {said(value.mean)} ({said(value.low)} to {said(value.high)})"
    bar = rect(left + 1, top, right - left - 2, plane.bottom - top, f"f{bars.colour}", told)
    above = words(middle, plane.up(value.high) - 5, said(value.mean), "middle", "strong") if right - left > 26 else ""
    spread = whisker(middle, plane.up(value.low), plane.up(value.high), "over") if value.high > value.low else ""
    return bar + spread + above


Bin = Mapping[str, Any]  # as `plusx.metrics.reliability` gives them


def reliability(name: str, bins: Sequence[Bin], before: Sequence[Bin] = ()) -> Svg:
    """Share of right answers over their probability (Niculescu-Mizil and Caruana 2005); on the diagonal they agree.

    The grey bars at the bottom are counts; `before` are the bins of the same answers before temperature scaling.
    """
    bins, before = ([b for b in some if b["n"]] for some in (bins, before))
    low = min((b["low"] for b in (*bins, *before)), default=0.0)
    plane = Plane(Axis("probability of the answer", low, 1.0, share=True), Axis("share right", 0.0, 1.0, share=True))
    most = max((b["n"] for b in bins), default=1)
    body = [*(_count_bar(plane, b, most) for b in bins), plane.frame(), plane.path([(low, low), (1.0, 1.0)], "ideal")]
    named = [("after temperature" if before else "answers", "line s1")] + [("before", "line s2")] * bool(before)
    for entries, colour in ((before, 2), (bins, 1)):
        points = [(b["probability"], b["accuracy"]) for b in entries]
        body.append(plane.path(points, f"line s{colour}" + " thin" * (colour == 2)))
        body += [
            circle(plane.across(at), plane.up(right), 3, f"f{colour}", _told(b))
            for (at, right), b in zip(points, entries, strict=True)
        ]
    names, rows = legend(named)
    return drawing(name, (WIDTH, HEIGHT), [*body, *names], rows)


def _told(b: Bin) -> str:
    return f"{b['n']:,} answers of about {percent(b['probability'], 1)}: {percent(b['accuracy'], 1)} right"


def _count_bar(plane: Plane, b: Bin, most: int) -> str:
    left, right = plane.across(b["low"]), plane.across(b["high"])
    height = 0.22 * (HEIGHT - TOP - BOTTOM) * b["n"] / most
    return rect(left + 0.5, plane.bottom - height, max(0.5, right - left - 1), height, "bar", f"{b['n']:,} answers")
