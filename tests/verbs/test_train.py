"""Training, stopping, resuming, testing and using, as one straight path."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import plusx
from plusx.errors import DataError, ModelError, UsageError
from plusx.recipes.plan import Plan
from plusx.training.events import Notice, StepDone
from plusx.verbs.evaluate import evaluate
from plusx.verbs.predict import predict
from plusx.verbs.train import Wish, train
from tests.verbs.conftest import QUICK, SETS, fill


def run(data: Path, out: Path, *, sets: tuple[str, ...] = (), events: list[Any] | None = None, **flags: Any) -> Any:
    wish = Wish(flags=QUICK | flags, sets=SETS + sets, out=out)
    return train([str(data)], wish, on_event=None if events is None else events.append)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_becomes_a_model_that_answers(data: Path, tmp_path: Path) -> None:
    events: list[Any] = []
    trained = run(data, tmp_path / "run", events=events, epochs=12)
    names = {path.name for path in trained.run.iterdir()}
    assert names >= {
        *("config.yaml", "plan.json", "environment.json", "split.csv", "history.jsonl", "timing.jsonl"),
        *("checkpoints", "model.safetensors", "metrics.json", "run.json"),
    }
    assert [e.step for e in events if isinstance(e, StepDone)] == list(range(1, 37))
    evaluation = evaluate(trained.run)
    assert evaluation.figures["n"] == 6
    assert evaluation.figures["accuracy"] > 0.8
    rows = list(predict(trained.model, [data]))
    assert len(rows) == 60
    assert np.mean([row.answer in row.path for row in rows]) > 0.9
    model = plusx.load(trained.model)
    photo = data / "lying" / "0.jpg"
    answers = [model.predict(x) for x in (photo, photo.read_bytes(), Image.open(photo), np.asarray(Image.open(photo)))]
    assert len({answer.probability for answer in answers}) == 1
    assert plusx.load(trained.run).classes == ("lying", "standing")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(data: Path, tmp_path: Path) -> None:
    models = [run(data, tmp_path / name, seed=seed).model for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    hashes = [sha256(model) for model in models]
    assert hashes[0] == hashes[1] != hashes[2]
    assert (tmp_path / "a" / "history.jsonl").read_bytes() == (tmp_path / "b" / "history.jsonl").read_bytes()


CHILD = """
import sys
from plusx.cli.run import main
from tests.verbs.conftest import QUICK, SETS
flags = [f"--{k.replace('_', '-')}={v}" for k, v in QUICK.items() if f"--{k}" not in sys.argv]
sets = [x for s in SETS for x in ("--set", s)]
if __name__ == "__main__":
    main(["train", *([] if "--resume" in sys.argv else flags + sets), *sys.argv[1:]])
"""


def child(arguments: list[str], heard: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    root = Path(plusx.__file__).parents[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", CHILD, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=heard)


def test_a_run_killed_three_times_and_resumed_ends_with_the_same_bytes(data: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert child([str(data), "--out", str(whole)]).wait() == 0
    process = child([str(data), "--out", str(cut)])
    kills, chance = 0, random.Random(0)
    while kills < 3:
        time.sleep(0.02)
        if process.poll() is not None:
            break
        if len(list((cut / "checkpoints").glob("step-*"))) > kills % 2:
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
            process.wait()
            kills += 1
            process = child(["--resume", "--out", str(cut)])
    assert process.wait() == 0
    assert sha256(whole / "model.safetensors") == sha256(cut / "model.safetensors")
    assert (whole / "history.jsonl").read_bytes() == (cut / "history.jsonl").read_bytes()


def test_sigterm_exits_with_75_and_the_sentence_that_continues(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = child([str(data), "--out", str(out), "--epochs", "2000"], subprocess.PIPE)
    while not list((out / "checkpoints").glob("step-*")):
        time.sleep(0.05)
        assert process.poll() is None
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 75
    assert time.monotonic() - asked < 10
    assert f"everything is in {out}. Continue with: plusx train --resume --out {out}" in stderr.decode()
    assert "Traceback" not in stderr.decode()


def test_resuming_a_finished_run_changes_nothing(data: Path, tmp_path: Path) -> None:
    trained = run(data, tmp_path / "run")
    before = sha256(trained.model)
    again = train([], Wish(out=tmp_path / "run", resume=True))
    assert (sha256(again.model), again.metrics) == (before, trained.metrics)


def test_resuming_with_other_flags_is_refused_with_the_difference(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run")
    with pytest.raises(UsageError) as caught:
        train([], Wish(flags={"batch_size": 8, "seed": 1}, out=tmp_path / "run", resume=True))
    assert caught.value.message == (
        f"{tmp_path / 'run'} cannot be resumed with other settings: batch_size was 16 and is now 8. "
        "Give the same flags again (or none but --resume), or start a new run without --resume."
    )


def test_changed_photos_stop_a_resume(data: Path, tmp_path: Path) -> None:
    trained = run(data, tmp_path / "run")
    trained.model.unlink()
    (data / "lying" / "7.jpg").unlink()
    with pytest.raises(DataError, match=r"has changed since the run was started: 0 photos were added or edited and 1"):
        train([], Wish(out=tmp_path / "run", resume=True))


def test_an_existing_folder_is_never_overwritten(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("")
    with pytest.raises(UsageError, match="exists already, and runs are never overwritten; choose another --out"):
        run(data, tmp_path / "run")


def test_a_bad_photo_stops_training_before_it_starts_with_the_command_that_goes_on(data: Path, tmp_path: Path) -> None:
    (data / "lying" / "bad one.jpg").write_text("no photo")
    with pytest.raises(DataError) as caught:
        run(data, tmp_path / "run", split="100/0/0")
    assert "1 of 61 photos" in caught.value.message
    assert "bad one.jpg" in caught.value.message
    assert f"plusx train {data} --skip-bad" in caught.value.message
    events: list[Any] = []
    trained = run(data, tmp_path / "other", split="100/0/0", skip_bad=True, events=events)
    assert any("without 1 photos that cannot be read" in e.text for e in events if isinstance(e, Notice))
    assert "bad one.jpg,not-an-image" in (trained.run / "skipped.csv").read_text()


def test_a_plan_repeats_a_run(data: Path, tmp_path: Path) -> None:
    first = run(data, tmp_path / "a")
    wish = Wish(flags=QUICK, sets=SETS, out=tmp_path / "b", plan=first.run / "plan.json")
    assert sha256(train([str(data)], wish).model) == sha256(first.model)


def test_a_time_budget_becomes_a_plan_that_is_kept(data: Path, tmp_path: Path) -> None:
    trained = run(data, tmp_path / "run", epochs=None, time="300s", sets=("max_epochs=2",))
    plan = Plan.from_json(json.loads((trained.run / "plan.json").read_text()))
    assert plan.budget_seconds == 300
    assert plan.total_steps == 2 * plan.steps_per_epoch
    assert [size for size, seconds in plan.seconds_per_step if seconds > 0] == [32]
    assert trained.metrics["steps"] == plan.last_step


def test_the_best_weights_are_kept_when_asked_for(data: Path, tmp_path: Path) -> None:
    trained = run(data, tmp_path / "run", epochs=6, sets=("keep=best",))
    lines = map(json.loads, (trained.run / "history.jsonl").read_text().splitlines())
    figures = {line["step"]: line["validation"]["accuracy"] for line in lines if "validation" in line}
    assert trained.metrics["kept_step"] == max(figures, key=lambda step: (figures[step], -step))


def test_training_stops_early_when_validation_stalls(data: Path, tmp_path: Path) -> None:
    trained = run(data, tmp_path / "run", epochs=50, sets=("patience=2", "keep=best"))
    assert trained.metrics["stopped_early"]
    assert trained.metrics["steps"] < 150


def test_the_textbook_recipe_saves_weights_and_carves_nothing(data: Path, tmp_path: Path) -> None:
    source = fill(tmp_path / "set" / "train", {"lying": 9, "standing": 8})
    fill(tmp_path / "set" / "test", {"lying": 2, "standing": 2}, first=100)
    flags = {"recipe": "textbook", "epochs": 1, "size": 32, "device": "cpu"}
    wish = Wish(flags=flags, sets=("width=0.1", "save_weights_every=2", "workers=0"), out=tmp_path / "run")
    trained = train([str(source.parent)], wish)
    assert sorted(p.name for p in (trained.run / "weights").iterdir()) == [
        "epoch-00-step-000000.safetensors",
        "epoch-00-step-000002.safetensors",
    ]
    assert trained.metrics["steps"] == 3  # 17 photos in batches of 8, the last partial one kept
    assert trained.metrics["validation"] is None
    assert evaluate(trained.run).figures["n"] == 4


def test_photos_a_model_was_trained_on_are_left_out_of_its_test(data: Path, tmp_path: Path) -> None:
    trained = run(data, tmp_path / "run")
    evaluation = evaluate(trained.model, str(data))
    assert evaluation.figures["n"] == 6
    assert len(evaluation.left_out) == 54
    fill(tmp_path / "new", {"lying": 3, "upright": 3})
    with pytest.raises(DataError, match="upright"):
        evaluate(trained.model, str(tmp_path / "new"))
    with pytest.raises(UsageError, match="is a model file and has no test photos of its own; add DATA"):
        evaluate(trained.model)


def test_an_unfinished_run_has_no_model_to_use(data: Path, tmp_path: Path) -> None:
    trained = run(data, tmp_path / "run")
    trained.model.unlink()
    with pytest.raises(ModelError, match=r"has no model yet; finish it with: plusx train --resume --out "):
        list(predict(trained.run, [data]))


def test_predicting_streams_in_order_and_errors_are_rows(data: Path, tmp_path: Path) -> None:
    trained = run(data, tmp_path / "run")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    good = (data / "lying" / "0.jpg").read_bytes()
    (mixed / "a.jpg").write_bytes(good)
    (mixed / "b.jpg").write_bytes(good[: len(good) // 2])
    (mixed / "c.jpg").write_bytes(b"")
    rows = list(predict(trained.model, [mixed, tmp_path / "missing.jpg"]))
    assert [Path(row.path).name for row in rows] == ["a.jpg", "b.jpg", "c.jpg", "missing.jpg"]
    assert [row.error and row.error["code"] for row in rows] == [None, "truncated", "empty", "unreadable"]


def test_tensorboard_gets_the_same_figures(data: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trained = run(data, tmp_path / "run", sets=("tensorboard=true",))
    board = accumulator.EventAccumulator(str(trained.run / "tensorboard"))
    board.Reload()
    history = [json.loads(line) for line in (trained.run / "history.jsonl").read_text().splitlines()]
    losses = {event.step: event.value for event in board.Scalars("train/loss")}
    assert len(losses) == trained.metrics["steps"]
    for record in history:
        if "loss" in record:
            assert losses[record["step"]] == pytest.approx(record["loss"])
    assert [event.step for event in board.Scalars("validation/accuracy")] == [3, 6, 9]
