"""Charts: points lie where their values say, names are escaped, nothing has a colour of its own."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from plusx import metrics
from plusx.metrics import expected_calibration_error, risk_coverage
from plusx.report.axes import MOST_TICKS, Axis
from plusx.report.curves import risk_curve
from plusx.report.drawing import HEIGHT, WIDTH
from plusx.report.figures import SERIES, Series, Svg, bar_chart, line_chart, reliability
from plusx.report.page import TEMPLATES

RANDOM = np.random.default_rng(3)
SURE = RANDOM.beta(6, 1, 400) / 2 + 0.5
ANSWERS = np.stack([SURE, 1 - SURE], axis=1)
LABELS = (RANDOM.random(400) > SURE).astype(int)

CHARTS = {
    "lines": line_chart(
        "a <b>",
        Axis("epoch", 0, 10),
        Axis("loss & more", 0.1, 1.0, log=True),
        [Series("<train>", [(0, 1.0), (10, 0.1)]), Series("val", [(5, 0.3)], 2, dots=True)],
        [(5.0, "48 px")],
    ),
    "bars": bar_chart("speed", Axis("images/s", 0, 3000), [("48 px", 2500.0, "n = 3"), ("<64>", 0.0, "n = 1")]),
    "reliability": reliability("bins", metrics.reliability(ANSWERS, LABELS), metrics.reliability(ANSWERS, LABELS)),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_well_formed_named_and_inside_its_frame(name: str) -> None:
    svg = CHARTS[name]
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == root[0].text
    assert root.attrib["viewBox"] == f"0 -6 {WIDTH} {HEIGHT + 6}"
    for node in root.iter():
        for key in ("x", "x1", "x2", "cx"):
            assert 0 <= float(node.attrib.get(key, 0)) <= WIDTH
        for key in ("y", "y1", "y2", "cy"):
            assert 0 <= float(node.attrib.get(key, 0)) <= HEIGHT


@pytest.mark.parametrize("name", CHARTS)
def test_colours_are_the_pages_own_so_that_dark_and_print_reach_the_figures(name: str) -> None:
    assert not re.search(r"style=|fill=|stroke=|#[0-9a-f]{3}", CHARTS[name])
    style = (TEMPLATES / "style.css").read_text()
    for used in re.findall(r'class="([^"]*)"', CHARTS[name]):
        for word in used.split():
            assert f"svg .{word}" in style or f"svg text.{word}" in style, word
    assert f"--s{SERIES}:" in style


def test_a_point_lies_where_its_value_says() -> None:
    x, y = Axis("x", 0, 10), Axis("y", 0.01, 1.0, log=True)
    root = ElementTree.fromstring(line_chart("c", x, y, [Series("s", [(0, 0.01), (5, 0.1), (10, 1.0)])]))
    line = next(node for node in root.iter() if node.tag.endswith("polyline"))
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert points[1] == pytest.approx(((points[0][0] + points[2][0]) / 2, (points[0][1] + points[2][1]) / 2), abs=0.11)
    assert points[0][1] > points[2][1]


def test_many_names_take_rows_above_the_plot() -> None:
    x = Axis("x", 0, 1)
    lines = [
        Series(f"runs/a-rather-long-name-of-a-run-that-goes-on-and-on-{i}", [(0, 0), (1, 1)], i) for i in (1, 2, 3)
    ]
    root = ElementTree.fromstring(line_chart("c", x, x, lines))
    assert root.attrib["viewBox"] == f"0 -38 {WIDTH} {HEIGHT + 38}"
    names = [node for node in root.iter() if node.attrib.get("class") == "strong"]
    assert [(node.text[-1], node.attrib["y"]) for node in names] == [("1", "-25.0"), ("2", "-9.0"), ("3", "7.0")]
    assert names[0].text.startswith("…")


def test_text_from_outside_is_escaped_once() -> None:
    assert "&lt;train&gt;" in CHARTS["lines"]
    assert "<train>" not in CHARTS["lines"]
    assert CHARTS["lines"].__html__() == CHARTS["lines"]
    assert type(CHARTS["lines"].__html__()) is str
    assert isinstance(CHARTS["lines"], Svg)


@pytest.mark.parametrize("values", [[0.2], [0.0, 0.0], [], [0.31, 0.64], [1e-9, 3.0], [0.501, 0.502], [12, 43_210]])
@pytest.mark.parametrize("log", [False, True])
def test_an_axis_holds_its_values_and_has_a_few_distinct_labels(values: list[float], log: bool) -> None:
    axis = Axis.around("a", values, log=log)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= MOST_TICKS + 1
    assert len({axis.said(tick) for tick in ticks}) == len(ticks)
    for value in values:
        assert axis.low <= max(value, 1e-4 if log else value) <= axis.high
        assert 0 <= axis.place(value) <= 1


def test_an_axis_ends_at_round_numbers() -> None:
    axis = Axis.around("a", [0.31, 0.64])
    assert (axis.ticks()[0], axis.ticks()[-1]) == pytest.approx((axis.low, axis.high)) == (0.3, 0.7)
    log = Axis.around("a", [0.031, 0.64], log=True)
    assert (log.low, log.high) == pytest.approx((0.03, 0.7))


def test_an_axis_of_many_powers_of_ten_labels_some_of_them_and_goes_as_low_as_it_is_told_to() -> None:
    values = [3e-22, 1.0]
    axis = Axis.around("a", values, log=True, least=1e-30)
    ticks = axis.ticks()
    assert 3 <= len(ticks) <= MOST_TICKS
    assert axis.said(ticks[0]) == "10⁻²¹"
    assert axis.said(3e-22) == "3·10⁻²²"
    assert (axis.place(axis.low), axis.place(1e-40), axis.place(1e-11)) == pytest.approx((0.0, 0.0, 0.5), abs=0.02)
    assert Axis.around("a", values, log=True).low == pytest.approx(1e-4)


def test_bins_are_those_of_the_calibration_error_and_of_scikit_learn() -> None:
    bins = [b for b in metrics.reliability(ANSWERS, LABELS) if b["n"]]
    gap = sum(b["n"] * abs(b["accuracy"] - b["probability"]) for b in bins) / len(LABELS)
    assert gap == pytest.approx(expected_calibration_error(ANSWERS, LABELS), rel=1e-9)
    right, probability = calibration_curve((ANSWERS.argmax(1) == LABELS).astype(int), ANSWERS.max(1), n_bins=15)
    assert [b["accuracy"] for b in bins] == pytest.approx(right)
    assert [b["probability"] for b in bins] == pytest.approx(probability)


def test_the_risk_curve_passes_through_the_table_of_evaluate() -> None:
    curve = dict(risk_curve(ANSWERS, LABELS))
    for row in risk_coverage(ANSWERS, LABELS):
        near = min(curve, key=lambda c: abs(c - row["coverage"]))
        assert near == pytest.approx(row["coverage"], abs=0.01)
        assert curve[near] == pytest.approx(row["error"], abs=0.004)
    assert len(risk_curve(ANSWERS[:1], LABELS[:1])) == 1
