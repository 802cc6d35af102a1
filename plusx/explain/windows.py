"""The parts of a photo that a network looks at, and how the maps of these parts make one map of the photo."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plusx.data import geometry
from plusx.engines.views import VIEWS

GRID = 64  # places along each side of a finished map
RAMP = 0.2  # share of a part's side over which it fades in at its edges, so that no edge shows

Floats = npt.NDArray[np.float64]


class Window(NamedTuple):
    """A square part of a photo, as shares of its sides, mirrored or not."""

    top: float
    left: float
    share: float
    mirrored: bool


def of_views(views: Iterable[str]) -> list[Window]:
    """What the test-time views look at."""
    asked = [VIEWS[name] for name in views]
    return [Window((1 - v.share) / 2, (1 - v.share) / 2, v.share, v.mirrored) for v in asked]


def sliding(share: float, places: int) -> list[Window]:
    """`places` x `places` windows of `share` of each side, evenly over the photo, every second one mirrored."""
    starts = np.linspace(0, 1 - share, places).tolist()
    corners = [(top, left) for top in starts for left in starts]
    return [Window(top, left, share, bool(i % 2)) for i, (top, left) in enumerate(corners)]


def shown(images: Tensor, window: Window, size: int) -> Tensor:
    """The part of `images` [n, 3, S, S] in the window, at `size` px: [n, 3, size, size], float32 of bytes."""
    top, left, share = (np.array([value]) for value in window[:3])
    part = geometry.Window(top, left, share, share, np.array([window.mirrored]))
    dtype = images.dtype if images.is_floating_point() else torch.float32
    return geometry.resample(images, part, size, dtype)


def joined(maps: Iterable[tuple[Window, Tensor]]) -> Floats:
    """One map [n, GRID, GRID] of the photos: at every place the mean of the windows' maps [n, h, w] that hold it."""
    total, weight = np.zeros(()), np.full((), 1e-9)
    for window, values in maps:
        placed = values.cpu().double().numpy()  # some devices have no float64
        down, up = _placing(window.top, window, placed.shape[1], mirrored=False)
        across, over = _placing(window.left, window, placed.shape[2], mirrored=window.mirrored)
        total = total + down @ placed @ across.T * (up[:, None] * over)
        weight = weight + up[:, None] * over
    return np.asarray(total / weight)


def resized(values: Floats, grid: int = GRID) -> Floats:
    """Maps [n, h, w] at [n, grid, grid]: means where they shrink, straight lines between where they grow."""
    images = torch.from_numpy(values)[:, None]
    small = torch.nn.functional.interpolate(images, size=(grid, grid), mode="bilinear", antialias=True)
    return np.asarray(small[:, 0].numpy())


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
