"""Photos and classes called as an attacker or a careless person may call them, through everything that names them: rows
D15 and D21 of the fault matrix.
"""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from plusx.cli.run import run as cli
from plusx.data import decisions
from plusx.data.source import scan
from plusx.data.split import Row as SplitRow
from plusx.data.split import read_split_csv, write_split_csv
from plusx.data.table import cell, text_of
from plusx.images.decode import BadPhoto
from plusx.serve.recorded import _skipped_rows
from plusx.unseen import UNSEEN
from plusx.verbs.answers import read_answers
from plusx.verbs.labelled import read_skipped, write_skipped
from plusx.verbs.predict import Row, to_csv
from tests.verbs.conftest import SETS, draw, fill

CLASSES = ('"dog" onerror="x" \u202eגוד', "=cmd|' C'!A0 & <i>cat<i>")  # sorted
NAMES = (
    b"with  spaces .jpg",
    b'it\'s "so" onload="x".jpg',
    b"new\nline.jpg",
    b"-rf.jpg",
    b"+1.jpg",
    b"@sum.jpg",
    b"'=quoted.jpg",
    b"\tab.jpg",
    "\U0001f63a\u200d\U0001f6e0.jpg".encode(),
    "\u202egpj.exe.jpg".encode(),
    "\u05e9\u05dc\u05d5\u05dd.jpg".encode(),
    unicodedata.normalize("NFC", "café.jpg").encode(),
    unicodedata.normalize("NFD", "café.jpg").encode(),
    b"a" * 251 + b".jpg",
    b"caf\xe9\xff.jpg",
    b"<script>alert(1)<",  # a slash cannot be part of a name
    b"<img src=x onerror=alert(1)>.jpg",
    b"%2e%2e&amp;.jpg",
    b"x,y;z\r.jpg",
    b"=1+1.jpg",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
TEXT = ("path", "class", "label", "answer", "reason", "suggested", "decision", "code")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with DATA in `odd`, checked, trained on, tested and asked, all by the command line from within it."""
    root = tmp_path_factory.mktemp("names")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        for label, name in enumerate(CLASSES):
            (root / "odd" / name).mkdir(parents=True)
            for number, raw in enumerate(NAMES):
                try:
                    with open(os.path.join(os.fsencode(root / "odd" / name), raw), "wb") as file:
                        draw(label, number).save(file, "JPEG")
                except OSError:
                    pytest.skip("this file system does not take such names")
        (root / "odd" / CLASSES[0] / "=bad.jpg").write_bytes(b"")
        photo = root / "odd" / CLASSES[1] / os.fsdecode(NAMES[2])
        photo.with_name("\n=copy.jpg").write_bytes(photo.read_bytes())
        sets = [token for text in SETS for token in ("--set", text)]
        flags = ["--model", "resnet20", "--size", "32", "--batch-size", "16", "--epochs", "1", "--device", "cpu"]
        flags += ["--split", "50/30/20", "--skip-bad"]
        assert cli(["check", "odd", "--out", "checked", "-q"]) == 1
        assert cli(["train", "odd", *flags, *sets, "--out", "run", "-q"]) == 0
        assert cli(["evaluate", "run", "-q"]) == 0
        for form in ("csv", "json"):
            assert cli(["predict", "run", "odd", f"--{form}", "--out", f"answers.{form}", "-q"]) == 0
        yield root


def listed(root: Path) -> set[str]:
    return {photo.name for photo in scan(root / "odd", trainable=False).photos}


def rows_of(path: Path) -> list[dict[str, str]]:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_photo_is_listed_split_and_answered_for(world: Path) -> None:
    """D15: train, CSV and JSON hold every name exactly."""
    names = listed(world)
    assert len(names) == 2 * len(NAMES) + 2
    bad = {f"{CLASSES[0]}/=bad.jpg"}
    assert {row.path for row in read_split_csv(world / "run" / "split.csv")} == names
    assert {row.label for row in read_split_csv(world / "run" / "split.csv")} == set(CLASSES)
    assert {name for name, _ in read_skipped(world / "run" / "skipped.csv")} == bad
    assert {name for name, _ in _skipped_rows((world / "run" / "skipped.csv").read_bytes())} == bad
    for table, split in (("validation.csv", "val"), ("answers.csv", "test")):
        answered = read_answers(world / "run" / table)
        assert answered is not None
        expected = {row.path for row in read_split_csv(world / "run" / "split.csv") if row.split == split}
        assert set(answered.names) == expected - bad
        assert answered.classes == CLASSES
        assert set(answered.answers) <= {*CLASSES, "unsure", "none of these"}
    document = json.loads((world / "answers.json").read_text())["predictions"]
    assert {row["path"] for row in document} == {f"odd/{name}" for name in names}
    assert {row["label"] for row in document} - {None} <= set(CLASSES)


def test_the_table_of_decisions_comes_back_and_is_obeyed(world: Path) -> None:
    """D15: a person edits it in a spreadsheet in between."""
    rows = decisions.read([world / "checked" / "quarantine.csv"])
    named = {row.path: row.decision for row in rows}
    assert named.keys() <= listed(world)
    assert named[f"{CLASSES[0]}/=bad.jpg"] == "drop"
    assert {row.label for row in rows} == set(CLASSES)
    report = json.loads((world / "checked" / "check.json").read_text())
    assert {bad["name"] for bad in report["unreadable"]} == {f"{CLASSES[0]}/=bad.jpg"}
    listing = scan(world / "odd", trainable=False)
    from plusx.data.source import content_hashes

    applied = decisions.apply(listing, content_hashes(listing.photos), rows)
    assert applied.effect.dropped == sum(decision == "drop" for decision in named.values())


def test_no_table_holds_a_formula(world: Path) -> None:
    """D15: every cell of text in every CSV that was written."""
    tables = [*world.glob("run/*.csv"), *world.glob("checked/*.csv"), world / "answers.csv"]
    assert {table.name for table in tables} >= {
        *("split.csv", "skipped.csv", "validation.csv", "answers.csv", "quarantine.csv"),
    }
    marked = 0
    for table in tables:
        for row in rows_of(table):
            cells = [row[name] for name in TEXT if name in row]
            assert not [value for value in cells if value.startswith(FORMULA)], table
            marked += sum(value.startswith("'") for value in cells)
        header = next(csv.reader(io.StringIO(table.read_text(errors="surrogateescape"), newline="")))
        assert not [name for name in header if name.startswith(FORMULA)]
    assert marked > len(NAMES), "class names begin with = in half of the rows"


@pytest.mark.parametrize("page", ["run/report.html", "checked/check.html"])
def test_no_page_runs_a_name(page: str, world: Path) -> None:
    """D15: pages show names as text: no tag and no attribute comes from one."""
    text = (world / page).read_text()
    found = Page(text)
    assert not {"script", "i", "iframe", "object"} & {tag for tag, _ in found.tags}
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert all((attributes["src"] or "").startswith("data:") for tag, attributes in found.tags if tag == "img")
    assert "<i>cat<i>" in found.text
    assert "&lt;i&gt;cat&lt;i&gt;" in text
    assert "=bad.jpg" in found.text


def test_the_card_holds_names_as_text(world: Path) -> None:
    """D15: Markdown shows HTML, so that a name must not be any."""
    card = (world / "run" / "card.md").read_text(errors="surrogateescape")
    assert "\\<i\\>cat\\<i\\>" in card
    assert "<i>" not in card


def test_the_terminal_gets_one_line_a_photo_and_no_orders(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """D15."""
    assert cli(["predict", "run", "odd", "-q"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2 * len(NAMES) + 2
    assert not UNSEEN.search(out)
    assert "\t" not in out
    assert os.fsdecode(NAMES[8]) in out, "joined emoji stay whole"


def test_a_name_that_begins_with_a_dash_is_a_file_and_not_a_flag(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """D15."""
    monkeypatch.chdir(world / "odd" / CLASSES[1])
    assert cli(["predict", "../../run", "-rf.jpg", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["predictions"]
    assert (row["path"], row["error"]) == ("-rf.jpg", None)
    out = world / "explained.png"
    assert cli(["explain", "../../run", "./-rf.jpg", "--out", str(out), "-q"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "text",
    ["=1+1", "'=1+1", "''=1+1", "'", "''", "'tis", "-", "+x", "@x", "\t=", "\r", "\nx", "\uff1dx", "x=1", "", "5"],
)
def test_any_text_comes_back_from_a_table(text: str) -> None:
    """D15: what is marked is unmarked again, and nothing else is."""
    assert text_of(cell(text)) == text
    assert not cell(text).startswith((*FORMULA, "\uff1d"))
    assert cell(text) == text or text.lstrip("'")[:1] in "=+-@\t\r\n\uff1d"


def test_tables_of_older_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    """D15: they hold names without a mark."""
    old = "path,class,split,sha256,group\r\n=1.jpg,=cat,train," + "a" * 64 + ",\r\n"
    (tmp_path / "split.csv").write_text(old, newline="")
    assert read_split_csv(tmp_path / "split.csv") == [SplitRow("=1.jpg", "=cat", "train", "a" * 64)]
    (tmp_path / "skipped.csv").write_text("path,code,reason\r\n-x.jpg,empty,why\r\n", newline="")
    assert read_skipped(tmp_path / "skipped.csv") == (("-x.jpg", BadPhoto("empty", "why")),)


def test_answers_are_data_again_whatever_their_photos_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D15: `predict --csv` writes path and label, which is what a CSV of DATA has."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for name in ("=a.jpg", "'=b.jpg", "-c.jpg", "d.jpg"):
        draw(0, len(rows)).save(tmp_path / name)
        rows.append(Row(name, "=cat" if len(rows) % 2 else "dog", 1.0, {"=cat": 1.0}, "dog", None))
    with open(tmp_path / "answers.csv", "w", newline="") as file:
        to_csv(rows, file)
    listing = scan(tmp_path / "answers.csv")
    assert [photo.name for photo in listing.photos] == [row.path for row in rows]
    assert listing.classes == ("=cat", "dog")


def test_without_the_mark_a_table_holds_formulas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D15, the control."""
    rows = [SplitRow("=1+1.jpg", "cat", "train", "a" * 64)]
    write_split_csv(tmp_path / "split.csv", rows)
    assert not rows_of(tmp_path / "split.csv")[0]["path"].startswith(FORMULA)
    monkeypatch.setattr("plusx.data.split.cell", lambda text: text)
    write_split_csv(tmp_path / "split.csv", rows)
    assert rows_of(tmp_path / "split.csv")[0]["path"].startswith(FORMULA)
    monkeypatch.setattr("plusx.verbs.labelled.cell", lambda text: text)
    write_skipped(tmp_path / "skipped.csv", [("=x.jpg", BadPhoto("empty", "why"))])
    assert rows_of(tmp_path / "skipped.csv")[0]["path"].startswith(FORMULA)


# D21


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on stripes, and the folder in which it lies."""
    root = tmp_path_factory.mktemp("mapped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        data = fill(root / "stripes", {"lying": 20, "standing": 20})
        sets = [token for text in SETS for token in ("--set", text)]
        flags = ["--model", "resnet20", "--size", "32", "--batch-size", "16", "--epochs", "8", "--device", "cpu"]
        assert cli(["train", str(data), *flags, *sets, "--out", str(root / "run"), "-q"]) == 0
    return root, root / "run"


def figures(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    assert cli(["evaluate", str(run), str(data), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_classes_of_a_test_are_mapped_by_name_whatever_their_order(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """D21: a CSV that names the second class first, and a folder, are the same test."""
    _, run = trained
    folder = fill(tmp_path / "folder", {"lying": 5, "standing": 5}, first=500)
    names = [f"{label}/{i}.jpg,{label}" for label in ("standing", "lying") for i in range(500, 505)]
    (folder / "labels.csv").write_text("path,label\n" + "\n".join(names))
    listed = figures(run, folder / "labels.csv", capsys)
    (folder / "labels.csv").unlink()
    sorted_ = figures(run, folder, capsys)
    assert listed["confusion"] == sorted_["confusion"]
    assert listed["classes"] == sorted_["classes"] == ["lying", "standing"]


def test_a_class_that_the_test_lacks_has_no_samples(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """D21: it is said, and the others keep their labels."""
    _, run = trained
    folder = fill(tmp_path / "half", {"nothing": 0, "standing": 5}, first=500)
    (folder / "nothing").rmdir()
    assert cli(["evaluate", str(run), str(folder)]) == 0
    said = capsys.readouterr().out
    assert "  lying: no samples" in said
    assert "standing: accuracy" in said


@pytest.mark.parametrize("name", ["sitting", "Standing"])
def test_a_class_that_the_model_does_not_know_is_refused_by_name(
    name: str, trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """D21: other letters are another class; the nearest is named."""
    _, run = trained
    folder = fill(tmp_path / "other", {"lying": 3, name: 3}, first=500)
    assert cli(["evaluate", str(run), str(folder)]) == 3
    said = capsys.readouterr().err
    assert f"have the class {name}, which train lacks (lying, standing)" in said
    if name == "Standing":
        assert said.endswith("Did you mean standing?\n")
