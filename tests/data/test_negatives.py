"""Made photos: cut where they should be, put together without a trace of which is which, the same for a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from plusx.data.negatives import Quarters, made, quarters, shuffled

SIDE = 16


def marked(n: int, place: tuple[int, int]) -> tuple[Any, Any]:
    """Dark photos with one light quarter at `place` (row, column of 2 x 2), and maps that are active there."""
    photos, activity = np.full((n, SIDE, SIDE, 3), 10, np.uint8), np.zeros((n, 4, 4))
    y, x = (8 * p for p in place)
    photos[:, y : y + 8, x : x + 8] = 200
    activity[:, y // 4 : y // 4 + 2, x // 4 : x // 4 + 2] = 1.0
    return photos, activity


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_busy_quarter_is_where_the_network_is_active_and_the_quiet_one_is_not(place: tuple[int, int]) -> None:
    cut = quarters(*marked(3, place))
    assert cut.busy.shape == cut.quiet.shape == (3, 8, 8, 3)
    assert (cut.busy == 200).all()
    assert (cut.quiet == 10).all()
    assert cut.activity.tolist() == [0.0, 0.0, 0.0]


def test_windows_of_an_uneven_map_stay_inside_the_photo() -> None:
    photos = np.arange(2 * 15 * 15 * 3).reshape(2, 15, 15, 3).astype(np.uint8)
    cut = quarters(photos, np.random.default_rng(0).random((2, 3, 5)))
    assert cut.quiet.shape == (2, 7, 7, 3)
    assert quarters(photos, np.ones((2, 1, 1))).busy.shape == (2, 7, 7, 3)


def numbered(n: int) -> Quarters:
    """Quiet quarters hold their number, busy ones 100 more; the even ones are quiet indeed."""
    numbers = np.arange(n, dtype=np.uint8)[:, None, None, None]
    quiet = np.broadcast_to(numbers, (n, 4, 4, 3))
    return Quarters(quiet.copy(), quiet + 100, np.arange(n) % 2.0)


def test_nothing_is_made_of_the_quieter_half_and_something_has_one_busy_quarter_each() -> None:
    photos = made([numbered(40)], seed=3)
    assert photos.nothing.shape == photos.something.shape == (40, 8, 8, 3)
    assert set(np.unique(photos.nothing)) <= set(range(0, 40, 2))
    corners = photos.something[:, [0, 0, 4, 4], [0, 4, 0, 4], 0]
    assert ((corners >= 100).sum(axis=1) == 1).all()
    assert sorted(corners[corners >= 100]) == list(range(100, 140))
    assert len(set((corners >= 100).argmax(axis=1))) == 4  # in any of the four places


def test_patterns_are_mirror_images_of_one_quarter() -> None:
    random = np.random.default_rng(0).integers(0, 255, (6, 4, 4, 3)).astype(np.uint8)
    pattern = made([Quarters(random, random, np.zeros(6))], seed=0).nothing[3:]
    assert np.array_equal(pattern, pattern[:, ::-1])
    assert np.array_equal(pattern, pattern[:, :, ::-1])


def test_what_is_made_depends_on_the_seed_and_not_on_how_the_photos_came() -> None:
    whole = numbered(30)
    parts = [Quarters(*(part[cut] for part in vars(whole).values())) for cut in (slice(0, 7), slice(7, 30))]
    for name in ("nothing", "something"):
        assert np.array_equal(getattr(made([whole], 1), name), getattr(made(parts, 1), name))
    assert not np.array_equal(made([whole], 1).nothing, made([whole], 2).nothing)


def test_shuffling_moves_patches_and_loses_none() -> None:
    photos = np.random.default_rng(0).integers(0, 255, (5, 18, 18, 3)).astype(np.uint8)
    moved = shuffled(photos, seed=0)
    assert not np.array_equal(moved, photos)
    assert np.array_equal(moved[:, 16:], photos[:, 16:])  # what is left over stays
    for before, after in zip(photos, moved, strict=True):
        corners = [(y, x) for y in range(0, 16, 4) for x in range(0, 16, 4)]
        patches, others = ([p[y : y + 4, x : x + 4].tobytes() for y, x in corners] for p in (before, after))
        assert sorted(patches) == sorted(others)
        assert patches != others
