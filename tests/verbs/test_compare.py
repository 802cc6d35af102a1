"""Runs beside each other, and several seeds of one."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from plusx.cli.run import run as cli
from plusx.errors import DiskError, Interrupted, ModelError, UsageError
from plusx.report.comparison import comparison_page
from plusx.run_folder import open_run
from plusx.training.events import StepDone
from plusx.verbs.answers import read_answers, write_answers
from plusx.verbs.compare import compare
from plusx.verbs.reports import Built
from plusx.verbs.seeds import is_of_seeds, train_seeds
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS, fill

WISH = Wish(flags=QUICK | {"epochs": 2}, sets=SETS)


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    return train([str(data)], replace(WISH, out=tmp_path / "first")).run


def twin(run: Path, name: str, right: list[bool], **settings: Any) -> Path:
    """A copy of a run whose answers are right where `right` says so."""
    other = run.with_name(name)
    shutil.copytree(run, other)
    folder = open_run(other)
    answered = read_answers(folder.validation_answers)
    assert answered is not None
    pick = [label if ok else 1 - label for label, ok in zip(answered.labels, right, strict=True)]
    changed = replace(answered, probabilities=np.eye(2, dtype=np.float32)[pick] * 0.8 + 0.1)
    write_answers(folder.validation_answers, changed)
    folder.write("metrics", folder.read("metrics") | {"validation": changed.figures()})
    folder.write_config(folder.read_config() | settings)
    return other


def longer(run: Path, times: int) -> Path:
    """The run with its validation answers many times over, each a photo of its own."""
    folder = open_run(run)
    answered = read_answers(folder.validation_answers)
    assert answered is not None
    hashes = tuple(f"{sha256}-{copy}" for copy in range(times) for sha256 in answered.hashes)
    many = {name: getattr(answered, name) * times for name in ("names", "answers")}
    arrays = {n: np.concatenate([getattr(answered, n)] * times) for n in ("labels", "probabilities", "novelty")}
    write_answers(folder.validation_answers, replace(answered, hashes=hashes, **many, **arrays))
    return run


def test_two_runs_are_compared_on_the_photos_both_answered(run: Path) -> None:
    longer(run, 10)  # 60 photos
    first = twin(run, "a", [True] * 30 + [False] * 10 + [True] * 20, weight_decay=0.1)
    second = twin(run, "b", [False] * 2 + [True] * 58, weight_decay=0.2)
    verdict = compare([first, second]).verdicts[0]
    assert verdict.p == pytest.approx(binomtest(2, 12, 0.5).pvalue)
    assert verdict.differs
    assert verdict.sentence() == (
        "b is better than a (+13.33 points; McNemar's test on 60 common photos, 2 and 10 right in one alone, p = 0.039)"
    )
    third = twin(run, "c", [True] * 30 + [False] * 9 + [True] * 21, weight_decay=0.3)
    verdicts = compare([first, second, third]).verdicts
    assert not verdicts[0].differs  # the same p-value, one of three
    assert "adjusted for 3 tests, p = 0.12)" in verdicts[0].sentence()
    assert verdicts[1].sentence().startswith("a and c: no difference (+1.67 points; McNemar's test on 60 common photos")
    assert [dict(c.settings) for c in compare([first, second]).runs] == [{"weight_decay": 0.1}, {"weight_decay": 0.2}]


def test_without_common_photos_the_intervals_decide_and_that_is_said(run: Path) -> None:
    longer(run, 10)
    first, second = twin(run, "a", [True] * 60, weight_decay=0.1), twin(run, "b", [True] * 30 + [False] * 30)
    folder = open_run(second)
    folder.validation_answers.unlink()
    verdict = compare([first, second]).verdicts[0]
    assert (verdict.p, verdict.differs) == (None, True)
    assert verdict.sentence() == (
        "a is better than b (-50.00 points; too few photos in common, so by the 95 % intervals, "
        "94.04 % to 100.00 % and 36.81 % to 63.19 %)"
    )


def test_runs_that_differ_by_their_seed_alone_are_a_group_and_groups_are_compared_over_seeds(run: Path) -> None:
    longer(run, 10)
    good = [twin(run, f"a{seed}", [True] * (57 + seed) + [False] * (3 - seed), seed=seed) for seed in range(3)]
    bad = [twin(run, f"b{s}", [True] * (40 + s) + [False] * (20 - s), seed=s, weight_decay=0.1) for s in range(3)]
    assert compare(good).verdicts == ()
    comparison = compare([*good, *bad])
    assert [group.runs for group in comparison.groups] == [("a0", "a1", "a2"), ("b0", "b1", "b2")]
    (verdict,) = comparison.verdicts
    assert verdict.differs
    assert verdict.sentence().startswith(
        "a0 (3 seeds) is better than b0 (3 seeds) (-28.33 points; Welch's test over 3 and 3 seeds, p = "
    )
    one = compare([*good, bad[0]]).verdicts[0]
    assert one.differs
    assert "the largest of McNemar's tests with each of 3 seeds" in one.sentence()
    page = comparison_page(comparison)
    assert "a0 (3 seeds): mean accuracy 96.67 %, spread 1.67 points (standard deviation), n = 3 seeds" in page
    assert "<td>0.1</td>" in page
    assert page.count("<svg") == 2


def test_a_run_that_is_better_than_one_seed_and_worse_than_another_is_neither(run: Path) -> None:
    longer(run, 10)
    seeds = [twin(run, f"a{s}", [bool(s)] * 30 + [True] * 30, seed=s) for s in range(2)]  # 50 % and 100 %
    middle = twin(run, "b", [True] * 45 + [False] * 15, weight_decay=0.1)
    (verdict,) = compare([*seeds, middle]).verdicts
    assert (verdict.p, verdict.differs) == (1.0, False)
    assert verdict.sentence() == (
        "a0 (2 seeds) and b: no difference (+0.00 points; McNemar's tests with each of 2 seeds, which differ in their "
        "direction, p = 1)"
    )


def test_the_difference_is_that_on_the_photos_both_answered(run: Path) -> None:
    longer(run, 10)
    first = twin(run, "a", [True] * 40 + [False] * 20, weight_decay=0.1)  # 67 %, and 100 % of the common
    second = twin(run, "b", [False] * 20 + [True] * 40, weight_decay=0.2)  # 67 %, and 50 %
    folder = open_run(second)
    answered = read_answers(folder.validation_answers)
    assert answered is not None
    others = (*answered.hashes[:40], *(f"other {i}" for i in range(20)))
    write_answers(folder.validation_answers, replace(answered, hashes=others))
    (verdict,) = compare([first, second]).verdicts
    assert verdict.difference == -0.5
    assert verdict.sentence().startswith("a is better than b (-50.00 points; McNemar's test on 40 common photos, 20 ")
    few = (*answered.hashes[:29], *(f"other {i}" for i in range(31)))
    write_answers(folder.validation_answers, replace(answered, hashes=few))
    (verdict,) = compare([first, second]).verdicts
    assert (verdict.p, verdict.method[:28]) == (None, "too few photos in common, so")


def test_a_run_and_its_copy_are_no_two_seeds(run: Path) -> None:
    copy = twin(run, "copy", [True] * 6)
    comparison = compare([run, copy])
    assert [group.runs for group in comparison.groups] == [("first",), ("copy",)]
    assert comparison.seeds() == ()


def test_what_cannot_be_compared_is_refused_in_a_sentence(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="compare needs at least two different runs and got 1; name their run folders"):
        compare([run, run])
    with pytest.raises(ModelError, match="There is no"):
        compare([run, tmp_path / "nowhere"])
    other = train([str(fill(tmp_path / "o", {"x": 9, "y": 9}))], replace(WISH, out=tmp_path / "other")).run
    with pytest.raises(UsageError, match=r"other tells other classes apart than .*first, so there is nothing to"):
        compare([run, other])
    broken = twin(run, "broken", [True] * 6, no_such_setting=1)
    with pytest.raises(ModelError, match=r"broken/config\.yaml is damaged: no_such_setting: Extra inputs"):
        compare([run, broken])
    unmeasured = twin(run, "u", [True] * 6)
    folder = open_run(unmeasured)
    folder.write("metrics", folder.read("metrics") | {"validation": None})
    with pytest.raises(UsageError, match=r"u was trained without validation photos and has not been tested; test it"):
        compare([run, unmeasured])


def test_several_seeds_are_trained_on_one_split_and_an_interrupted_one_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, seen = tmp_path / "seeds of mine", []

    def stop(event: object) -> None:
        seen.append(isinstance(event, StepDone))
        if sum(seen) == 8:  # in the second run: each has six steps
            raise Interrupted("stopped there")

    with pytest.raises(Interrupted) as caught:
        train_seeds([str(data)], replace(WISH, out=out), 3, on_event=stop)
    command = f"plusx train --resume --out '{out}'"
    assert caught.value.message == f"Stopped; everything is in {out}. Continue with: {command}"
    assert is_of_seeds(out)
    assert cli(["train", "--resume", "--out", str(out), "--seeds", "2"]) == 2
    assert "cannot be resumed with other settings: --seeds was 3 and is now 2." in capsys.readouterr().err
    assert cli(["train", "--resume", "--out", str(out), "--epochs", "5"]) == 2
    assert "cannot be resumed with other settings: epochs was 2 and is now 5." in capsys.readouterr().err
    assert cli(["train", str(data), "--resume", "--out", str(out), "--seed", "1", "--epochs", "2", "-q"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in told[2:5]] == [["seed-1", "1"], ["seed-2", "2"], ["seed-3", "3"]]
    assert told[5].startswith("seed-1 (3 seeds): mean accuracy ")
    assert told[5].endswith(" n = 3 seeds")
    assert told[6:] == [f"the runs are in {out}", f"curves: {out / 'compare.html'}"]
    assert (out / "compare.html").read_text().count("<svg") == 2
    splits = {(out / f"seed-{seed}" / "split.csv").read_bytes() for seed in (1, 2, 3)}
    assert len(splits) == 1
    assert len({(out / f"seed-{seed}" / "history.jsonl").read_bytes() for seed in (1, 2, 3)}) == 3
    wish = replace(WISH, flags=WISH.flags | {"seed": 2}, sets=(*SETS, "split_seed=1"), out=tmp_path / "alone")
    alone = train([str(data)], wish)
    history = (out / "seed-2" / "history.jsonl").read_bytes()
    assert (alone.run / "history.jsonl").read_bytes() == history
    assert cli(["train", "--resume", "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in document["runs"]] == [str(out / f"seed-{seed}") for seed in (1, 2, 3)]
    assert document["comparison"]["verdicts"] == []


def test_all_seeds_obey_the_decisions_that_the_first_was_started_with(data: Path, tmp_path: Path) -> None:
    photo, file, out = data / "lying" / "3.jpg", tmp_path / "decided.csv", tmp_path / "seeds"
    sha256 = hashlib.sha256(photo.read_bytes()).hexdigest()
    file.write_text(f"path,sha256,class,reason,suggested,decision\nlying/3.jpg,{sha256},lying,,,drop\n")

    def edited(event: object) -> None:
        file.unlink(missing_ok=True)

    seeds = train_seeds([str(data)], replace(WISH, out=out, decisions=[file]), 2, on_event=edited)
    assert len({(run.run / "split.csv").read_bytes() for run in seeds.runs}) == 1
    assert "lying/3.jpg" not in (out / "seed-2" / "split.csv").read_text()


def test_the_first_ctrl_c_leaves_seeds_to_go_on_with_and_the_second_ends_at_once(data: Path, tmp_path: Path) -> None:
    out, presses = tmp_path / "seeds", []

    def press(event: object) -> None:
        if isinstance(event, Built) and presses:
            try:
                raise KeyboardInterrupt
            finally:
                if presses.pop() == 2:
                    raise KeyboardInterrupt

    def pressed(times: int) -> None:
        presses[:] = [times]
        train_seeds([str(data)], replace(WISH, out=out, resume=out.exists()), 2, on_event=press)

    with pytest.raises(Interrupted):
        pressed(1)
    with pytest.raises(KeyboardInterrupt):
        pressed(2)


def test_a_disk_that_ends_one_of_several_seeds_leaves_the_command_that_goes_on_with_all(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T19: not with the run of that seed alone, after which the seeds to come would never be trained."""
    out = tmp_path / "seeds"

    def full(*_: Any, **__: Any) -> None:
        raise DiskError(f"Could not write {out / 'seed-1'}: No space left on device.", code="cannot-write")

    monkeypatch.setattr("plusx.verbs.train.finish", full)
    with pytest.raises(DiskError) as caught:
        train_seeds([str(data)], replace(WISH, out=out), 2)
    assert caught.value.message == (
        f"Could not write {out / 'seed-1'}: No space left on device. What was written before is whole. "
        f"Continue with: plusx train --resume --out {out}"
    )
    assert (caught.value.code, caught.value.exit_code) == ("cannot-write", 5)


def test_seeds_on_data_that_is_refused_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(["train", "nowhere", "--seeds", "2"]) == 3
    assert not list((tmp_path / "runs").iterdir())
    assert cli(["train", "nowhere", "--seeds", "1"]) == 2
    assert "--seeds is 1, and a spread needs at least 2" in capsys.readouterr().err
    assert cli(["train", "--resume", "--seeds", "2", "--out", "runs"]) == 4
    assert "plusx: runs holds no training over several seeds; continue a single run without" in capsys.readouterr().err
    assert cli(["train", "--resume", "--seeds", "2"]) == 2


def test_compare_prints_a_table_a_document_and_a_page(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = twin(run, "other", [True] * 6, weight_decay=0.1)
    assert cli(["compare", str(run), str(other), "--out", str(tmp_path / "c.html")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("Measured on validation, since not every run was tested")
    assert [line.split()[0] for line in told[2:4]] == ["first", "other"]
    assert told[4] == "settings that differ:"
    assert told[6].split() == ["weight_decay", "0.0005", "0.1"]
    assert "Comparison of runs" in (tmp_path / "c.html").read_text()
    assert cli(["compare", str(run), str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][1]["accuracy"] == 1.0
