"""The tests of maps: right maps pass, wrong ones are caught; and where a map's evidence lies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from plusx.engines.torch_engine import Answers
from plusx.explain import overlay as overlays
from plusx.explain import sanity
from plusx.explain.place import half, place
from plusx.explain.sanity import Deletion, Likeness, Sanity
from plusx.images.preprocess import Preprocess

SIDE = 32


class Brightness:
    """An engine whose probability of class 1 is the share of the photo's light squares that are still to be seen."""

    def many(self, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        for key, pixels in batches:
            share = (pixels.astype(float) > 200).mean((1, 2, 3)) * 16
            yield key, Answers(np.stack([1 - share, share], 1))


def photo_and_map(row: int, column: int) -> tuple[Any, Any]:
    """A dark photo with one light quarter of a quarter, and a map that marks exactly that."""
    photo, marks = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((64, 64))
    photo[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 255
    marks[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] = 1
    return photo, marks


def test_deleting_what_a_right_map_marks_is_fastest_and_what_it_marks_least_slowest() -> None:
    pairs = [photo_and_map(row, column) for row in (1, 2) for column in (1, 2)]
    photos, maps = (np.stack(values) for values in zip(*pairs, strict=True))
    found = sanity.deletion(Brightness(), photos, np.ones(4, dtype=np.int64), maps)  # type: ignore[arg-type]
    assert found.elsewhere is not None
    assert (found.marked < found.random).all()
    assert (found.random < found.least).all()
    assert (found.marked < found.elsewhere).all()
    assert found.marked.max() == pytest.approx(0.1, abs=0.02)  # gone after the first of five steps
    upside_down = sanity.deletion(Brightness(), photos, np.ones(4, dtype=np.int64), -maps)  # type: ignore[arg-type]
    assert (upside_down.marked > upside_down.random).all()


def test_random_orders_depend_on_the_photo_and_a_number_and_nothing_else() -> None:
    photos = np.stack([photo_and_map(0, 0)[0], photo_and_map(1, 1)[0]])
    first = sanity.random_orders(photos, 0)
    np.testing.assert_array_equal(sanity.random_orders(photos[::-1], 0)[::-1], first)
    assert (np.sort(first, axis=1) == np.arange(64)).all()
    assert (first[0] != first[1]).any()
    assert (sanity.random_orders(photos, 1) != first).any()


def test_a_covered_photo_loses_the_squares_of_its_order() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    copies = sanity.covered(photo, np.arange(64))
    assert len(copies) == sanity.LEVELS - 1
    np.testing.assert_array_equal(copies[-1][-4:], photo[-4:])  # four fifths from the top are covered
    np.testing.assert_array_equal(copies[-1][:24], sanity.blurred(photo)[:24])
    np.testing.assert_array_equal(copies[0][8:], photo[8:])


def test_likeness_is_spearmans_and_one_for_equal_maps() -> None:
    random = np.random.default_rng(1)
    maps, others = random.normal(size=(3, 16, 16)), random.normal(size=(3, 16, 16))
    found = sanity.likeness(maps, others)
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(maps, others, strict=True)]
    np.testing.assert_allclose(found.rank, expected, atol=1e-9)
    same = sanity.likeness(maps, 3 * maps + 5)
    np.testing.assert_allclose(same.rank, 1)
    np.testing.assert_allclose(same.similarity, 1)
    assert abs(found.similarity).max() < 0.3
    flat = sanity.likeness(maps, np.zeros_like(maps))
    assert flat.rank.tolist() == [0, 0, 0]


def test_a_map_that_fails_a_test_says_which() -> None:
    def tested(marked: float, rank: float) -> list[str]:
        figures = Deletion(np.array([marked]), np.array([0.9]), np.array([0.7]), None)
        return Sanity(figures, Likeness(np.array([rank]), np.array([0.0]))).warnings(0)

    assert tested(0.5, 0.1) == []
    assert tested(0.71, 0.1) == [
        "covering what this map marks lowers the probability no faster than covering at random "
        "(area 0.710 against 0.700): do not rely on it"
    ]
    assert len(tested(0.8, -0.8)) == 2
    assert "networks that have learned nothing give nearly the same map" in tested(0.5, 0.6)[0]


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        (0, 0, "upper left"),
        (3, 3, "lower right"),
        (0, 3, "upper right"),
        (1.5, 1.5, "middle"),
        (3, 1.5, "lower middle"),
    ],
)
def test_the_place_of_the_evidence_is_told_in_words(row: float, column: float, words: str) -> None:
    marks, at = np.full((60, 60), -0.5), (np.arange(60) + 0.5) / 60
    bump = np.maximum(0, 0.1 - abs(at - row / 3))[:, None] * np.maximum(0, 0.1 - abs(at - column / 3))
    found = place(np.where(bump > 0, bump, marks), (0, 0, 100, 100), 100, 100)
    assert found.words().startswith(f"{words}: ")
    assert found.words().endswith(" % of the area holds half of the evidence")
    assert found.area is not None
    assert found.area < 0.02
    marks[:15, :15] = 1
    assert half(marks).sum() == 113  # half of 225, rounded up
    assert place(-abs(marks), (0, 0, 9, 9), 9, 9).words() == "nothing in this photo speaks for the class"


def test_the_place_counts_in_the_whole_photo_of_which_the_network_saw_the_middle() -> None:
    marks = np.zeros((60, 60))
    marks[:, :6] = 1
    assert place(marks, (200, 0, 300, 100), 500, 100).x == pytest.approx(0.41, abs=0.01)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (37, 41), (1200, 900)])
def test_what_the_network_saw_is_the_square_that_preprocess_keeps(size: tuple[int, int]) -> None:
    preprocess = Preprocess(64, 48)
    left, top, right, bottom = preprocess.seen(*size)
    assert right - left == pytest.approx(0.75 * min(size), rel=0.02)
    assert left + right == pytest.approx(size[0], abs=0.03 * max(size))
    assert top + bottom == pytest.approx(size[1], abs=0.03 * max(size))
    marked = Image.new("RGB", size)
    marked.paste((255, 255, 255), (round(left), round(top), round(right), round(bottom)))
    assert preprocess(marked).mean() > 245


def test_an_overlay_dims_what_was_not_seen_and_is_lightest_where_the_evidence_is() -> None:
    photo, marks = Image.new("RGB", (300, 200), (120, 120, 120)), np.zeros((64, 64))
    marks[8:24, 40:56] = 1
    drawn = overlays.overlay(photo, (50, 0, 250, 200), marks, 300)
    assert drawn.size == (300, 200)
    grey = np.asarray(drawn.convert("L")).astype(int)
    assert grey[100, 10] < 50
    assert grey[100, 80] == 120
    assert grey[50, 200] > 160
    assert overlays.overlay(Image.new("RGB", (3000, 2000)), (500, 0, 2500, 2000), marks).size == (800, 533)


def test_colours_grow_lighter_with_the_evidence_also_for_those_who_see_no_red() -> None:
    ramp = np.linspace(0, 1, 50)[None]
    colours = overlays._coloured(np.full((1, 50, 3), 90.0), ramp)[0, 20:]  # where the photo shows through, it decides
    for weights in ((0.299, 0.587, 0.114), (0.0, 0.8, 0.2)):
        assert (np.diff(colours @ np.array(weights)) > 0).all()


def test_a_sheet_holds_long_names_and_five_neighbours() -> None:
    photo = Image.new("RGB", (64, 48), (10, 90, 160))
    near = [(photo, f"cat, 0.9{i}: {'x' * 60}.jpg") for i in range(5)]
    page = overlays.sheet(photo, overlays.overlay(photo, (8, 0, 56, 48), np.eye(64), 480), ["a" * 400, "b"], near)
    assert page.width < 1100
    assert page.height > 650
