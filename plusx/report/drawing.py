"""What figures are drawn with: markup, a plane between two axes, words, names in colours. Colours are the page's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from plusx.report.axes import Axis

WIDTH, HEIGHT = 420, 250
WIDE = (640, 300)  # room for many lines
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 18, 40  # margins of the plotting area
HEAD, ROW = 6, 16  # room above the frame, height of a row of a legend
LONGEST = 44  # letters of a name, whose end says more than its beginning
_LETTER = 6.6  # width of a letter of a legend, about

Points = Sequence[tuple[float, float]]


class Svg(str):
    """Markup that is inserted as it is; everything in it that came from outside is escaped already."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Plane:
    """Two axes on a drawing of `width` x `height`: values become places in it."""

    x: Axis
    y: Axis
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def right(self) -> int:
        """The right end of the plotting area."""
        return self.width - RIGHT

    @property
    def bottom(self) -> int:
        """The lower end of the plotting area."""
        return self.height - BOTTOM

    def across(self, value: float) -> float:
        """Where a value of x lies."""
        return LEFT + self.x.place(value) * (self.right - LEFT)

    def up(self, value: float) -> float:
        """Where a value of y lies."""
        return self.bottom - self.y.place(value) * (self.bottom - TOP)

    def places(self, points: Points) -> str:
        """Points as the coordinates of a <polyline> or <polygon>."""
        return " ".join(f"{self.across(x):.1f},{self.up(y):.1f}" for x, y in points)

    def path(self, points: Points, style: str) -> str:
        """A line through points; of a single one there is none."""
        return f'<polyline class="{style}" points="{self.places(points)}"/>' if len(points) > 1 else ""

    def frame(self) -> str:
        """Grid, labelled ticks and the names of both axes."""
        ticks = [words(self.across(tick), self.bottom + 16, self.x.said(tick), "middle") for tick in self.x.ticks()]
        return "\n".join([self.grid(), *ticks, self.named_axes()])

    def named_axes(self) -> str:
        """What the axes are called."""
        below = words((LEFT + self.right) / 2, self.height - 4, self.x.label, "middle")
        return "\n".join([below, self._turned(self.y.label)])

    def grid(self) -> str:
        """Level lines at the ticks of y, labelled, and the axis at the bottom."""
        lines = []
        for tick in self.y.ticks():
            at = self.up(tick)
            lines.append(f'<line class="grid" x1="{LEFT}" x2="{self.right}" y1="{at:.1f}" y2="{at:.1f}"/>')
            lines.append(words(LEFT - 6, at + 4, self.y.said(tick), "end"))
        bottom = self.bottom
        return "\n".join([*lines, f'<line class="axis" x1="{LEFT}" x2="{self.right}" y1="{bottom}" y2="{bottom}"/>'])

    def mark(self, at: float, text: str) -> str:
        """An upright line at a value of x with a word at its top."""
        place = self.across(at)
        line = f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" y2="{self.bottom}"/>'
        beyond = place > 0.75 * self.width  # there is no room for a word to the right of it
        return line + words(place - 3 if beyond else place + 3, TOP + 10, text, "end" if beyond else "start")

    def _turned(self, text: str) -> str:
        middle = (TOP + self.bottom) / 2
        place = f'x="11" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 11 {middle:.0f})"'
        return f"<text {place}>{escape(text)}</text>"


def drawing(name: str, size: tuple[int, int], body: Iterable[str], rows: int = 0) -> Svg:
    """The parts of a figure as one <svg>, with its name for those who hear it, and room for `rows` of names above."""
    label, (width, height) = escape(name), size
    raised = HEAD + ROW * max(0, rows - 1)  # the first row of names needs little, the others stand above it
    style = ' class="wide"' if width > WIDTH else ""
    box = f'viewBox="0 {-raised} {width} {height + raised}"'
    head = f'<svg{style} {box} role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg">'
    return Svg("\n".join([head, f"<title>{label}</title>", *(part for part in body if part), "</svg>"]))


def series_group(name: str, parts: Iterable[str]) -> str:
    """What belongs to one name: a page may make the others pale while one is pointed at."""
    return "\n".join([f'<g class="series" aria-label="{escape(name)}">', *(part for part in parts if part), "</g>"])


def legend(entries: Sequence[tuple[str, str]], width: int = WIDTH) -> tuple[list[str], int]:
    """For each (name, style of its line) its markup above the plot, and in how many rows; a single one needs none."""
    if len(entries) < 2:
        return ["" for _ in entries], 0
    places, left, row = [], float(LEFT), 0
    for name, _ in entries:
        if left > LEFT and left + _room(name) - 12 > width:
            left, row = float(LEFT), row + 1
        places.append((left, row))
        left += _room(name)
    named = zip(entries, places, strict=True)
    return [_named(_short(name), style, x, 3 - ROW * (row - r)) for (name, style), (x, r) in named], row + 1


def words(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    """A text at its baseline; `anchor` is start, middle or end."""
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def circle(x: float, y: float, radius: int, style: str, told: str) -> str:
    """A circle that tells `told` when it is pointed at."""
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{_told(told)}</circle>'


def rect(x: float, y: float, width: float, height: float, style: str, told: str) -> str:
    """A rectangle that tells `told` when it is pointed at."""
    size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(0.0, height):.1f}"'
    return f'<rect class="{style}" {size}>{_told(told)}</rect>'


def whisker(x: float, low: float, high: float, style: str) -> str:
    """An upright bar from `low` to `high` with short ends: a spread."""
    ends = f"M{x - 3:.1f},{high:.1f}h6m-3,0V{low:.1f}m-3,0h6"
    return f'<path class="whisker {style}" d="{ends}"/>'


def _told(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _room(name: str) -> float:
    return 30 + _LETTER * min(LONGEST, len(name))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"


def _named(name: str, style: str, left: float, y: float) -> str:
    line = f'<line class="{style}" x1="{left:.0f}" x2="{left + 14:.0f}" y1="{y:.0f}" y2="{y:.0f}"/>'
    return line + words(left + 18, y + 4, name, "start", "strong")
