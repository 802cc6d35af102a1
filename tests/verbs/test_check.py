"""`check --out` and `--model`: the folder that is written, what it refuses, and pairs that look alike to a network."""

from __future__ import annotations

import csv
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import plusx
from plusx.data import decisions
from plusx.data.drawn import draw, write_set
from plusx.doctor.look_alike import look_alikes
from plusx.errors import DataError, UsageError
from plusx.model_file import load
from plusx.report.gallery import Card, Row, Section, gallery_page
from plusx.verbs import check_page
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    write_set(root, {"train": 4, "test": 2}, seed=3)
    (root / "train" / "cat" / "again.jpg").write_bytes((root / "train" / "cat" / "0000.jpg").read_bytes())
    (root / "train" / "dog" / "<b>&.jpg").write_bytes((root / "test" / "dog" / "0001.jpg").read_bytes())
    (root / "train" / "dog" / "empty.jpg").write_bytes(b"")
    (root / "train" / "dog" / "notes.txt").write_bytes(b"x")
    return root


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_without_out_nothing_is_written(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert plusx.check(data, workers=0).exit_code == 1
    assert list(Path.cwd().iterdir()) == []


def test_out_gets_a_page_a_report_and_a_table(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    report = plusx.check(data, out=out, workers=0)
    assert sorted(path.name for path in out.iterdir()) == ["check.html", "check.json", "quarantine.csv"]
    document = json.loads((out / "check.json").read_bytes())
    assert document == {"made_by": "plusx check", **json.loads(json.dumps(report.to_json()))}
    with (out / "quarantine.csv").open(newline="") as file:
        rows = {row["path"]: row["decision"] for row in csv.DictReader(file)}
    assert rows["train/dog/empty.jpg"] == rows["train/dog/<b>&.jpg"] == "drop"


def test_the_page_stands_alone_and_shows_every_copy(data: Path, tmp_path: Path) -> None:
    plusx.check(data, out=tmp_path / "out", workers=0)
    text = (tmp_path / "out" / "check.html").read_text()
    tags = Page(text).tags
    images = [attrs["src"] or "" for tag, attrs in tags if tag == "img"]
    assert len(images) == 4  # two pairs
    assert all(source.startswith("data:image/jpeg;base64,") for source in images)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags}
    assert not re.search(r"https?://", text)
    assert "&lt;b&gt;&amp;.jpg" in text
    assert "<b>&.jpg" not in text
    titles = re.findall(r"<h2[^>]*>([^<]+?) <span", text)
    assert titles == [
        "Cannot be read",
        "Equal photos across splits",
        "Equal photos within a split",
        "Left out (not photos)",
    ]


def test_a_folder_of_others_is_refused_before_anything_is_read(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="holds files that check did not write; name a new or an empty folder"):
        plusx.check(tmp_path / "nothing", out=out)
    assert [path.name for path in out.iterdir()] == ["letter.txt"]


def test_its_own_folder_is_written_over_and_one_with_more_in_it_is_not(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    plusx.check(data, out=out, workers=0)
    (data / "train" / "dog" / "empty.jpg").unlink()
    plusx.check(data, out=out, workers=0)
    assert json.loads((out / "check.json").read_bytes())["unreadable"] == []
    (out / "mine.csv").write_text("")
    with pytest.raises(UsageError):
        plusx.check(data, out=out, workers=0)


def test_what_was_decided_survives_another_check_and_what_was_suggested_is_suggested_anew(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    table = out / "quarantine.csv"
    plusx.check(data, out=out, workers=0)
    rows = {row.path: row for row in decisions.read([table])}
    kept, classed, suggested = "train/dog/empty.jpg", "train/dog/<b>&.jpg", "train/cat/again.jpg"
    assert {rows[name].decision for name in (kept, classed, suggested)} == {"drop"}
    edited = rows | {kept: replace(rows[kept], decision="keep"), classed: replace(rows[classed], decision="cat")}
    decisions.write(table, edited.values())
    (data / "train" / "cat" / "0000.jpg").unlink()  # the copy of `suggested`, which is the only one now
    (data / "test" / "dog" / "0001.jpg").unlink()  # that of `classed`, which somebody decided all the same
    plusx.check(data, out=out, workers=0)
    assert {row.path: row.decision for row in decisions.read([table])} == {kept: "keep", classed: "cat"}
    table.write_text("my,notes\n")
    with pytest.raises(DataError, match=r"quarantine\.csv cannot be used"):
        plusx.check(data, out=out, workers=0)
    assert table.read_text() == "my,notes\n"


def test_a_long_section_is_cut_and_says_so(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_page, "GROUPS", 2)
    for i in range(5):
        Image.new("RGB", (50, 50), (i, i, i)).save(data / "train" / "cat" / f"blank-{i}.png")
    plusx.check(data, out=tmp_path / "out", workers=0)
    text = (tmp_path / "out" / "check.html").read_text()
    assert "And 3 more; check.json lists all of them." in text
    assert text.count("blank-") == 2


def test_names_that_are_no_utf8_are_on_the_page(data: Path, tmp_path: Path) -> None:
    try:
        (data / "train" / "dog" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    plusx.check(data, out=tmp_path / "out", workers=0)
    assert "caf?.jpg" in (tmp_path / "out" / "check.html").read_text()
    assert b"caf\xe9.jpg" in (tmp_path / "out" / "quarantine.csv").read_bytes()


def test_a_gallery_is_made_of_sections_rows_and_cards() -> None:
    pair = Row((Card("a.jpg", "cat", b"\xff\xd8a"), Card("b.jpg", "dog", b"\xff\xd8b")), "cosine 0.9")
    sections = [Section("Suspected labels", "Look at them.", (pair,), more=7, tone="warn"), Section("None", "x", ())]
    text = gallery_page("Labels", ["One <line>."], sections)
    assert text.count("<img") == 2
    assert "cosine 0.9" in text
    assert "And 7 more." in text
    assert "One &lt;line&gt;." in text
    assert '<h2 class="warn">Suspected labels <span class="count">8</span></h2>' in text


def test_pairs_that_look_alike_are_the_likest_first_and_none_are_known_copies() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 40)).astype(np.float32) + 9  # far from the origin, as after a ReLU
    features[7] = features[3] + rng.normal(scale=0.1, size=40)
    features[500] = features[20] + rng.normal(scale=0.4, size=40)
    features[9] = features[8]
    groups = np.arange(600)
    groups[9] = 8
    found = look_alikes(features, groups, least=0.75)
    assert [(i, j) for i, j, _ in found] == [(3, 7), (20, 500)]
    assert found[0][2] > 0.98
    assert look_alikes(features, groups, least=0.75, most=1) == found[:1]
    assert look_alikes(features[:99], groups[:99]) == []


def test_a_trained_model_proposes_crops(tmp_path: Path) -> None:
    """Weakly trained, but with all that a model file holds: the score of novelty has tensors there, too."""
    data = tmp_path / "pets"
    write_set(data, {"train": 55}, seed=3)
    draw(3, 0, 0).crop((0, 0, 80, 80)).save(data / "train" / "cat" / "crop.png")
    trained = train([str(data)], Wish(QUICK | {"epochs": 1}, SETS, out=tmp_path / "run"))
    assert load(trained.model).header.novelty
    (data / "train" / "cat" / "0050.jpg").write_bytes(b"")
    report = plusx.check(data, model=trained.run, device="cpu", workers=0)
    assert report.look_alike
    assert report.exit_code == 1  # for the photo that cannot be read
    named = {name for pair in report.look_alike for name in pair.name.split(" ~ ")}
    assert "train/cat/0050.jpg" not in named
    assert all(re.fullmatch(r"cosine \d\.\d{3}", pair.note) for pair in report.look_alike)
