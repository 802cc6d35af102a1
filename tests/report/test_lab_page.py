"""The page of an experiment: what was asked and found, with a mark for each finding, and every number."""

from __future__ import annotations

import re

import pytest

from plusx.report.lab_page import Aligned, lab_page, machine_line
from tests.report.labmock import result


def test_the_page_says_of_each_finding_whether_it_is_as_the_literature_says() -> None:
    page = lab_page(result(), {"Machine": "a <machine>"})
    notes = re.findall(r'<div class="note found (\w+)">(.*?)</div>', page, re.DOTALL)
    assert [mark for mark, _ in notes] == ["good", "bad", "warn"]
    marks = ("As the literature says:", "Not as the literature says:", "Cannot be told. Expected:")
    for (_, note), said, sentence in zip(notes, marks, ("10.00 points", "1.00 point", "disagree"), strict=True):
        assert said in note
        assert sentence in note
    assert "Too few steps." in notes[1][1]
    assert "Do &lt;more&gt; layers" in page
    assert "a &lt;machine&gt;" in page
    assert "results.json" in page


def test_the_page_runs_no_script_and_asks_for_nothing() -> None:
    page = lab_page(result())
    assert not re.findall(r"<(?:script|link|iframe|object|img)|url\(|@import|\son\w+=", page)
    assert set(re.findall(r"https?://[^\"]*", page)) <= {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in page


def test_figures_are_in_the_page_with_their_captions_and_the_keyboard_reaches_them() -> None:
    page = lab_page(result("x", "curves", "turning"))
    assert page.count("<figure") == 2
    assert "What to look for in turning." in page
    assert page.count('tabindex="0"') == 6 + 7


@pytest.mark.parametrize("cell", ["12", "-3.4 %", "1,234", "12.3 ± 0.4 %", "", "0.1 (0.0 to 0.2)", "1.5 min", "none"])
def test_a_column_of_numbers_is_set_flush_right(cell: str) -> None:
    assert Aligned("t", ("a", "b"), (("x", "1"), ("y", cell))).numeric == {1}


@pytest.mark.parametrize("cell", ["plain56", "a 3", "F(x) + x", "2 of a kind and more"])
def test_a_column_with_words_is_not(cell: str) -> None:
    assert Aligned("t", ("a", "b"), (("x", "1"), ("y", cell))).numeric == set()


def test_a_machine_is_told_in_a_line() -> None:
    assert machine_line({"processor": "P", "cores": 2, "device": "cpu"}) == "P, 2 cores"
    assert machine_line({"processor": "P", "cores": 16, "device": "NVIDIA H100"}) == "P, 16 cores, NVIDIA H100"
    assert machine_line({}) == ""
