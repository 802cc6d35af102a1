"""Photos that are there twice: equal bytes, one picture saved in two ways, mirror images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plusx.data.near_duplicates import near_groups
from plusx.data.source import Listing
from plusx.data.survey import Survey

Places = tuple[int, ...]  # positions in the listing, ascending
Found = tuple[Places, ...]


@dataclass(frozen=True)
class Copies:
    """Groups of copies by what they cost: on two sides of the split, under two labels (both are possible), the rest."""

    across: Found
    conflicts: Found
    within: Found


def equal(listing: Listing, hashes: Sequence[str], good: npt.NDArray[np.int64]) -> Copies:
    """Groups of readable photos (positions `good`) with equal bytes."""
    _, number = np.unique(_words(hashes)[good], return_inverse=True)
    return _by_cost(listing, (tuple(good[group].tolist()) for group in _together(number)))


def near(listing: Listing, found: Survey, hashes: Sequence[str]) -> tuple[Copies, Found]:
    """Groups of photos that show one picture in files that differ, and groups that need a mirror for that."""
    good = found.good
    thumbs = np.ascontiguousarray(found.rows["thumbnail"][good])
    upright, either = near_groups(thumbs), near_groups(thumbs, mirrored=True)
    groups = (tuple(good[group].tolist()) for group in _together(upright))
    near_ones = _by_cost(listing, (group for group in groups if len({hashes[i] for i in group}) > 1))
    mirrored = (group for group in _together(either) if len(np.unique(upright[group])) > 1)
    return near_ones, tuple(tuple(good[group].tolist()) for group in mirrored)


def _words(hashes: Sequence[str]) -> npt.NDArray[np.uint64]:
    """The first 64 bits of every SHA-256: two photos of a million share them once in 37 million such sets."""
    return np.array([int(h[:16], 16) for h in hashes], dtype=np.uint64)


def _together(number: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Positions that share a number, ascending, for every number that is there twice; the first group first."""
    order = np.argsort(number, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
    yield from sorted((run for run in runs if len(run) > 1), key=lambda run: int(run[0]))


def _by_cost(listing: Listing, groups: Iterator[Places]) -> Copies:
    across, conflicts, within = list[Places](), list[Places](), list[Places]()
    for group in groups:
        photos = [listing.photos[i] for i in group]
        torn = len({photo.label for photo in photos}) > 1
        parted = len({photo.split for photo in photos}) > 1
        across += [group] * parted
        conflicts += [group] * torn
        within += [group] * (not torn and not parted)
    return Copies(tuple(across), tuple(conflicts), tuple(within))
