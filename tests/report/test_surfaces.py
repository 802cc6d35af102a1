"""Surfaces, contours and heat maps: everything inside its frame, far before near, numbers that can be read."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from plusx.report.axes import Axis
from plusx.report.contours import Grid
from plusx.report.moving import AZIMUTHS, turning_surface
from plusx.report.page import TEMPLATES
from plusx.report.surfaces import SHADES, SURFACE, View, contour_plot, heat_map, surface

STEPS = [float(v) for v in np.linspace(-1, 1, 25)]
X, Y, Z = Axis("one", -1, 1), Axis("other", -1, 1), Axis("loss", 0.1, 10, log=True)
BOWL = Grid(STEPS, STEPS, [[0.1 + 5 * (x * x + y * y) for x in STEPS] for y in STEPS])


def classes(svg: str) -> list[str]:
    return [node.attrib.get("class", "") for node in ElementTree.fromstring(svg).iter()]


def corners(path: str) -> list[tuple[float, float]]:
    """The corners of a closed path of differences, as a browser reads it."""
    start, steps = re.fullmatch(r"M(.*)l(.*)z", path).groups()
    x, y = map(float, start.split())
    places = [(x, y)]
    numbers = list(map(float, re.findall(r"-?[\d.]+(?:e-?\d+)?", steps)))
    for dx, dy in zip(numbers[::2], numbers[1::2], strict=True):
        x, y = x + dx, y + dy
        places.append((x, y))
    return places


@pytest.mark.parametrize("azimuth", [-150, -50, 0, 30, 90, 200])
def test_a_surface_is_inside_its_frame_from_every_side_and_small(azimuth: float) -> None:
    svg = surface("bowl", X, Y, Z, BOWL, View(azimuth))
    cells = [node.attrib["d"] for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("path")]
    assert len(cells) == 24 * 24
    for x, y in (corner for cell in cells for corner in corners(cell)):
        assert 0 <= x <= SURFACE[0]
        assert 0 <= y <= SURFACE[1]
    assert len(svg) < 80_000


def test_cells_lie_where_the_projection_says_and_far_ones_are_drawn_first() -> None:
    view = View(20)
    cells = list(re.findall(r'd="([^"]*)"', surface("bowl", X, Y, Z, BOWL, view)))
    flat = [corners(cell) for cell in cells]
    first = [view.place(x, y, Z.place(0.1 + 5 * (x * x + y * y))) for x in STEPS[-2:] for y in STEPS[-2:]]
    for found, expected in zip(sorted(flat[0]), sorted(first), strict=True):
        assert found == pytest.approx(expected, abs=0.11)
    level = Grid([*STEPS[:2], 2.0], [*STEPS[:2], 2.0], np.full((3, 3), 1.0))
    near = corners(re.findall(r'd="([^"]*)"', surface("flat", X, Y, Z, level, view))[-1])
    assert max(y for _, y in near) == pytest.approx(view.place(-1, -1, 0.5)[1], abs=0.11)


def test_a_higher_cell_has_a_later_shade_and_what_is_above_the_axis_the_last() -> None:
    grid = Grid([-1, 0, 1], [-1, 1], [[0.1, 1.0, 1e9], [0.1, 1.0, math.inf]])
    shades = [c for c in classes(surface("steps", X, Y, Z, grid, View(0))) if re.fullmatch(r"q\d", c)]
    assert sorted(shades) == ["q2", "q7"]


def test_contours_are_labelled_with_their_levels_and_marks_lie_where_they_are_said_to() -> None:
    svg = contour_plot("bowl", X, Y, Z, BOWL, [(0.0, 0.0, "minimum")])
    texts = [node.text for node in ElementTree.fromstring(svg).iter() if node.attrib.get("class") == "halo"]
    assert texts[-1] == "minimum"
    assert len(texts) >= 6
    assert set(texts[:-1]) <= {Z.said(level) for level in Z.between(SHADES - 1)}
    assert "one" in svg
    assert classes(svg).count("spot") == 1
    assert len(svg) < 60_000


def test_levels_part_the_axis_evenly() -> None:
    assert Z.between(3) == [0.32, 1.0, 3.2]
    assert Axis("a", 0, 1).between(3) == [0.25, 0.5, 0.75]


def test_a_heat_map_says_every_number_and_leaves_out_what_was_not_measured() -> None:
    svg = heat_map("h", ["layer 1", "layer <2>"], ["plain", "residual"], [[0.1234, None], [math.nan, 10.0]], Z)
    texts = [node.text for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]
    assert texts == ["loss", "plain", "residual", "layer 1", "0.12", "layer <2>", "10"]
    assert [c for c in classes(svg) if c.startswith("q")] == ["q0", "q9"]
    assert "layer 1, plain: 0.12" in svg


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1, 2])
def test_numbers_can_be_read_on_every_shade_in_light_dark_and_print(theme: int) -> None:
    root = re.findall(r":root \{(.*?)\n\s*\}", (TEMPLATES / "style.css").read_text(), re.DOTALL)[theme]
    colours = dict(re.findall(r"--(\w+): (#\w+)", root))
    full = {k: v if len(v) == 7 else "#" + "".join(2 * c for c in v[1:]) for k, v in colours.items()}
    for shade in range(SHADES):
        text = full["card" if shade >= SHADES - 4 else "ink"]
        dark, light = sorted((luminance(text), luminance(full[f"q{shade}"])))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, shade


@pytest.mark.parametrize(("points", "drawn"), [(25, 24), (51, 25), (31, 15), (30, 29)])
def test_a_surface_that_turns_is_drawn_from_a_grid_that_is_not_too_fine(points: int, drawn: int) -> None:
    at = [float(v) for v in np.linspace(-1, 1, points)]
    svg = turning_surface("bowl", X, Y, Z, Grid(at, at, np.ones((points, points))))
    assert svg.count("<path") == len(AZIMUTHS) * drawn**2
    assert classes(svg).count("view v4 rest") == 1
    assert len(svg) < 65 * len(AZIMUTHS) * drawn**2 + 20_000
