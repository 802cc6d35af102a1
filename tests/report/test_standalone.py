"""A figure as a file: it carries its colours for light and dark, and comes back into a page as what it was."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest

from plusx.report.axes import Axis
from plusx.report.contours import Grid
from plusx.report.diagrams import block_diagram, copy_diagram, layers_diagram, published_errors
from plusx.report.figures import Bars, Series, Spread, grouped_bars, line_chart, over_seeds
from plusx.report.moving import dial, turning_surface
from plusx.report.page import TEMPLATES
from plusx.report.standalone import inline, lively, standalone
from plusx.report.surfaces import contour_plot, heat_map, surface

X, Y = Axis("steps & more", 0, 2), Axis("error", 0, 1, share=True)
BOWL = Grid([0.0, 1.0, 2.0], [0.0, 0.5, 1.0], [[0.5, 0.2, 0.5], [0.3, 0.1, 0.3], [0.5, 0.2, 0.9]])
LINES = [
    over_seeds("<plain>", [[(0, 0.9), (1, 0.4)], [(0, 0.8), (1, 0.6)]], 2, dashed=True),
    Series("residual", [(0, 0.9), (1, 0.2)], 1, dots=True, spread=[(0.8, 1.0), (0.1, 0.3)]),
]
BARS = [Bars("plain", [Spread(0.4, 0.3, 0.5), None], 2), Bars("residual", [Spread.of([0.2]), Spread.of([0.1, 0.2])])]
FIGURES = {
    "lines": line_chart("a <chart>", X, Y, LINES, size=(640, 300)),
    "bars": grouped_bars("bars", Y, ["20", "56"], BARS, "layers"),
    "contours": contour_plot("c", X, Y, Y, BOWL, [(1, 0.5, "here")]),
    "surface": surface("s", X, Y, Y, BOWL),
    "turning": turning_surface("t", X, Y, Y, BOWL),
    "heat": heat_map("h", ["a"], ["b"], [[0.4]], Y),
    "dial": dial("d", X, Y, LINES, lambda x: f"F(x) + {x:g} x"),
    "layers": layers_diagram(),
    "block": block_diagram(),
    "copy": copy_diagram(),
    "published": published_errors(),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_class_of_a_figure_has_a_rule_and_no_figure_has_a_colour_of_its_own(name: str) -> None:
    svg, style = FIGURES[name], (TEMPLATES / "style.css").read_text()
    assert not re.search(r"style=|fill=|stroke=|#[0-9a-f]{3}", svg)
    known = set(re.findall(r"\.([a-z][a-z0-9-]*)", " ".join(re.findall(r"(svg[^{}]*)\{", style))))
    assert {word for names in re.findall(r'class="([^"]*)"', svg) for word in names.split()} <= known


@pytest.mark.parametrize("name", FIGURES)
def test_a_file_is_well_formed_and_has_colours_for_light_and_dark_and_no_variables(name: str) -> None:
    text = standalone(FIGURES[name])
    root = ElementTree.fromstring(text)
    assert {"width", "height", "viewBox", "aria-label"} <= set(root.attrib)
    light, dark = re.search(r"<style>(.*)</style>", text, re.DOTALL)[1].split("@media (prefers-color-scheme: dark) {")
    assert ".paper{fill: #ffffff}" in light
    assert ".paper{fill: #1c2026}" in dark
    assert "var(" not in text
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "system-ui" in light


@pytest.mark.parametrize("name", FIGURES)
def test_a_file_comes_back_into_a_page_as_the_figure_it_was(name: str) -> None:
    drawn, back = ElementTree.fromstring(FIGURES[name]), ElementTree.fromstring(inline(standalone(FIGURES[name])))
    assert "<style" not in ElementTree.tostring(back, encoding="unicode")
    said = [[(node.tag, (node.text or "").strip()) for node in root.iter()] for root in (drawn, back)]
    assert said[0] == said[1]
    for before, after in zip(drawn.iter(), back.iter(), strict=True):
        if before is not drawn:
            assert before.attrib == after.attrib


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<g onclick="alert(1)"/>',
        "<foreignObject/>",
        '<image href="https://example.invalid/x.png"/>',
        "<title",
        '<rect style="fill: url(https://example.invalid)"/>',
    ],
)
def test_a_page_takes_in_no_drawing_that_it_does_not_know(inside: str) -> None:
    with pytest.raises(ValueError, match=r"in a figure|not well-formed|mismatched"):
        inline(standalone(FIGURES["bars"]).replace("</svg>", f"{inside}</svg>"))


def test_what_answers_the_pointer_is_reached_by_the_keyboard_and_has_a_name() -> None:
    for name in ("lines", "turning", "dial", "block", "copy"):
        root = ElementTree.fromstring(lively(inline(standalone(FIGURES[name]))))
        reached = [node for node in root.iter() if "tabindex" in node.attrib]
        assert reached, name
        assert all(node.attrib["aria-label"] for node in reached)
        assert root.attrib["role"] == "group"
    assert lively(FIGURES["heat"]) == FIGURES["heat"]


def test_a_band_goes_from_the_lowest_to_the_highest_seed_at_the_steps_that_all_have() -> None:
    line = over_seeds("x", [[(0, 1.0), (1, 3.0), (2, 9.0)], [(0, 2.0), (1, 1.0)]])
    assert list(line.points) == [(0, 1.5), (1, 2.0)]
    assert list(line.spread) == [(1.0, 2.0), (1.0, 3.0)]
    assert over_seeds("x", [[(0, 1.0)]]).spread == ()


def test_a_dial_tells_all_values_at_each_step_and_keeps_them_apart() -> None:
    svg = FIGURES["dial"]
    assert 'aria-label="F(x) + 1 x; &lt;plain&gt; 50 %; residual 20 %"' in svg.replace("\u202f", " ")
    told = [node for node in ElementTree.fromstring(svg).iter() if node.attrib.get("class") == "told"]
    assert len(told) == 2
    for group in told:
        heights = [float(node.attrib["y"]) for node in group if node.tag.endswith("text")]
        assert all(below - above >= 13 for above, below in itertools.pairwise(heights))
