"""Occlusion, which asks nothing of a network but answers: by how much a covered place lowers a probability."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Answer = Callable[[Pixels], npt.NDArray[np.float32]]

SHARE = 0.25  # side of the square, as a share of the photo's
STEPS = 8  # the square moves by an eighth of the photo
BATCH = 32


def occlusion(answer: Answer, pixels: Pixels, label: int, fill: Sequence[int], side: int, stride: int) -> Floats:
    """The map [S, S] of pixels [S, S, 3]: the drop of the probability of `label` when a square is covered with `fill`.

    Squares of `side` px lie `stride` px apart, the last ones at the edge; a place has the mean of the squares that
    cover it (Zeiler and Fergus 2013, arXiv 1311.2901, section 4.2, with the drop in place of the probability).
    """
    size = len(pixels)
    starts = sorted({*range(0, size - side + 1, stride), size - side})
    corners = [(top, left) for top in starts for left in starts]
    whole = float(answer(pixels[None])[0, label])
    total, times = np.zeros((size, size)), np.zeros((size, size))
    for first in range(0, len(corners), BATCH):
        some = corners[first : first + BATCH]
        for (top, left), row in zip(some, answer(_covered(pixels, some, side, fill)), strict=True):
            square = np.s_[top : top + side, left : left + side]
            total[square] += whole - float(row[label])
            times[square] += 1
    return np.asarray(total / np.maximum(times, 1))


def _covered(pixels: Pixels, corners: Sequence[tuple[int, int]], side: int, fill: Sequence[int]) -> Pixels:
    """Copies of a photo, each with one square covered: [n, S, S, 3]."""
    copies = np.repeat(pixels[None], len(corners), axis=0)
    for copy, (top, left) in zip(copies, corners, strict=True):
        copy[top : top + side, left : left + side] = fill
    return copies
