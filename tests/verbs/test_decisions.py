"""Decisions as training and testing obey them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import plusx
from plusx.cli.run import run as cli
from plusx.data import decisions
from plusx.data.decisions import Decision
from plusx.data.split import read_split_csv
from plusx.errors import DataError, UsageError
from plusx.model_file import load
from plusx.training.events import Notice, StepDone
from plusx.verbs.evaluate import evaluate
from plusx.verbs.finish import Trained
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS, fill

FLAGS = QUICK | {"epochs": 1}


def row(data: Path, name: str, decision: str) -> Decision:
    return Decision(name, hashlib.sha256((data / name).read_bytes()).hexdigest(), decision=decision)


@pytest.fixture
def cleaned(data: Path) -> tuple[Path, Path]:
    """Sixty photos, and a file that drops two of them and relabels a third."""
    path = data.parent / "cleaned.csv"
    names = {"lying/0.jpg": "drop", "standing/1.jpg": "drop", "lying/2.jpg": "standing", "lying/3.jpg": "keep"}
    decisions.write(path, [row(data, name, decision) for name, decision in names.items()])
    return data, path


def wish_of(out: Path, *files: Path, **flags: Any) -> Wish:
    return Wish(FLAGS | flags, SETS, out=out, decisions=files)


def stop(event: Any) -> None:
    if isinstance(event, StepDone) and event.step == 2:
        raise MemoryError("power cut")


def test_what_was_dropped_is_nowhere_and_what_was_relabelled_is_elsewhere(
    cleaned: tuple[Path, Path], tmp_path: Path
) -> None:
    data, path = cleaned
    events: list[Any] = []
    whole = train([str(data)], wish_of(tmp_path / "all"))
    trained = train([str(data)], wish_of(tmp_path / "run", path), on_event=events.append)
    rows = {line.path: line for line in read_split_csv(trained.run / "split.csv")}
    assert len(rows) == 58
    assert not {"lying/0.jpg", "standing/1.jpg"} & rows.keys()
    assert rows["lying/2.jpg"].label == "standing"
    model = load(trained.model)
    assert not model.known.has_seen(row(data, "lying/0.jpg", "").sha256)
    assert trained.metrics["data_fingerprint"] != whole.metrics["data_fingerprint"]
    assert events[0] == Notice("By decision, 2 photos left out and 1 relabelled.")
    kept = decisions.read([trained.run / "decisions.csv"])
    assert [(d.path, d.label, d.decision) for d in kept] == [
        ("lying/0.jpg", "lying", "drop"),
        ("lying/2.jpg", "lying", "standing"),
        ("standing/1.jpg", "standing", "drop"),
    ]
    assert not (whole.run / "decisions.csv").exists()


def test_a_resumed_run_keeps_its_decisions_though_the_file_is_gone(cleaned: tuple[Path, Path], tmp_path: Path) -> None:
    data, path = cleaned
    whole = train([str(data)], wish_of(tmp_path / "whole", path))
    with pytest.raises(MemoryError):
        train([str(data)], wish_of(tmp_path / "cut", path), on_event=stop)
    path.unlink()
    resumed = train([], Wish(out=tmp_path / "cut", resume=True))
    assert resumed.model.read_bytes() == whole.model.read_bytes()


def test_resuming_with_other_decisions_is_refused_and_with_the_same_is_not(
    cleaned: tuple[Path, Path], tmp_path: Path
) -> None:
    data, path = cleaned
    train([str(data)], wish_of(tmp_path / "run", path))
    again = Wish(out=tmp_path / "run", resume=True)
    train([], replace(again, decisions=(path,)))
    other = tmp_path / "other.csv"
    decisions.write(other, [row(data, "lying/9.jpg", "drop")])
    with pytest.raises(UsageError) as caught:
        train([], replace(again, decisions=(path, other)))
    assert caught.value.message.startswith(
        f"{tmp_path / 'run'} cannot be resumed with other settings: --decisions was "
        f"'{tmp_path / 'run' / 'decisions.csv'}' and is now '{path}, {other}'."
    )


def test_a_class_that_is_decided_away_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    decisions.write(path, [row(data, f"lying/{number}.jpg", "drop") for number in range(30)])
    with pytest.raises(DataError, match=f"Class lying has no photo to learn from in {data}"):
        train([str(data)], wish_of(tmp_path / "run", path))
    assert not (tmp_path / "run").exists()


def test_the_command_that_skips_bad_photos_keeps_the_decisions(cleaned: tuple[Path, Path], tmp_path: Path) -> None:
    data, path = cleaned
    (data / "lying" / "bad.jpg").write_text("no photo")
    with pytest.raises(DataError) as caught:
        train([str(data)], wish_of(tmp_path / "run", path))
    assert f"--decisions {path} --skip-bad" in caught.value.message
    decisions.write(tmp_path / "bad.csv", [row(data, "lying/bad.jpg", "drop")])
    assert train([str(data)], wish_of(tmp_path / "run", path, tmp_path / "bad.csv")).metrics["steps"] == 3


def test_the_list_of_a_plain_check_is_such_a_file(data: Path, tmp_path: Path) -> None:
    (data / "lying" / "bad.jpg").write_text("no photo")
    (data / "lying" / "copy.jpg").write_bytes((data / "lying" / "4.jpg").read_bytes())
    plusx.check(data, out=tmp_path / "check", workers=0)
    trained = train([str(data)], wish_of(tmp_path / "run", tmp_path / "check" / "quarantine.csv"))
    dropped = {line.path for line in decisions.read([trained.run / "decisions.csv"])}
    assert "lying/bad.jpg" in dropped


def test_what_training_accepted_testing_accepts_though_it_is_not_about_the_test(data: Path, tmp_path: Path) -> None:
    """The rows are about photos that the run was started without, or that lie elsewhere than in the test."""
    path = tmp_path / "check" / "quarantine.csv"
    (data / "lying" / "copy.jpg").write_bytes((data / "lying" / "4.jpg").read_bytes())
    plusx.check(data, out=path.parent, workers=0)
    trained = train([str(data)], wish_of(tmp_path / "run", path))
    told = evaluate(trained.run, decisions=[path])
    assert told.to_json()["decisions"] == {"dropped": 0, "relabelled": 0, "unmatched": 0}
    assert told.lines()[-1].startswith("No photo here was changed by decision: ")
    parts = fill(tmp_path / "parts" / "train", {"lying": 3, "standing": 3}, first=200).parent
    fill(parts / "test", {"lying": 2, "standing": 2}, first=300)
    decisions.write(path, [row(parts, "train/lying/200.jpg", "drop")])
    assert evaluate(trained.model, str(parts), decisions=[path]).figures["n"] == 4
    decisions.write(path, [replace(row(parts, "train/lying/200.jpg", "drop"), path="lying/elsewhere.jpg")])
    for tested in ((trained.run,), (trained.model, str(parts))):
        with pytest.raises(DataError, match=r"None of the 1 rows of .* matches a photo of"):
            evaluate(*tested, decisions=[path])


@pytest.fixture
def tested(data: Path, tmp_path: Path) -> tuple[Path, Trained, str]:
    trained = train([str(data)], wish_of(tmp_path / "run"))
    name = next(line.path for line in read_split_csv(trained.run / "split.csv") if line.split == "test")
    return data, trained, name


def test_a_run_is_tested_as_it_was_decided_and_as_is_decided_now(
    tested: tuple[Path, Trained, str], tmp_path: Path
) -> None:
    data, trained, name = tested
    other = "standing" if name.startswith("lying") else "lying"
    path = tmp_path / "later.csv"
    before = evaluate(trained.run)
    decisions.write(path, [row(data, name, "drop")])
    dropped = evaluate(trained.run, decisions=[path])
    assert (before.figures["n"], dropped.figures["n"]) == (6, 5)
    assert dropped.to_json()["decisions"] == {"dropped": 1, "relabelled": 0, "unmatched": 0}
    assert dropped.lines()[-1] == "By decision, 1 photo left out and 0 relabelled."
    decisions.write(path, [row(data, name, other)])
    relabelled = evaluate(trained.run, decisions=[path]).figures
    assert relabelled["n"] == 6
    assert abs(relabelled["accuracy"] - before.figures["accuracy"]) == pytest.approx(1 / 6)
    decided = train([str(data)], wish_of(tmp_path / "again", path))
    assert evaluate(decided.run).decided.relabelled == 1


def test_a_model_is_tested_on_data_as_it_is_decided(tested: tuple[Path, Trained, str], tmp_path: Path) -> None:
    _, trained, _ = tested
    new = fill(tmp_path / "new", {"lying": 3, "odd": 2}, first=100)
    path = tmp_path / "new.csv"
    rows = [row(new, "odd/100.jpg", "standing"), row(new, "odd/101.jpg", "drop"), row(new, "lying/100.jpg", "stading")]
    decisions.write(path, rows)
    with pytest.raises(DataError, match=r"Did you mean standing\?"):
        evaluate(trained.model, str(new), decisions=[path])
    decisions.write(path, rows[:2])
    assert evaluate(trained.model, str(new), decisions=[path]).figures["n"] == 4


def test_the_command_line_and_python_take_decisions(cleaned: tuple[Path, Path], tmp_path: Path) -> None:
    data, path = cleaned
    words = [word for text in SETS for word in ("--set", text)]
    words += [w for name, value in FLAGS.items() for w in (f"--{name.replace('_', '-')}", str(value))]
    out = tmp_path / "a"
    assert cli(["train", str(data), *words, "--decisions", str(path), "--out", str(out)]) == 0
    assert cli(["evaluate", str(tmp_path / "a"), "-q"]) == 0
    settings = dict(text.split("=") for text in SETS if "sizes" not in text) | {"sizes": ()}
    trained = plusx.train(data, out=tmp_path / "b", decisions=path, **FLAGS, **settings)
    assert (tmp_path / "a" / "decisions.csv").read_bytes() == (trained.run / "decisions.csv").read_bytes()
