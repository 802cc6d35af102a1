"""M06: whatever classes, photos, folders and models are called, no output has a command in it, and none is endless."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from plusx.cli import plain, terminal
from plusx.cli.run import run as cli
from plusx.model_file import read_header
from plusx.report.page import seen
from plusx.unseen import UNSEEN
from plusx.verbs import predict
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS, draw

ORDER = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e"  # a title, a colour, a cleared screen, and text turned round
LYING, STANDING = f"{ORDER}lying", "<img src=x onerror=alert(1)>|:cat:[b]" + "s" * 190
PHOTO = f"{ORDER}\r\n=cmd.jpg"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Photos whose folders and files have such names, and a tested run on them in a folder that has one, too."""
    folder = tmp_path_factory.mktemp("names")
    data = folder / f"{ORDER}data"
    for label, name in enumerate((LYING, STANDING)):
        (data / name.replace("/", "_")).mkdir(parents=True)
        for number in range(30):
            draw(label, number).save(data / name.replace("/", "_") / f"{number}{PHOTO}", format="jpeg", quality=90)
    run = folder / f"{ORDER}run"
    train([str(data)], Wish(QUICK, SETS, out=run))
    return run, data


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """What is printed between here and the end of the test has no command in it; the test adds what it read before."""
    texts: list[str] = []
    yield texts
    texts += capsys.readouterr()
    for text in texts:
        assert orders(text) == set()


def orders(text: str) -> set[str]:
    """What in a text a terminal would obey: control characters other than ends of lines, and turns of direction."""
    turns = {"\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069"}
    return {c for c in text if (unicodedata.category(c) in ("Cc", "Cs") and c != "\n") or c in turns}


def test_what_a_terminal_obeys_is_found() -> None:
    """M06, the control."""
    assert orders(f"{ORDER}\r\n") == {"\x1b", "\x07", "\x9b", "\u202e", "\r"}
    assert orders("é :cat: — 5 %\n") == set()


def test_no_verb_prints_a_command(
    hostile: tuple[Path, Path], tmp_path: Path, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """M06: every verb that names what it was given."""
    run, data = map(str, hostile)
    photo = str(next((hostile[1] / STANDING.replace("/", "_")).iterdir()))
    out = tmp_path / f"{ORDER}out"
    for arguments in (
        ["check", data, "--out", str(out)],
        ["check", data, "--json"],
        ["train", data, "--epochs", "1", "--model", "resnet8", "--out", str(out / "run"), *sets(), "-v"],
        ["train", data, "--epochs", "1", "--out", run, *sets()],
        ["train", "--resume", "--out", run],
        ["evaluate", run],
        ["evaluate", run, "--json"],
        ["evaluate", str(Path(run) / "model.safetensors"), data, "--report", str(out / "page.html")],
        ["compare", run, str(out / "run"), "--out", str(out / "compare.html")],
        ["compare", run, str(out / "run"), "--json"],
        ["predict", run, data, "-v"],
        ["predict", run, data, "--json"],
        ["predict", run, photo, f"{ORDER}missing.jpg"],
        ["explain", run, photo, "--out", str(out / "why.png")],
        ["explain", run, photo, "--class", f"{ORDER}bird", "--out", str(out / "why.png")],
        ["export", run, "--photos", photo, "--out", str(out / "model.onnx")],
        ["predict", f"{ORDER}model", photo],
        ["predict", run, "--csv", "--json", photo],
        ["models", f"{ORDER}net"],
        ["watch", f"{ORDER}run"],
        ["lab", f"{ORDER}name"],
        [f"{ORDER}verb"],
        ["train", data, f"--{ORDER}flag"],
        ["train", data, "--set", f"{ORDER}=1"],
        ["train", data, "--set", f"model={ORDER}"],
        ["train", data, "--config", f"{ORDER}.yaml"],
    ):
        code = cli(arguments)
        printed = capsys.readouterr()
        said += printed
        assert "fault of its own" not in printed.err, (arguments, printed.err)
        assert printed.out or printed.err, arguments
        assert code in (0, 1, 2, 3, 4, 5)


def sets() -> list[str]:
    """The settings of a quick training, as flags."""
    return [word for each in (*SETS, "size=32", "batch_size=16") for word in ("--set", each)] + ["--device", "cpu"]


def test_a_table_for_a_terminal_is_escaped_and_one_for_a_program_is_not(
    hostile: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """M06: CSV names the very file that was read, unless a person looks at it."""
    photo = next((hostile[1] / LYING).iterdir())
    assert cli(["predict", str(hostile[0]), str(photo), "--csv"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out, newline="")))
    assert rows[1][0] == str(photo)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert cli(["predict", str(hostile[0]), str(photo), "--csv"]) == 0
    printed = capsys.readouterr().out
    assert orders(printed) == set()
    assert "\\x1b]0;owned\\x07" in printed


def test_pages_and_cards_have_no_markup_or_command_of_names(hostile: tuple[Path, Path], tmp_path: Path) -> None:
    """M06: the report, the card, the comparison and the page of `check`."""
    run, data = hostile
    out = tmp_path / "out"
    cli(["check", str(data), "--out", str(out), "-q"])
    cli(["evaluate", str(run), "-q"])
    cli(["compare", str(run), str(run / "model.safetensors"), "-q"])
    for page in (run / "report.html", out / "check.html"):
        text = page.read_text()
        assert orders(text.replace("\t", "")) == set(), page
        assert "<img src=x" not in text
        assert "onerror=alert(1)&gt;" in text, "the class is named"
        assert not re.findall(r"<script|\son\w+=(?!alert)", text)
    card = (run / "card.md").read_text()
    assert orders(card) == set()
    assert "<img" not in card.replace("\\<img", "")


def test_json_says_the_very_names(hostile: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """M06: escaped, and lost nowhere."""
    photo = next((hostile[1] / LYING).iterdir())
    assert cli(["predict", str(hostile[0]), str(photo), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["predictions"][0]
    assert (found["path"], set(found["probabilities"])) == (str(photo), {LYING, STANDING})


def test_text_keeps_its_meaning() -> None:
    """M06: what is escaped can be read, and what is harmless stays."""
    assert plain.printable("a\x1b[2J\n\u202eé") == "a\\x1b[2J\\n\\u202eé"
    assert plain.printable("a\t\u2028\u2029\u200f\udcff") == "a\\t\\u2028\\u2029\\u200f\\udcff"
    harmless = "wide\u3000and\u00a0fixed \U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert plain.printable(harmless) == seen(harmless) == harmless
    assert plain.lines("one\x07\ntwo") == "one\\x07\ntwo"
    told = {"names": ["\x1b\x7f\x9b\u202e\U000e0001é", "\udcff"]}
    text = plain.json_text(json.dumps(told, ensure_ascii=False))
    assert text.isprintable()
    assert json.loads(text) == told


def test_pages_and_terminals_agree_on_what_is_seen() -> None:
    """M06: but for tabs and ends of lines, which are space on a page, and commands or other lines on a terminal."""
    letters = [chr(i) for i in range(0x11000)]
    escaped = {letter for letter in letters if plain.printable(letter) != letter}
    assert escaped == {letter for letter in letters if seen(letter) != letter} | {"\t", "\n"}
    assert escaped == set(UNSEEN.findall("".join(letters))) | {"\t", "\n"}


def test_a_console_takes_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """M06: neither markup, nor names of emoji, nor commands; several lines stay lines."""
    terminal.console().print("[bold]:cat:\x1b[31m\nnext")
    assert capsys.readouterr().err == "[bold]:cat:\\x1b[31m\nnext\n"


def test_a_console_without_this_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    """M06, the control: what rich prints by itself reaches the terminal."""
    Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print("a\x1b[31m")
    assert orders(capsys.readouterr().err) == {"\x1b"}


def test_what_is_logged_has_no_command_either(capsys: pytest.CaptureFixture[str]) -> None:
    """M06: rooms below the verbs say things, too."""
    assert cli(["--version"]) == 0
    logging.getLogger("plusx.serve").error("a fault at %s", f"/{ORDER}")
    assert orders(capsys.readouterr().err) == set()


def test_names_of_a_model_file_are_bounded(hostile: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """M06: `predict -v` names twenty classes, and a class has 255 characters at most (test_model_file_attacks)."""
    header = read_header(hostile[0] / "model.safetensors")
    many = replace(header, classes=tuple(f"class {i}" for i in range(20_000)))
    monkeypatch.setattr(predict, "read_header", lambda _: many)
    assert predict.described(hostile[0]).endswith("class 18, class 19 and 19,980 more")
