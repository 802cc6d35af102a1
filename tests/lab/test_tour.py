"""The tour: the story in its order, with what was measured here, and the command for what was not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from plusx.errors import DataError, UsageError
from plusx.lab import conduct
from plusx.lab.catalogue import EXPERIMENTS
from plusx.lab.conduct import Done, LabWish
from plusx.lab.tour import read, tour
from plusx.report.tour_page import SECTIONS
from tests.report.labmock import result

FACTS = {
    "command": "plusx lab degradation photos.tar --steps 7 --out lab",
    "mode": "quick",
    "data": ["photos.tar"],
    "data_fingerprint": "abc",
    "machine": {"plusx": "1", "torch": "2", "python": "3", "processor": "A processor", "cores": 2, "device": "cpu"},
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A lab in which two experiments were run."""
    for name in ("degradation", "landscape"):
        (tmp_path / name).mkdir()
        conduct._write(Done(result(name), tmp_path / name, FACTS))
    return tmp_path


def test_the_story_is_told_in_its_order_and_every_experiment_has_its_place() -> None:
    assert [name for name in SECTIONS if name in EXPERIMENTS] == list(EXPERIMENTS)


def test_what_was_run_is_shown_and_what_was_not_is_named_with_its_command(out: Path) -> None:
    path = tour([], LabWish(out=out))
    page = path.read_text()
    assert path == out / "tour.html"
    parts = dict(re.findall(r'<section id="(\w+)">(.*?)</section>', page, re.DOTALL))
    assert [name for name in parts if name in SECTIONS] == list(SECTIONS)
    assert "2 of 7 experiments were run on this machine (A processor, 2 cores)" in page
    for name in EXPERIMENTS:
        command = f"<pre>plusx lab {name} photos.tar --out {out}</pre>"
        assert (command in parts[name]) == (name not in ("degradation", "landscape")), name
    assert parts["degradation"].count("<figure") == 6
    assert "Deeper is 10.00 points higher (3 seeds)." in parts["degradation"]
    assert "as the literature says: 1 yes, 1 no, 1 cannot be told" in parts["glance"]
    assert "34.12 ± 0.50 %" in parts["numbers"]
    assert "plusx lab degradation photos.tar --steps 7 --out lab" in parts["numbers"], "as it was measured"


def test_the_tour_is_one_file_without_scripts_or_requests(out: Path) -> None:
    page = tour(["mine"], LabWish(out=out, full=True)).read_text()
    assert not re.findall(r"<(?:script|link|iframe|object|img)|url\(|@import|\son\w+=", page)
    assert set(re.findall(r"https?://[^\"]*", page)) <= {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r'href="([^"#]*)', page)) == {""}
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(re.findall(r'id="([^"]*)"', page))
    assert "plusx lab surgery mine --full" in page
    assert len(page) < 1_000_000


def test_what_was_written_is_read_again_as_it_was(out: Path) -> None:
    document, found = read(out / "degradation")
    assert document["mode"] == "quick"
    expected = result("degradation")
    assert (found.tables, found.findings, found.question) == (expected.tables, expected.findings, expected.question)
    assert [f.name for f in found.figures] == [f.name for f in expected.figures]


def test_the_tour_of_an_empty_folder_says_what_to_run_first(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no results yet; .* such as: plusx lab degradation mine --out"):
        tour(["mine"], LabWish(out=tmp_path))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "results.json").write_text("{"), "Expecting property name"),
        (lambda folder: (folder / "results.json").write_text("{}"), "'command' is missing"),
        (
            lambda folder: (folder / "curves.svg").write_text("<svg><script/></svg>"),
            "<script> with nothing in a figure",
        ),
        (lambda folder: (folder / "bars.svg").unlink(), "No such file"),
    ],
)
def test_damaged_results_are_named_and_nothing_of_them_gets_into_the_page(damage: object, said: str, out: Path) -> None:
    damage(out / "landscape")
    with pytest.raises(DataError, match=rf"landscape.results.json does not hold .* \(.*{re.escape(said)}.*\); run the"):
        tour([], LabWish(out=out))
    assert not (out / "tour.html").exists()


def test_figures_are_looked_for_in_the_folder_of_the_experiment_alone(out: Path) -> None:
    path = out / "landscape" / "results.json"
    document = json.loads(path.read_text())
    document["figures"][0]["name"] = "../degradation/curves"
    path.write_text(json.dumps(document))
    (out / "landscape" / "curves.svg").unlink()
    with pytest.raises(DataError, match=r"landscape.curves"):
        tour([], LabWish(out=out))
