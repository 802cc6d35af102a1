"""`check --labels`: planted errors come first, a stopped check goes on, and nothing changes by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import plusx
from plusx.cli.run import run as cli
from plusx.data import decisions
from plusx.data.source import scan
from plusx.data.split import read_split_csv
from plusx.errors import DataError, UsageError
from plusx.model_file import load
from plusx.run_folder import RunFolder
from plusx.training.events import Notice, StepDone
from plusx.verbs import labels_page, neighbours
from plusx.verbs.answers import read_answers
from plusx.verbs.check_labels import LabelWish, check_labels
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS, fill

PLANTED = ("standing/0.jpg", "standing/1.jpg", "lying/2.jpg")
WISH: dict[str, Any] = {
    "folds": 3,
    "time": "120s",
    "flags": {"model": "resnet20", "size": 32, "batch_size": 16, "device": "cpu", "seed": 1},
    "sets": ("width=0.25", "max_epochs=16", "workers=0", "sizes=[]", "crop_scale=null"),
}


@pytest.fixture
def mislabelled(tmp_path: Path) -> Path:
    """Stripes, three of them in the folder of the others."""
    data = fill(tmp_path / "stripes", {"lying": 30, "standing": 30})
    for name in PLANTED:
        own, other = data / name, data / ("lying" if name.startswith("standing") else "standing") / f"x{name[-5:]}"
        own.rename(other)
    return data


def planted() -> set[str]:
    return {("lying" if name.startswith("standing") else "standing") + f"/x{name[-5:]}" for name in PLANTED}


def names(rows: Sequence[Any]) -> list[str]:
    return [row.path for row in rows]


def test_planted_errors_are_listed_first_and_nothing_is_decided(
    mislabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mislabelled / "lying" / "bad.jpg").write_text("no photo")
    report = check_labels([str(mislabelled)], LabelWish(tmp_path / "out", **WISH))
    assert report.n == 60
    assert planted() <= set(names(report.suspects[:5]))
    rows = decisions.read([tmp_path / "out" / "labels.csv"])
    assert names(rows) == names(report.suspects)
    assert all(row.decision == "" for row in rows)
    first = next(row for row in rows if row.path in planted())
    given, looks = first.path.split("/")[0], "lying" if first.path.startswith("standing") else "standing"
    assert (first.label, first.suggested) == (given, looks)
    assert first.reason.startswith(f"given {given}, looks like {looks} (probability 0.")
    told = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert told["suspects"][0]["path"] == report.suspects[0].path
    assert (told["n"], told["folds"], told["found"]) == (60, 3, report.found)
    page = (tmp_path / "out" / "labels.html").read_text()
    assert page.count("data:image/jpeg") == len(report.suspects)
    assert first.reason in page
    assert report.lines()[-1].startswith(f"{tmp_path / 'out' / 'labels.csv'} lists {len(rows)}, and nothing changes")
    monkeypatch.setattr(labels_page, "SHOWN", 1)
    shorter = labels_page.labels_page(report, scan(mislabelled).photos, 0)
    assert f"And {report.found - 1} more; labels.csv lists up to 500 photos, the most doubtful first." in shorter


def test_every_photo_is_judged_by_a_network_that_did_not_see_it(mislabelled: Path, tmp_path: Path) -> None:
    check_labels([str(mislabelled)], LabelWish(tmp_path / "out", **WISH))
    held_out: list[str] = []
    for number in (1, 2, 3):
        rows = read_split_csv(tmp_path / "out" / "folds" / f"fold-{number}" / "split.csv")
        assert len(rows) == 60
        assert {row.split for row in rows} == {"train", "val"}
        held_out += [row.path for row in rows if row.split == "val"]
    assert len(held_out) == len(set(held_out)) == 60


def test_a_fold_gives_the_answers_of_its_network_and_nothing_besides(mislabelled: Path, tmp_path: Path) -> None:
    check_labels([str(mislabelled)], LabelWish(tmp_path / "out", **WISH))
    fold = RunFolder(tmp_path / "out" / "folds" / "fold-1")
    model = load(fold.model)
    assert model.weights.keys() == model.tensors.keys()
    assert (model.header.calibration, model.header.thresholds, model.header.novelty) == (None, None, None)
    assert not {"report.html", "card.md", neighbours.FILE} & {path.name for path in fold.path.iterdir()}
    answered = read_answers(fold.validation_answers)
    assert answered is not None
    network = plusx.load(fold.path, device="cpu")
    raw = [network.predict(mislabelled / name).probability for name in answered.names[:4]]
    assert raw == pytest.approx(answered.probabilities[:4].max(axis=1), abs=1e-5)


def test_the_command_that_goes_on_names_the_device_and_another_device_may_go_on(
    mislabelled: Path, tmp_path: Path
) -> None:
    wish = LabelWish(tmp_path / "out", **WISH)
    assert wish.command(["a b"]) == (
        f"plusx check 'a b' --labels --folds 3 --time 120s --out {tmp_path / 'out'} --device cpu"
    )
    with pytest.raises(MemoryError):
        check_labels([str(mislabelled)], wish, on_event=stop_in_second_fold())
    auto = replace(wish, flags=wish.flags | {"device": "auto"})
    assert auto.command([]).endswith(f"--out {tmp_path / 'out'}")
    assert check_labels([str(mislabelled)], auto).n == 60


def test_labels_and_a_model_are_not_asked_for_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["check", str(tmp_path), "--labels", "--model", "m.safetensors"]) == 2
    assert " ".join(capsys.readouterr().err.split()).endswith(
        "--labels trains networks of its own, which have not seen the photos they judge, and --model lists photos that "
        "look alike; give one of the two."
    )


def stop_in_second_fold() -> Any:
    folds = []

    def listen(event: Any) -> None:
        if isinstance(event, Notice) and event.text.startswith("Fold"):
            folds.append(event.text)
        if isinstance(event, StepDone) and len(folds) == 2 and event.step == 5:
            raise MemoryError("power cut")

    return listen


def test_a_stopped_check_goes_on_with_the_same_command_and_finds_the_same(mislabelled: Path, tmp_path: Path) -> None:
    sets = (*WISH["sets"], "checkpoint_every=2")
    with pytest.raises(MemoryError):
        check_labels(
            [str(mislabelled)], LabelWish(tmp_path / "out", **WISH | {"sets": sets}), on_event=stop_in_second_fold()
        )
    first = (tmp_path / "out" / "folds" / "fold-1" / "model.safetensors").stat()
    events: list[Any] = []
    wish = LabelWish(tmp_path / "out", **WISH | {"sets": sets})
    report = check_labels([str(mislabelled)], wish, on_event=events.append)
    assert [e.text[:13] for e in events if isinstance(e, Notice)] == ["Fold 2 of 3: ", "Fold 3 of 3: "]
    assert (tmp_path / "out" / "folds" / "fold-1" / "model.safetensors").stat().st_mtime_ns == first.st_mtime_ns
    steps = [event.step for event in events if isinstance(event, StepDone)]
    assert steps[0] == 5, "the second fold goes on after its checkpoint"
    whole = check_labels([str(mislabelled)], LabelWish(tmp_path / "whole", **WISH | {"sets": sets}))
    assert report.suspects == whole.suspects


def test_what_was_decided_survives_another_check_and_trains(mislabelled: Path, tmp_path: Path) -> None:
    wish = LabelWish(tmp_path / "out", **WISH)
    check_labels([str(mislabelled)], wish)
    path = tmp_path / "out" / "labels.csv"
    rows = list(decisions.read([path]))
    rows[0] = replace(rows[0], decision=rows[0].suggested)
    decisions.write(path, rows)
    check_labels([str(mislabelled)], wish)
    assert decisions.read([path])[0].decision == rows[0].suggested
    trained = train([str(mislabelled)], Wish(QUICK | {"epochs": 1}, SETS, out=tmp_path / "run", decisions=(path,)))
    assert names(decisions.read([trained.run / "decisions.csv"])) == [rows[0].path]


def test_a_folder_with_another_check_is_not_touched(mislabelled: Path, tmp_path: Path) -> None:
    wish = LabelWish(tmp_path / "out", **WISH)
    check_labels([str(mislabelled)], wish)
    with pytest.raises(UsageError) as caught:
        check_labels([str(mislabelled)], replace(wish, folds=2))
    assert caught.value.message == (
        f"{tmp_path / 'out'} holds a check of labels that was begun differently: folds was 3 and is now 2. "
        "Give the same command again to continue it, or name another --out."
    )


def test_a_folder_of_other_files_is_refused_and_a_plain_check_may_lie_beside(mislabelled: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "labels.csv").write_text("path,label\n")
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(UsageError, match="mine holds files that check did not write"):
        check_labels([str(mislabelled)], LabelWish(tmp_path / "mine", **WISH))
    assert (tmp_path / "mine" / "labels.csv").read_text() == "path,label\n"
    plusx.check(mislabelled, out=tmp_path / "out", workers=0)
    check_labels([str(mislabelled)], LabelWish(tmp_path / "out", **WISH))
    plusx.check(mislabelled, out=tmp_path / "out", workers=0)
    assert {"check.html", "labels.html"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_what_cannot_be_is_a_sentence(mislabelled: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--folds expects 2 or more, such as 5, and got 1"):
        check_labels([str(mislabelled)], LabelWish(tmp_path / "a", folds=1))
    with pytest.raises(UsageError, match=r"--time 6s is too short for 3 folds: each takes at least \d+ s"):
        check_labels([str(mislabelled)], LabelWish(tmp_path / "b", **WISH | {"time": 6}))
    few = fill(tmp_path / "few", {"lying": 2, "standing": 9})
    with pytest.raises(DataError, match=r"Class lying has 2 different photos in .*few, and a check in 3 folds needs"):
        check_labels([str(few)], LabelWish(tmp_path / "c", **WISH))


def test_the_command_line_lists_suspects_and_exits_with_zero(
    mislabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"MODEL": "resnet20", "SIZE": "32", "BATCH_SIZE": "16", "WIDTH": "0.25", "MAX_EPOCHS": "16", "SEED": "1"}
    for name, value in (settings | {"WORKERS": "0", "SIZES": "[]", "CROP_SCALE": "null"}).items():
        monkeypatch.setenv(f"PLUSX_{name}", value)
    monkeypatch.setattr("plusx.cli.run.STARTED", time.monotonic())
    monkeypatch.chdir(tmp_path)
    words = ["check", str(mislabelled), "--labels", "--folds", "2", "--time", "120s"]
    assert cli([*words, "-q"]) == 0
    out, err = capsys.readouterr()
    assert "60 photos, each judged by a network that was trained on other photos; accuracy" in out
    assert err == ""
    assert (tmp_path / "check-stripes" / "labels.csv").exists()
    assert cli([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["folds"] == 2
    assert err == ""
