"""Contours: the same lines and the same areas as contourpy draws, on smooth, rough and saddled functions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from plusx.report.contours import Grid, above, lines

contourpy = pytest.importorskip("contourpy")

X, Y = np.linspace(-1, 1, 13), np.linspace(-2, 1, 9)
RANDOM = np.random.default_rng(5)
FUNCTIONS = {
    "bowl": X**2 + Y[:, None] ** 2,
    "saddles": np.sin(5 * X) * np.cos(4 * Y[:, None]),
    "noise": RANDOM.normal(size=(9, 13)),
    "steps": RANDOM.integers(0, 3, size=(9, 13)).astype(float),
}


def length(some: list[list[tuple[float, float]]]) -> float:
    return sum(math.dist(a, b) for line in some for a, b in itertools.pairwise(line))


def area(outline: np.ndarray | list[tuple[float, float]]) -> float:
    x, y = np.asarray(outline, dtype=float).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("level", [-0.3, 0.4, 1.1])
def test_lines_are_those_of_contourpy(name: str, level: float) -> None:
    values = FUNCTIONS[name]
    found = lines(Grid(list(X), list(Y), values), level)
    expected = contourpy.contour_generator(X, Y, values, name="serial").lines(level)
    points = {tuple(np.round(p, 9)) for line in found for p in line}
    assert points == {tuple(np.round(p, 9)) for line in expected for p in line}
    assert length(found) == pytest.approx(length([list(map(tuple, line)) for line in expected]))
    closed = [line for line in found if line[0] == line[-1]]
    assert len(closed) == sum(np.allclose(line[0], line[-1]) for line in expected)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("level", [-0.3, 0.4, 1.0, 1.1])  # steps have 1.0 itself, which is not above
def test_the_area_above_a_level_is_that_of_contourpy(name: str, level: float) -> None:
    values = FUNCTIONS[name]
    generator = contourpy.contour_generator(X, Y, values, name="serial", fill_type="OuterOffset")
    polygons, offsets = generator.filled(level, values.max() + 1)
    expected = 0.0
    for points, where in zip(polygons, offsets, strict=True):
        rings = [area(points[a:b]) for a, b in itertools.pairwise(where)]
        expected += rings[0] - sum(rings[1:])
    assert sum(map(area, above(Grid(list(X), list(Y), values), level))) == pytest.approx(expected)


def test_a_function_that_never_reaches_a_level_has_no_line_and_one_above_it_is_all_area() -> None:
    grid = Grid([0, 1, 3], [0, 2], np.zeros((2, 3)))
    assert lines(grid, 1.0) == []
    assert above(grid, 1.0) == []
    assert above(grid, -1.0) == [[(0, 0), (3, 0), (3, 2), (0, 2)]]


def test_what_is_not_finite_counts_as_the_highest() -> None:
    grid = Grid([0, 1], [0, 1], [[0.0, math.inf], [math.nan, 2.0]])
    assert grid.heights.tolist() == [[0.0, 2.0], [2.0, 2.0]]
    assert Grid([0, 1], [0, 1], [[math.nan] * 2] * 2).heights.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_coarser_grid_has_the_same_corners() -> None:
    grid = Grid(list(X), list(Y), FUNCTIONS["noise"]).every(4)
    assert (list(grid.x), list(grid.y)) == (list(X[::4]), list(Y[::4]))
    assert grid.heights[-1, -1] == FUNCTIONS["noise"][-1, -1]
