"""The parts of a photo that a network looks at, and how the maps of these parts make one map of the photo.

Shares and arrays alone: how a part comes before a network is for those who ask it. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from plusx.engines.looks import VIEWS

GRID = 64  # places along each side of a finished map
RAMP = 0.2  # share of a part's side over which it fades in at its edges, so that no edge shows

Floats = npt.NDArray[np.float64]


class Window(NamedTuple):
    """A square part of a photo, as shares of its sides, mirrored or not."""

    top: float
    left: float
    share: float
    mirrored: bool

    def within(self, outer: Window) -> Window:
        """What is seen of the photo by who looks at this part of the part `outer`."""
        left = 1 - self.left - self.share if outer.mirrored else self.left
        top, left = outer.top + outer.share * self.top, outer.left + outer.share * left
        return Window(top, left, outer.share * self.share, self.mirrored != outer.mirrored)


def of_views(views: Iterable[str]) -> list[Window]:
    """What the test-time views look at."""
    asked = [VIEWS[name] for name in views]
    return [Window((1 - v.share) / 2, (1 - v.share) / 2, v.share, v.mirrored) for v in asked]


def sliding(share: float, places: int) -> list[Window]:
    """`places` x `places` windows of `share` of each side, evenly over the photo, every second one mirrored."""
    starts = np.linspace(0, 1 - share, places).tolist()
    corners = [(top, left) for top in starts for left in starts]
    return [Window(top, left, share, bool(i % 2)) for i, (top, left) in enumerate(corners)]


def joined(maps: Iterable[tuple[Window, npt.NDArray[np.floating[Any]]]]) -> Floats:
    """One map [n, GRID, GRID] of the photos: at every place the mean of the windows' maps [n, h, w] that hold it."""
    total, weight = np.zeros(()), np.full((), 1e-9)
    for window, values in maps:
        placed = values.astype(np.float64)
        down, up = _placing(window.top, window, placed.shape[1], mirrored=False)
        across, over = _placing(window.left, window, placed.shape[2], mirrored=window.mirrored)
        total = total + down @ placed @ across.T * (up[:, None] * over)
        weight = weight + up[:, None] * over
    return np.asarray(total / weight)


def resized(values: Floats, grid: int = GRID) -> Floats:
    """Maps [n, h, w] at [n, grid, grid]: means where they shrink, straight lines between where they grow."""
    down, across = (_scaling(cells, grid) for cells in values.shape[1:])
    return np.asarray(down @ values @ across.T)


def _scaling(cells: int, grid: int) -> Floats:
    """What `grid` places are made of, out of `cells`: weights [grid, cells] of an antialiased triangle filter."""
    centres = (np.arange(grid) + 0.5) * cells / grid - 0.5
    reach = max(1.0, cells / grid)
    weights = np.clip(1 - np.abs(centres[:, None] - np.arange(cells)) / reach, 0, None)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def _placing(start: float, window: Window, cells: int, *, mirrored: bool) -> tuple[Floats, Floats]:
    """Weights [GRID, cells] by which a map's row or column is drawn along the photo, and its say there, [GRID].

    Straight lines between the middles of cells, and the outermost values beyond: the mean of the map stays.
    """
    places = ((np.arange(GRID) + 0.5) / GRID - start) / window.share  # 0 to 1 within the window
    inside = np.minimum(places, 1 - places)
    say = np.clip(inside / RAMP, 0, 1) if window.share < 1 else np.ones(GRID)
    places = np.clip((1 - places if mirrored else places) * cells - 0.5, 0, cells - 1)
    distance = np.abs(places[:, None] - np.arange(cells))
    return np.clip(1 - distance, 0, None), say
