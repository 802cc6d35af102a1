"""`plusx lab` as typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import plusx
from plusx.cli.run import run as cli
from plusx.lab import catalogue, conduct
from plusx.lab.conduct import LabWish, Size
from plusx.lab.photos import Amount
from tests.lab.conftest import TINY
from tests.verbs.conftest import fill


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    fill(tmp_path / "stripes", {"lying": 30, "standing": 30})
    return tmp_path / "stripes"


def test_without_a_name_the_experiments_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["lab"]) == 0
    said = capsys.readouterr().out
    assert all(name in said and summary in said for name, summary in catalogue.EXPERIMENTS.items())
    assert "tour" in said
    assert "all" in said


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["degredation"], "There is no experiment 'degredation'; there are degradation, signals, "),
        (["degredation"], "Did you mean degradation?"),
        (["surgery", "--quick", "--full"], "--quick and --full are two sizes of one experiment; name one of them."),
        (["surgery", "--seeds", "0"], "--seeds is 0, and the lab needs at least 1."),
        (["surgery", "--steps", "0"], "--steps is 0, and the lab needs at least 1."),
        (["surgery", "--jobs", "-1"], "--jobs is -1, and the lab needs at least 1."),
        (["surgery", "--set", "model=resnet50"], "--set model is what the experiments themselves decide; leave it out"),
        (["surgery", "--set", "nonsense=1"], "nonsense"),
        (["tour"], "holds no results yet; run an experiment first, such as: plusx lab degradation"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(
    typed: list[str], sentence: str, tmp_path: Path, stripes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *flags = typed
    assert cli(["lab", name, str(stripes), "--out", str(tmp_path / "lab"), *flags]) == 2
    assert sentence in capsys.readouterr().err


def test_python_is_told_too_that_the_tour_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(plusx.Error, match="There is no experiment 'tour'; there are degradation, "):
        plusx.lab("tour", out=tmp_path)


def test_photos_without_any_to_test_on_are_refused(
    tmp_path: Path, stripes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["lab", "shattering", str(stripes), "--out", str(tmp_path / "lab"), "--set", "split=90/10/0"]
    assert cli(typed) == 2
    assert "leaves no photos to test on; add photos, or name a share for them with --set split=80/0/20." in (
        capsys.readouterr().err
    )


def test_an_experiment_prints_what_it_found_and_writes_page_figures_and_numbers(
    tmp_path: Path, stripes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = Size(TINY, Amount(48, 6), steps=2, seeds=1)
    monkeypatch.setattr(conduct, "_size", lambda *_: size)
    out = tmp_path / "lab"
    assert cli(["lab", "degradation", str(stripes), "--out", str(out)]) == 0
    said, hint = capsys.readouterr()
    assert hint.endswith(f"Next: plusx lab tour --out {out}\n")
    assert "Error at the end of training:" in said
    assert "After 2 steps, at this size, plain networks of 56 layers have a training error of" in said
    assert f"the page: {out / 'degradation' / 'index.html'}" in said
    assert {p.name for p in (out / "degradation").iterdir()} >= {
        *("index.html", "results.json", "table-1.csv", "curves-plain.svg", "curves-residual.svg", "depth.svg"),
    }
    assert cli(["lab", "degradation", str(stripes), "--out", str(out), "--json"]) == 0, "all is trained already"
    document = json.loads(capsys.readouterr().out)
    assert document["name"] == "degradation"
    assert (document["steps"], document["config"]["width"]) == (2, 0.25)
    assert document["command"] == f"plusx lab degradation {stripes} --out {out}"
    assert {row["validation"]["n"] for row in histories(out)} == {6}, "every test photo is watched"
    assert len(document["findings"]) == 4
    assert cli(["lab", "tour", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"the whole story: {out / 'tour.html'}\n"


def histories(out: Path) -> list[dict[str, Any]]:
    lines = [line for path in out.glob("networks/*/history.jsonl") for line in path.read_text().splitlines()]
    return [row for row in map(json.loads, lines) if "validation" in row]


def test_all_of_it_is_one_document(
    tmp_path: Path, stripes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = Size(TINY, Amount(48, 6), steps=2, seeds=1)
    monkeypatch.setattr(conduct, "_size", lambda *_: size)
    monkeypatch.setattr(catalogue, "EXPERIMENTS", {"degradation": "", "surgery": ""})
    typed = ["lab", "all", str(stripes), "--out", str(tmp_path / "lab"), "--json"]
    assert cli([*typed, "--estimate"]) == 0
    estimates = json.loads(capsys.readouterr().out)["all"]
    assert [found["name"] for found in estimates] == ["degradation", "surgery"]
    assert all(found["seconds"] > 0 for found in estimates)
    assert cli(typed) == 0
    *found, tour = json.loads(capsys.readouterr().out)["all"]
    assert [one["name"] for one in found] == ["degradation", "surgery"]
    assert Path(tour["page"]).read_text().count(f"plusx lab surgery {stripes} --out") == 1
    assert LabWish(typed="all").again("surgery", ["x"]) == "plusx lab all x --out lab", "what was typed goes on"


def test_an_estimate_times_a_step_of_each_network_and_trains_none(
    tmp_path: Path, stripes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = Size(TINY, Amount(48, 6), steps=1000, seeds=2)
    monkeypatch.setattr(conduct, "_size", lambda *_: size)
    assert cli(["lab", "degradation", str(stripes), "--out", str(tmp_path / "lab"), "--estimate", "--jobs", "2"]) == 0
    said = capsys.readouterr().out
    assert "plain56" in said
    assert "12 networks still to be trained, 2 side by side on " in said
    assert not list((tmp_path / "lab").glob("networks/*/config.yaml"))


def test_a_setting_that_is_typed_wins_over_that_of_the_quick_size(
    tmp_path: Path, stripes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wish = LabWish(sets=("width=1", "learning_rate=0.1", "log_every=7"))
    config = conduct._config(conduct._size("degradation", wish), wish)
    assert (config.width, config.learning_rate, config.log_every, config.size) == (1.0, 0.1, 7, 16)
    assert cli(["lab", "degradation", str(stripes), "--out", str(tmp_path / "lab"), "--set", "size=2"]) == 2
    assert "--set sets size to 2: input should be greater than or equal to 8." in capsys.readouterr().err


def test_the_command_that_goes_on_says_everything_that_was_wished() -> None:
    wish = LabWish(True, 2, 30, 4, "cpu", Path("my lab"), ("batch_size=64",))
    assert wish.command("signals", ["my photos"]) == (
        "plusx lab signals 'my photos' --full --seeds 2 --steps 30 --jobs 4 --device cpu --set batch_size=64 "
        "--out 'my lab'"
    )
