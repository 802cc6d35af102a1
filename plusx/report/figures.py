"""Charts as SVG text, by hand: colours come from the page's style, so that a figure follows it into dark and print.

Every figure has role="img" and a name for those who hear it, scales by its viewBox, and tells the numbers behind a
point in a <title>, which browsers show when it is pointed at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from plusx.metrics import percent
from plusx.report.axes import Axis

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 18, 40  # margins of the plotting area
SERIES = 6  # colours that style.css has
HEAD, ROW, LONGEST = (
    6,
    16,
    44,
)  # room above the frame, height of a row of a legend; letters of a name, whose end says more than its beginning
_LETTER = 6.6  # width of a letter of a legend, about


class Svg(str):
    """Markup that is inserted as it is; everything in it that came from outside is escaped already."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Series:
    """Points (x, y) in order; `dots` shows each, `thin` draws a quieter line, `colour` counts from 1."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 1
    dots: bool = False
    thin: bool = False


def line_chart(name: str, x: Axis, y: Axis, series: Sequence[Series], marks: Sequence[tuple[float, str]] = ()) -> Svg:
    """Lines over common axes; `marks` are (x, text): vertical lines with a word at their top."""
    body = [_frame(x, y), *(_mark(x, at, text) for at, text in marks)]
    body += [_line(x, y, line) for line in series]
    return _svg(name, body, [(line.name, line.colour) for line in series])


def bar_chart(name: str, y: Axis, bars: Sequence[tuple[str, float, str]]) -> Svg:
    """Upright bars (label, value, what a pointer shows) from the bottom of the axis."""
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(bars))
    body = [_grid(y), _words(LEFT, TOP - 1, y.label, "start")]
    for i, (label, value, told) in enumerate(bars):
        left, top = LEFT + (i + 0.18) * slot, _y(y, value)
        body.append(_rect(left, top, 0.64 * slot, HEIGHT - BOTTOM - top, "f1", told))
        body.append(_words(left + 0.32 * slot, HEIGHT - BOTTOM + 16, label, "middle"))
        body.append(_words(left + 0.32 * slot, top - 5, y.said(value), "middle", "strong"))
    return _svg(name, body)


Bin = Mapping[str, Any]  # as `plusx.metrics.reliability` gives them


def reliability(name: str, bins: Sequence[Bin], before: Sequence[Bin] = ()) -> Svg:
    """Share of right answers over their probability (Niculescu-Mizil and Caruana 2005); on the diagonal they agree.

    The grey bars at the bottom are counts; `before` are the bins of the same answers before temperature scaling.
    """
    bins, before = ([b for b in some if b["n"]] for some in (bins, before))
    low = min((b["low"] for b in (*bins, *before)), default=0.0)
    x, y = Axis("probability of the answer", low, 1.0, share=True), Axis("share right", 0.0, 1.0, share=True)
    most = max((b["n"] for b in bins), default=1)
    body = [*(_count_bar(x, b, most) for b in bins), _frame(x, y), _diagonal(x, y)]
    named = [("after temperature" if before else "answers", 1)] + [("before", 2)] * bool(before)
    for entries, colour in ((before, 2), (bins, 1)):
        points = [(b["probability"], b["accuracy"]) for b in entries]
        body.append(_path(x, y, points, f"line s{colour}" + " thin" * (colour == 2)))
        body += [
            _dot(_x(x, at), _y(y, right), colour, _told(b)) for (at, right), b in zip(points, entries, strict=True)
        ]
    return _svg(name, body, named)


def _told(b: Bin) -> str:
    return f"{b['n']:,} answers of about {percent(b['probability'], 1)}: {percent(b['accuracy'], 1)} right"


def _count_bar(x: Axis, b: Bin, most: int) -> str:
    left, right = _x(x, b["low"]), _x(x, b["high"])
    height = 0.22 * (HEIGHT - TOP - BOTTOM) * b["n"] / most
    style = "bar"
    return _rect(left + 0.5, HEIGHT - BOTTOM - height, max(0.5, right - left - 1), height, style, f"{b['n']:,} answers")


def _diagonal(x: Axis, y: Axis) -> str:
    return _path(x, y, [(x.low, x.low), (1.0, 1.0)], "ideal")


def _svg(name: str, body: Iterable[str], legend: Sequence[tuple[str, int]] = ()) -> Svg:
    label, (names, rows) = escape(name), _legend(legend)
    raised = HEAD + ROW * max(0, rows - 1)  # the first row of names needs little, the others stand above it
    box = f'viewBox="0 {-raised} {WIDTH} {HEIGHT + raised}"'
    head = f'<svg {box} role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg">'
    return Svg("\n".join([head, f"<title>{label}</title>", *(part for part in (*body, names) if part), "</svg>"]))


def _frame(x: Axis, y: Axis) -> str:
    bottom = HEIGHT - BOTTOM
    ticks = [_words(_x(x, tick), bottom + 16, x.said(tick), "middle") for tick in x.ticks()]
    names = [_words((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, x.label, "middle"), _turned(y.label)]
    return "\n".join([_grid(y), *ticks, *names])


def _grid(y: Axis) -> str:
    lines = []
    for tick in y.ticks():
        at = _y(y, tick)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        lines.append(_words(LEFT - 6, at + 4, y.said(tick), "end"))
    bottom = HEIGHT - BOTTOM
    return "\n".join([*lines, f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'])


def _line(x: Axis, y: Axis, line: Series) -> str:
    shown = _path(x, y, line.points, f"line s{line.colour}" + " thin" * line.thin)
    many = len(line.points) > 150  # a pointer could not tell them apart, and the file would grow
    told = [] if many else [(px, py, f"{line.name}: {y.said(py)} at {x.said(px)}") for px, py in line.points]
    if line.dots:
        points = [_dot(_x(x, px), _y(y, py), line.colour, text) for px, py, text in told]
    else:
        points = [_circle(_x(x, px), _y(y, py), 6, "hover", text) for px, py, text in told]
    return "\n".join([shown, *points])


def _path(x: Axis, y: Axis, points: Sequence[tuple[float, float]], style: str) -> str:
    if len(points) < 2:
        return ""
    steps = " ".join(f"{_x(x, px):.1f},{_y(y, py):.1f}" for px, py in points)
    return f'<polyline class="{style}" points="{steps}"/>'


def _mark(x: Axis, at: float, text: str) -> str:
    place = _x(x, at)
    line = f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    beyond = place > 0.75 * WIDTH  # there is no room for a word to the right of it
    return line + _words(place - 3 if beyond else place + 3, TOP + 10, text, "end" if beyond else "start")


def _legend(entries: Sequence[tuple[str, int]]) -> tuple[str, int]:
    """Names in their colours above the plot, and in how many rows, upwards; a single one needs no legend."""
    if len(entries) < 2:
        return "", 0
    parts, left, row = [], float(LEFT), 0
    for name, colour in reversed(entries) if _wide(entries) else entries:
        shown = name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
        if left > LEFT and left + 18 + _LETTER * len(shown) > WIDTH:
            left, row = float(LEFT), row + 1
        y = 3 - ROW * row
        parts.append(f'<line class="line s{colour}" x1="{left:.0f}" x2="{left + 14:.0f}" y1="{y}" y2="{y}"/>')
        parts.append(_words(left + 18, y + 4, shown, "start", "strong"))
        left += 30 + _LETTER * len(shown)
    return "\n".join(parts), row + 1


def _wide(entries: Sequence[tuple[str, int]]) -> bool:
    """Whether the names need more than one row; they are then laid from the last, at the bottom, to the first."""
    return LEFT + sum(30 + _LETTER * min(LONGEST, len(name)) for name, _ in entries) - 12 > WIDTH


def _dot(x: float, y: float, colour: int, told: str) -> str:
    return _circle(x, y, 3, f"f{colour}", told)


def _circle(x: float, y: float, radius: int, style: str, told: str) -> str:
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{escape(told)}</title></circle>'


def _rect(x: float, y: float, width: float, height: float, style: str, told: str) -> str:
    size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(0.0, height):.1f}"'
    return f'<rect class="{style}" {size}><title>{escape(told)}</title></rect>'


def _words(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _turned(text: str) -> str:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    place = f'x="11" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 11 {middle:.0f})"'
    return f"<text {place}>{escape(text)}</text>"


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)
