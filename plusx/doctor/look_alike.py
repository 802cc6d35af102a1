"""Pairs of photos that a trained network sees as nearly one: crops and larger changes, which no thumbnail shows.

Features of a network with few classes lie along few directions, by which all cats are alike. They are whitened first,
so that every direction counts the same: of one-minute features of 3,000 photos of cats and dogs, photos and their
crops by 10 % have a median cosine of 0.70 then, and one pair of other photos in ten thousand reaches 0.50. So
most of what is listed of a large set is only alike: white frames, one kind of fence, one blanket.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ALIKE = 0.6  # cosine of two photos' whitened features
MOST_PAIRS = 200
MOST_PHOTOS = 100_000  # every photo is compared with every other: minutes for so many
FEWEST_PHOTOS = 100  # with fewer, directions cannot be told from chance
_DIRECTIONS, _PHOTOS_A_DIRECTION = 128, 8
_TOGETHER = 1024

Features = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
Pair = tuple[int, int, float]  # two positions, the smaller first, and their cosine


def look_alikes(features: Features, groups: Places, least: float = ALIKE, most: int = MOST_PAIRS) -> list[Pair]:
    """The likest pairs among features [n, D], at most `most`, the likest first; none within one group ([n])."""
    if len(features) < FEWEST_PHOTOS:
        return []
    unit = _whitened(features)
    left, right = np.empty(0, np.int64), np.empty(0, np.int64)
    cosine = np.empty(0, np.float32)
    for start in range(0, len(unit), _TOGETHER):
        cosines = unit[start : start + _TOGETHER] @ unit[start:].T
        i, j = np.nonzero(np.triu(cosines >= least, 1))
        apart = groups[start + i] != groups[start + j]
        i, j = i[apart], j[apart]
        left, right = np.concatenate([left, start + i]), np.concatenate([right, start + j])
        cosine = np.concatenate([cosine, cosines[i, j]])
        best = np.argsort(-cosine, kind="stable")[:most]
        left, right, cosine = left[best], right[best], cosine[best]
    return list(zip(left.tolist(), right.tolist(), np.minimum(cosine, 1).tolist(), strict=True))


def _whitened(features: Features) -> Features:
    """Rows of length 1 in the directions along which features vary most, each scaled to a variance of 1."""
    centred = features - features.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(centred.T.astype(np.float64)).reshape(features.shape[1], -1))
    count = min(_DIRECTIONS, len(features) // _PHOTOS_A_DIRECTION)
    telling = np.flatnonzero(variances > variances.max() * 1e-9)[-count:]
    values = centred @ (directions[:, telling] / np.sqrt(variances[telling])).astype(np.float32)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, np.finfo(np.float32).tiny))
