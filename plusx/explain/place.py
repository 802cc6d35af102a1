"""Where the evidence of a map lies, in figures and in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]

_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "middle", "right")


@dataclass(frozen=True)
class Place:
    """`area`: the least share of the map that holds half of what speaks for the class; `x` and `y`: its middle, as
    shares of the photo's width and height. `area` is None where nothing speaks for the class."""

    area: float | None
    x: float
    y: float

    def words(self) -> str:
        """The place in a few words."""
        if self.area is None:
            return "nothing in this photo speaks for the class"
        row, column = (names[min(2, int(3 * at))] for names, at in ((_ROWS, self.y), (_COLUMNS, self.x)))
        where = "middle" if row == column else f"{row} {column}"
        return f"{where}: {100 * self.area:.0f} % of the area holds half of the evidence"


def half(values: Floats) -> Flags:
    """Which places of a map [h, w] hold half of what is above zero, in the least area."""
    positive = np.maximum(values, 0).ravel()
    order = np.argsort(-positive, kind="stable")
    sums = np.cumsum(positive[order])
    count = int(np.searchsorted(sums, sums[-1] / 2)) + 1 if sums[-1] > 0 else 0
    chosen = np.zeros(len(positive), dtype=bool)
    chosen[order[:count]] = True
    return chosen.reshape(values.shape)


def place(values: Floats, box: Box, width: int, height: int) -> Place:
    """The place of the evidence of a map [h, w] that lies over `box` (left, top, right, bottom) of a photo."""
    chosen = half(values)
    if not chosen.any():
        return Place(None, 0.5, 0.5)
    rows, columns = (np.nonzero(chosen)[axis].mean() + 0.5 for axis in (0, 1))
    left, top, right, bottom = box
    x = (left + (right - left) * columns / values.shape[1]) / width
    y = (top + (bottom - top) * rows / values.shape[0]) / height
    return Place(float(chosen.mean()), float(x), float(y))
