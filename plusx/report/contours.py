"""Where a function on a grid has a given value: lines of one height, and the area above it. Numbers in, numbers out.

Marching squares (Lorensen and Cline 1987, in two dimensions) with linear interpolation along the sides of the cells.
Of the two ways through a saddle the mean of the four corners decides, as in matplotlib.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Place = tuple[float, float]
_Side = tuple[int, int, int]  # row, column, and 0 for the side towards the next column or 1 for the next row


@dataclass(frozen=True)
class Grid:
    """Values of a function: `values[j][i]` at (x[i], y[j]); both rising. What is not finite counts as the highest."""

    x: Sequence[float]
    y: Sequence[float]
    values: Sequence[Sequence[float]] | npt.NDArray[np.floating]

    @cached_property
    def heights(self) -> npt.NDArray[np.float64]:
        """Finite values [rows, columns]."""
        values = np.asarray(self.values, dtype=np.float64)
        finite = values[np.isfinite(values)]
        return np.where(np.isfinite(values), values, finite.max() if finite.size else 0.0)

    def every(self, step: int) -> Grid:
        """Every `step`-th row and column: fewer bytes when drawn."""
        return Grid(self.x[::step], self.y[::step], self.heights[::step, ::step])


def lines(grid: Grid, level: float) -> list[list[Place]]:
    """Lines along which the function is `level`; a closed one ends where it begins."""
    joined: dict[_Side, list[_Side]] = {}
    for j, i in _cells_cut(grid, level):
        for first, second in _pairs(grid, level, j, i):
            joined.setdefault(first, []).append(second)
            joined.setdefault(second, []).append(first)
    found = []
    ends = [side for side, others in joined.items() if len(others) == 1]
    for start in (*ends, *joined):
        if joined[start]:
            found.append([_crossing(grid, level, side) for side in _walk(joined, start)])
    return found


def above(grid: Grid, level: float) -> list[list[Place]]:
    """Polygons that together are the area where the function is above `level`; whole cells of a row are one."""
    return [*_whole(grid, level), *_partial(grid, level)]


def _walk(joined: dict[_Side, list[_Side]], start: _Side) -> list[_Side]:
    """From side to side as long as there is a next; what was walked is taken out."""
    way = [start]
    while joined[way[-1]]:
        here = way[-1]
        following = joined[here].pop()
        joined[following].remove(here)
        way.append(following)
    return way


def _cells_cut(grid: Grid, level: float) -> Iterator[tuple[int, int]]:
    high = grid.heights > level
    count = high[:-1, :-1].astype(int) + high[1:, :-1] + high[:-1, 1:] + high[1:, 1:]
    yield from ((int(j), int(i)) for j, i in np.argwhere((count > 0) & (count < 4)))


def _corners(j: int, i: int) -> list[tuple[int, int]]:
    return [(j, i), (j, i + 1), (j + 1, i + 1), (j + 1, i)]  # around the cell


def _sides(j: int, i: int) -> list[_Side]:
    return [(j, i, 0), (j, i + 1, 1), (j + 1, i, 0), (j, i, 1)]  # the k-th from the k-th corner to the next


def _pairs(grid: Grid, level: float, j: int, i: int) -> list[tuple[_Side, _Side]]:
    """Which sides of a cell the line joins."""
    high = [bool(grid.heights[corner] > level) for corner in _corners(j, i)]
    cut = [side for k, side in enumerate(_sides(j, i)) if high[k] != high[(k + 1) % 4]]
    if len(cut) == 2:
        return [(cut[0], cut[1])]
    around_first = _middle_is_high(grid, level, j, i) != high[0]  # the line goes round the corners unlike the middle
    shift = 3 if around_first else 0
    a, b, c, d = (cut[(k + shift) % 4] for k in range(4))
    return [(a, b), (c, d)]


def _middle_is_high(grid: Grid, level: float, j: int, i: int) -> bool:
    return bool(grid.heights[j : j + 2, i : i + 2].mean() > level)


def _crossing(grid: Grid, level: float, side: _Side) -> Place:
    j, i, down = side
    (j2, i2) = (j + 1, i) if down else (j, i + 1)
    first, second = grid.heights[j, i], grid.heights[j2, i2]
    t = float((level - first) / (second - first))
    return grid.x[i] + t * (grid.x[i2] - grid.x[i]), grid.y[j] + t * (grid.y[j2] - grid.y[j])


def _whole(grid: Grid, level: float) -> Iterator[list[Place]]:
    high = grid.heights > level
    whole = high[:-1, :-1] & high[1:, :-1] & high[:-1, 1:] & high[1:, 1:]
    for j, row in enumerate(whole):
        edges = np.flatnonzero(np.diff(np.concatenate(([False], row, [False])).astype(int)))
        for left, right in zip(edges[::2], edges[1::2], strict=True):
            x0, x1, y0, y1 = grid.x[left], grid.x[right], grid.y[j], grid.y[j + 1]
            yield [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _partial(grid: Grid, level: float) -> Iterator[list[Place]]:
    for j, i in _cells_cut(grid, level):
        corners, sides = _corners(j, i), _sides(j, i)
        high = [bool(grid.heights[corner] > level) for corner in corners]
        if high[0] == high[2] and high[1] == high[3] and not _middle_is_high(grid, level, j, i):
            for k in (k for k in range(4) if high[k]):
                row, column = corners[k]
                near = [_crossing(grid, level, side) for side in (sides[k - 1], sides[k])]
                yield [near[0], (grid.x[column], grid.y[row]), near[1]]
            continue
        outline: list[Place] = []
        for k, (row, column) in enumerate(corners):
            outline += [(grid.x[column], grid.y[row])] * high[k]
            if high[k] != high[(k + 1) % 4]:
                outline.append(_crossing(grid, level, sides[k]))
        yield outline
