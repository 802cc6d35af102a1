"""Photos that changed while a run was stopped: row T28."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import plusx
from plusx.cli.run import run as cli
from plusx.data.split import read_split_csv
from plusx.errors import DataError, Interrupted, UsageError
from plusx.model_file import load, short_hash
from plusx.training.checkpoint import found, step_of
from plusx.training.events import Notice, StepDone
from plusx.verbs.evaluate import evaluate
from plusx.verbs.finish import Trained
from plusx.verbs.seeds import train_seeds
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS, draw, fill


def cut(at: int) -> Any:
    def listen(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == at:
            raise MemoryError("power cut")

    return listen


@dataclass(frozen=True)
class Stopped:
    """A run that was stopped after its fourth of nine steps, and its photos."""

    run: Path
    data: Path

    def of(self, split: str, kind: str = "") -> list[str]:
        """The photos of one split, and one class."""
        return [row.path for row in read_split_csv(self.run / "split.csv") if row.split == split and kind in row.path]

    def go_on(self, *, accept: bool = True, events: list[Any] | None = None) -> Trained:
        wish = Wish(out=self.run, resume=True, accept_changes=accept)
        return train([], wish, on_event=None if events is None else events.append)

    def refused(self, *, accept: bool = False) -> str:
        """The sentence that refuses to go on; the run folder stays as it was."""
        before = contents(self.run)
        with pytest.raises(DataError) as caught:
            self.go_on(accept=accept)
        assert caught.value.exit_code == 3
        assert contents(self.run) == before
        return caught.value.message


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    folder = tmp_path_factory.mktemp("once")
    data = fill(folder / "stripes", {"lying": 30, "standing": 30})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.delenv("PLUSX_PHOTOS", raising=False)
        with pytest.raises(MemoryError):
            train([str(data)], Wish(QUICK, SETS, out=folder / "run"), on_event=cut(5))
    return Stopped(folder / "run", data)


@pytest.fixture
def stopped(once: Stopped, tmp_path: Path) -> Stopped:
    """A copy of the run and its photos, to be changed."""
    shutil.copytree(once.run, tmp_path / "run")
    shutil.copytree(once.data, tmp_path / "stripes")
    (tmp_path / "run" / "run.json").write_text(json.dumps({"data": [str(tmp_path / "stripes")]}))
    return Stopped(tmp_path / "run", tmp_path / "stripes")


@pytest.fixture
def without_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plusx.verbs.train._write_pages", lambda *_: None)


def add(folder: Path, label: int, number: int, name: str | None = None) -> str:
    path = folder / ("lying", "standing")[label] / (name or f"{number}.jpg")
    draw(label, number).save(path, quality=90)
    return str(path.relative_to(folder))


def test_changed_photos_stop_a_resume_with_the_difference(stopped: Stopped) -> None:
    data = stopped.data
    for number in range(100, 105):
        add(data, 0, number)
    for number in (3, 4):
        (data / "lying" / f"{number}.jpg").unlink()
    add(data, 1, 200, "7.jpg")
    (data / "standing" / "8.jpg").rename(data / "standing" / "eight.jpg")
    (data / "standing" / "9.jpg").rename(data / "lying" / "nine.jpg")
    assert stopped.refused() == (
        f"{data} has changed since the run was started. "
        "Photos added: 5 (lying/100.jpg, lying/101.jpg, lying/102.jpg and 2 more); "
        "removed: 2 (lying/3.jpg, lying/4.jpg); edited: 1 (standing/7.jpg); "
        "relabelled: 1 (lying/nine.jpg, standing before); renamed: 1 (standing/eight.jpg, standing/8.jpg before). "
        "Bring the old photos back, start a new run, or train on with --accept-changes; the run then says of itself "
        "that it is not exact."
    )


@pytest.mark.parametrize("where", ["train", "val", "test"])
def test_a_photo_that_is_gone_is_named_and_the_shifts_it_causes_are_not(where: str, stopped: Stopped) -> None:
    photo = stopped.of(where)[0]
    (stopped.data / photo).unlink()
    assert f"since the run was started. Photos removed: 1 ({photo}). Bring" in stopped.refused()


def test_accepted_changes_are_trained_on_and_told_wherever_the_run_is_shown(
    stopped: Stopped, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone, edited = stopped.of("train")[:2]
    tested = stopped.of("test")
    (stopped.data / gone).unlink()
    new = add(stopped.data, 0, 100)
    Image.open(stopped.data / tested[0]).save(stopped.data / f"{tested[0]}-again.jpg", quality=70)
    draw("standing" in edited, 300).save(stopped.data / edited)
    before = {row.path: row for row in read_split_csv(stopped.run / "split.csv")}
    assert cli(["train", "--resume", "--accept-changes", "--out", str(stopped.run)]) == 0
    said = capsys.readouterr()
    changed = "photos added: 2, removed: 1, edited: 1"
    line = f"not exact: photos changed while it was stopped after step 4 ({changed})"
    assert line in said.out.splitlines()
    assert (
        f"Note: {stopped.data} has changed since the run was started ({changed}), which was accepted: from step 5 on "
        "it trains on the photos as they are now. The result is not exactly that of any run without a stop."
    ) in " ".join(said.err.split())
    rows = {row.path: row for row in read_split_csv(stopped.run / "split.csv")}
    assert rows.keys() == before.keys() - {gone} | {new, f"{tested[0]}-again.jpg"}
    assert {path: row.split for path, row in rows.items() if path in before} == {
        path: row.split for path, row in before.items() if path in rows
    }
    assert (rows[new].split, rows[f"{tested[0]}-again.jpg"].split) == ("train", "test")
    facts = [{"step": 4, "photos": {"added": 2, "removed": 1, "edited": 1}}]
    model = load(stopped.run / "model.safetensors")
    assert json.loads((stopped.run / "metrics.json").read_text())["accepted_changes"] == facts
    assert model.header.metrics["accepted_changes"] == facts
    record = json.loads((stopped.run / "changes.json").read_text())
    assert record["exact"] is False
    assert [cells[0] for cells in record["accepted"][0]["gone"]] == sorted([gone, edited])
    assert line in (stopped.run / "report.html").read_text()
    assert line in (stopped.run / "card.md").read_text()
    assert model.known.has_seen(before[gone].sha256), "it was trained on, so it is no photo to test on"
    assert model.known.has_seen(before[edited].sha256)
    assert model.known.has_seen(rows[edited].sha256)
    assert evaluate(stopped.run).figures["n"] == len(tested) + 1


def test_a_run_that_was_accepted_resumes_exactly_from_there_on_and_asks_no_more(
    stopped: Stopped, tmp_path: Path, without_pages: None
) -> None:
    add(stopped.data, 0, 100)
    (stopped.data / stopped.of("train")[0]).unlink()
    shutil.copytree(stopped.run, tmp_path / "straight")
    whole = Stopped(tmp_path / "straight", stopped.data).go_on()
    with pytest.raises(MemoryError):
        train([], Wish(out=stopped.run, resume=True, accept_changes=True), on_event=cut(8))
    resumed = stopped.go_on(accept=False)
    for name in ("model.safetensors", "history.jsonl", "changes.json", "split.csv"):
        assert (resumed.run / name).read_bytes() == (whole.run / name).read_bytes(), name
    assert resumed.metrics["accepted_changes"] == [{"step": 4, "photos": {"added": 1, "removed": 1}}]


def test_a_second_change_is_recorded_beside_the_first_and_a_photo_that_comes_back_goes_where_it_was(
    stopped: Stopped, without_pages: None
) -> None:
    tested, validated = stopped.of("test")[0], stopped.of("val")[0]
    kept = {path: (stopped.data / path).read_bytes() for path in (tested, validated)}
    for path in kept:
        (stopped.data / path).unlink()
    with pytest.raises(MemoryError):
        train([], Wish(out=stopped.run, resume=True, accept_changes=True), on_event=cut(7))
    for path, content in kept.items():
        (stopped.data / path).with_name(f"back-{Path(path).name}").write_bytes(content)
    trained = stopped.go_on()
    rows = {row.path: row.split for row in read_split_csv(stopped.run / "split.csv")}
    assert {path.partition("back-")[2]: split for path, split in rows.items() if "back-" in path} == {
        Path(tested).name: "test",
        Path(validated).name: "val",
    }
    assert trained.metrics["accepted_changes"] == [
        {"step": 4, "photos": {"removed": 2}},
        {"step": 6, "photos": {"added": 2}},
    ]


def test_a_change_whose_acceptance_was_cut_off_is_recorded_once(
    stopped: Stopped, without_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T28: killed between the record of the change and the split, which is written last."""
    (stopped.data / stopped.of("train")[0]).unlink()

    def killed(*_: Any) -> None:
        raise MemoryError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("plusx.data.split.write_split_csv", killed)
        with pytest.raises(MemoryError):
            stopped.go_on()
    assert len(json.loads((stopped.run / "changes.json").read_text())["accepted"]) == 1
    trained = stopped.go_on()
    assert trained.metrics["accepted_changes"] == [{"step": 4, "photos": {"removed": 1}}]


def test_an_accepted_change_is_recorded_with_the_step_that_the_run_goes_on_from(
    stopped: Stopped, without_pages: None
) -> None:
    """T28: the newest checkpoint has lost its best weights, and the one before it has not."""
    newest, older = found(stopped.run / "checkpoints")
    bests = [json.loads((path / "state.json").read_bytes())["best_step"] for path in (newest, older)]
    assert bests == [3, 0]
    (stopped.run / "best" / "step-000003" / "model.safetensors").write_bytes(b"")
    config = stopped.run / "config.yaml"
    config.write_text(config.read_text().replace("keep: last", "keep: best"))
    add(stopped.data, 0, 100)
    events: list[Any] = []
    trained = stopped.go_on(events=events)
    first = next(event.step for event in events if isinstance(event, StepDone))
    assert first == step_of(older) + 1
    assert trained.metrics["accepted_changes"] == [{"step": first - 1, "photos": {"added": 1}}]


def test_changes_of_a_run_that_is_finished_are_accepted_by_nobody_and_that_is_told(
    stopped: Stopped, without_pages: None
) -> None:
    stopped.go_on(accept=False)
    before, events = contents(stopped.run), list[Any]()
    add(stopped.data, 0, 100)
    stopped.go_on(events=events)
    assert [event.text for event in events if isinstance(event, Notice)] == [
        f"{stopped.run} is finished and stays as it was trained, so --accept-changes changes nothing; start a new run."
    ]
    assert contents(stopped.run) == before


def test_where_nothing_changed_there_is_nothing_to_accept(
    stopped: Stopped, tmp_path: Path, without_pages: None
) -> None:
    shutil.copytree(stopped.run, tmp_path / "plain")
    accepting, plain = stopped.go_on(), Stopped(tmp_path / "plain", stopped.data).go_on(accept=False)
    assert accepting.model.read_bytes() == plain.model.read_bytes()
    assert not (stopped.run / "changes.json").exists()
    assert "accepted_changes" not in accepting.metrics


def test_other_classes_are_refused_though_changes_are_accepted(stopped: Stopped) -> None:
    fill(stopped.data / "more", {"leaning": 3})
    (stopped.data / "more" / "leaning").rename(stopped.data / "leaning")
    (stopped.data / "more").rmdir()
    assert stopped.refused(accept=True) == (
        f"{stopped.data} has other classes than the run was started with: it has also leaning. "
        "Classes are fixed when a run starts: start a new run, or put the folders back as they were."
    )
    shutil.rmtree(stopped.data / "standing")
    assert "it has also leaning and has no more standing. Classes" in stopped.refused(accept=True)


def test_a_class_that_has_lost_its_training_photos_is_refused_and_nothing_is_recorded(stopped: Stopped) -> None:
    for path in stopped.of("train", "lying"):
        (stopped.data / path).unlink()
    assert stopped.refused(accept=True) == (
        f"Class lying has no photo to learn from in {stopped.data}, and at least two are needed: "
        "add photos, or remove the class."
    )


def test_a_new_photo_that_cannot_be_read_is_refused_with_a_command_that_begins_anew(stopped: Stopped) -> None:
    (stopped.data / "lying" / "bad.jpg").write_text("no photo")
    lines = stopped.refused(accept=True).splitlines()
    assert lines[0] == f"1 of 61 photos in {stopped.data} cannot be read:"
    assert lines[2] == (
        "Mend or remove them, or leave them out with: "
        f"plusx train {stopped.data} --config {stopped.run}/config.yaml --skip-bad"
    )


def test_changes_are_accepted_of_a_run_that_is_gone_on_with_and_of_no_other(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        train([str(data)], Wish(QUICK, SETS, out=tmp_path / "run", accept_changes=True))
    assert caught.value.exit_code == 2
    assert caught.value.message == (
        "--accept-changes goes on with a run whose photos have changed: add --resume and its --out, or leave it out."
    )
    assert not (tmp_path / "run").exists()


def test_python_code_accepts_changes_too(stopped: Stopped, without_pages: None) -> None:
    add(stopped.data, 1, 100)
    with pytest.raises(DataError, match=r"Photos added: 1 \(standing/100\.jpg\)\."):
        plusx.train(out=stopped.run, resume=True)
    trained = plusx.train(out=stopped.run, resume="accept-changes")
    assert trained.metrics["accepted_changes"] == [{"step": 4, "photos": {"added": 1}}]


def test_a_new_photo_in_a_folder_of_its_own_split_goes_there(tmp_path: Path, without_pages: None) -> None:
    for number, name in enumerate(("train", "val", "test")):
        fill(tmp_path / "set" / name, {"lying": 10, "standing": 10}, first=100 * number)
    run = Stopped(tmp_path / "run", tmp_path / "set")
    with pytest.raises(MemoryError):
        train([str(run.data)], Wish(QUICK, SETS, out=run.run), on_event=cut(3))
    added = [add(run.data / name, 0, 900 + number) for number, name in enumerate(("train", "val", "test"))]
    moved = run.of("train", "standing")[0]
    (run.data / moved).rename(run.data / "val" / "standing" / "moved.jpg")
    with pytest.raises(MemoryError):
        train([], Wish(out=run.run, resume=True, accept_changes=True), on_event=cut(3))
    rows = {row.path: row.split for row in read_split_csv(run.run / "split.csv")}
    assert [rows[f"{name}/{path}"] for name, path in zip(("train", "val", "test"), added, strict=True)] == [
        "train",
        "val",
        "test",
    ]
    assert rows["val/standing/moved.jpg"] == "train", "it was trained on, so nothing can be chosen by it"


def test_photos_that_were_left_out_stay_out_unless_they_were_mended(tmp_path: Path, without_pages: None) -> None:
    data = fill(tmp_path / "stripes", {"lying": 30, "standing": 30})
    for name in ("bad", "worse"):
        (data / "lying" / f"{name}.jpg").write_text(f"no photo, {name}")
    run = Stopped(tmp_path / "run", data)
    with pytest.raises(MemoryError):
        train([str(data)], Wish(QUICK | {"skip_bad": True}, SETS, out=run.run), on_event=cut(3))
    draw(0, 500).save(data / "lying" / "bad.jpg")
    (data / "standing" / "new.jpg").write_text("no photo either")
    events: list[Any] = []
    trained = run.go_on(events=events)
    skipped = (run.run / "skipped.csv").read_text().splitlines()[1:]
    assert [line.partition(",")[0] for line in skipped] == ["lying/worse.jpg", "standing/new.jpg"]
    mended = next(row for row in read_split_csv(run.run / "split.csv") if row.path == "lying/bad.jpg")
    assert (short_hash(mended.sha256) in load(trained.model).seen) == (mended.split != "test")
    assert any("edited: 1" in event.text for event in events if isinstance(event, Notice))


def test_seeds_that_have_not_begun_are_refused_other_photos_than_the_first_had(data: Path, tmp_path: Path) -> None:
    wish = Wish(QUICK | {"epochs": 1}, SETS, out=tmp_path / "seeds")

    def stop(event: Any) -> None:
        if (tmp_path / "seeds" / "seed-1" / "report.html").exists():
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        train_seeds([str(data)], wish, 2, on_event=stop)
    shutil.rmtree(tmp_path / "seeds" / "seed-2")  # as if the stop had come a moment earlier
    (data / "lying" / "5.jpg").unlink()
    with pytest.raises(DataError) as caught:
        train_seeds([], Wish(out=tmp_path / "seeds", resume=True), None)
    assert caught.value.message == (
        f"{data} has changed since the run was started. Photos removed: 1 (lying/5.jpg). "
        "Bring the old photos back, or start a new run."
    )
