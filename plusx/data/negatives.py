"""Photos that show nothing of any class, made from training photos: what "none of these" is learned from.

A photo is cut where the network sees least, and four such quarters make a mosaic, or one of them a pattern of mirror
images. So that seams and the size of things give nothing away, mosaics of which one quarter is cut where the network
sees most are made as well, and count as known. What is drawn is keyed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plusx import keyed

Pixels = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]

QUIET = 0.5  # share of the photos whose quietest quarter is quiet enough to show nothing


@dataclass(frozen=True)
class Quarters:
    """Of n photos [n, S, S, 3] the square of half their side where activity is least, and where it is largest.

    Both uint8 [n, S/2, S/2, 3]; `activity` [n] is that of the quiet ones.
    """

    quiet: Pixels
    busy: Pixels
    activity: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Made:
    """Made photos uint8 [m, S, S, 3]: those that show nothing of any class, and mosaics that do."""

    nothing: Pixels
    something: Pixels


def quarters(photos: Pixels, activity: Maps) -> Quarters:
    """Cut photos [n, S, S, 3] by what the network sees where, [n, h, w]."""
    sums = _window_sums(activity.astype(np.float64))  # [n, a, b]: of every place of the window
    flat = sums.reshape(len(sums), -1)
    quiet, busy = (_cut(photos, place, sums.shape[1:]) for place in (flat.argmin(1), flat.argmax(1)))
    return Quarters(quiet, busy, flat.min(axis=1))


def made(cuts: Sequence[Quarters], seed: int) -> Made:
    """Mosaics and patterns of quarters: as many with something as there are photos, and as many with nothing."""
    cut = Quarters(*(np.concatenate(parts) for parts in zip(*(vars(c).values() for c in cuts), strict=True)))
    n = len(cut.activity)
    still = np.argsort(cut.activity, kind="stable")[: max(1, round(QUIET * n))]
    drawn = still[_draw(seed, n, "mosaic", 8, len(still))]  # [n, 8]: four quarters of each kind of mosaic
    nothing = [cut.quiet[drawn[:, i]] for i in range(4)]
    place = _draw(seed, n, "place", 1, 4)  # [n, 1]: where the one that shows something lies
    something = [np.where(_tall(place[:, 0] == i), cut.busy, cut.quiet[drawn[:, 4 + i]]) for i in range(4)]
    half = n // 2
    patterns = _patterned(cut.quiet[still[_draw(seed, n - half, "pattern", 1, len(still))[:, 0]]])
    return Made(np.concatenate([_mosaic(nothing)[:half], patterns]), _mosaic(something))


def shuffled(photos: Pixels, seed: int, grid: int = 4) -> Pixels:
    """Photos [n, S, S, 3] cut into grid x grid patches, shuffled: to test on, not to learn from."""
    side = photos.shape[1] // grid
    whole = photos[:, : side * grid, : side * grid]
    patches = whole.reshape(len(photos), grid, side, grid, side, 3).swapaxes(2, 3)
    patches = patches.reshape(len(photos), grid * grid, side, side, 3)
    order = np.argsort(keyed.uniform(seed, 0, np.arange(len(photos)), "shuffled", grid * grid), axis=1)
    moved = patches[np.arange(len(photos))[:, None], order].reshape(len(photos), grid, grid, side, side, 3)
    out = photos.copy()
    out[:, : side * grid, : side * grid] = moved.swapaxes(2, 3).reshape(whole.shape)
    return out


def _window_sums(maps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sums over windows of half the maps' sides, rounded up: [n, h, w] -> [n, places down, places across]."""
    height, width = (-(-side // 2) for side in maps.shape[1:])
    total = np.pad(maps, ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)
    rows = total[:, height:] - total[:, :-height]
    sums: npt.NDArray[np.float64] = rows[:, :, width:] - rows[:, :, :-width]
    return sums


def _cut(photos: Pixels, places: Indices, grid: tuple[int, ...]) -> Pixels:
    """The window of half the side at each photo's place of a grid of places, uint8 [n, S/2, S/2, 3]."""
    side = photos.shape[1] // 2
    down, across = np.divmod(places, grid[1])
    corners = [
        np.round(p * (photos.shape[1] - side) / max(1, g - 1)).astype(int)
        for p, g in zip((down, across), grid, strict=True)
    ]
    return np.stack([photo[y : y + side, x : x + side] for photo, y, x in zip(photos, *corners, strict=True)])


def _draw(seed: int, n: int, purpose: str, count: int, below: int) -> Indices:
    """Whole numbers below `below`, [n, count]."""
    return (keyed.uniform(seed, 0, np.arange(n), f"negatives-{purpose}", count) * below).astype(np.int64)


def _tall(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return flags[:, None, None, None]


def _mosaic(four: list[Pixels]) -> Pixels:
    """Four squares in two rows: [n, s, s, 3] each -> [n, 2s, 2s, 3]."""
    return np.concatenate([np.concatenate(four[:2], axis=2), np.concatenate(four[2:], axis=2)], axis=1)


def _patterned(square: Pixels) -> Pixels:
    """A square and its three mirror images."""
    return _mosaic([square, square[:, :, ::-1], square[:, ::-1], square[:, ::-1, ::-1]])
