"""Training, stopping, resuming, testing and using, as one straight path."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import plusx
from plusx import durable
from plusx.cli.run import run as cli
from plusx.data.drift import drift
from plusx.data.split import Row, read_split_csv
from plusx.errors import DataError, Interrupted, ModelError, RunError, UsageError
from plusx.images import pool
from plusx.images.decode import Undecodable
from plusx.images.source import Source
from plusx.model_file import load
from plusx.models import default_rate, minimum_size
from plusx.recipes.plan import Plan
from plusx.training.checkpoint import found, step_of
from plusx.training.events import Notice, StepDone
from plusx.verbs.evaluate import evaluate
from plusx.verbs.predict import predict
from plusx.verbs.reports import Built, Planned
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS, fill


def wish_of(out: Path, *, sets: tuple[str, ...] = (), **flags: Any) -> Wish:
    return Wish(flags=QUICK | flags, sets=SETS + sets, out=out)


def run(data: Path, out: Path, *, events: list[Any] | None = None, **wished: Any) -> Any:
    return train([str(data)], wish_of(out, **wished), on_event=None if events is None else events.append)


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
import os, sys, time
from plusx.cli.run import main
from plusx.training import loop
from tests.verbs.conftest import QUICK, SETS
real, pause = loop.compute_gradients, float(os.environ["PAUSE"])
loop.compute_gradients = lambda *given, **asked: (time.sleep(pause), real(*given, **asked))[1]
flags = [f"--{k.replace('_', '-')}={v}" for k, v in QUICK.items() if f"--{k}" not in sys.argv]
sets = [x for s in SETS for x in ("--set", s)]
if __name__ == "__main__":
    main(["train", *([] if "--resume" in sys.argv else flags + sets), *sys.argv[1:]])
"""


def child(arguments: list[str], heard: int = subprocess.DEVNULL, pause: float = 0.0) -> subprocess.Popen[bytes]:
    root = Path(plusx.__file__).parents[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "PAUSE": str(pause)}
    command = [sys.executable, "-c", CHILD, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=heard)


def newest(run_folder: Path) -> int:
    return max((step_of(path) for path in found(run_folder / "checkpoints")), default=0)


def test_a_run_killed_three_times_and_resumed_ends_with_the_same_bytes(data: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert child([str(data), "--out", str(whole)]).wait() == 0
    chance, killed_after = random.Random(0), [0]
    process = child([str(data), "--out", str(cut)], pause=0.3)
    while len(killed_after) < 4:
        while newest(cut) <= killed_after[-1]:
            time.sleep(0.01)
            assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        killed_after.append(newest(cut))
        process = child(["--resume", "--out", str(cut)], pause=0.3)
    assert process.wait() == 0
    assert killed_after == sorted(set(killed_after))
    assert sha256(whole / "model.safetensors") == sha256(cut / "model.safetensors")
    assert (whole / "history.jsonl").read_bytes() == (cut / "history.jsonl").read_bytes()


@pytest.mark.parametrize("pause", [0.0, 20.0])
def test_sigterm_leaves_a_checkpoint_within_five_seconds_however_long_a_step_takes(
    pause: float, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = child([str(data), "--out", str(out), "--epochs", "2000"], subprocess.PIPE, pause)
    while not ((out / "config.yaml").exists() if pause else newest(out)):
        time.sleep(0.05)
        assert process.poll() is None
    time.sleep(1.0)  # into the first step, where it takes twenty seconds
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 75
    assert time.monotonic() - asked < 5
    assert f"everything is in {out}. Continue with: plusx train --resume --out {out}" in stderr.decode()
    assert "Traceback" not in stderr.decode()


def power_cut(at: int) -> Callable[[Any], None]:
    """A listener that fails when a step is done, as nothing in plusx would."""

    def listen(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == at:
            raise MemoryError("power cut")

    return listen


DEFAULT = Wish({"size": 64, "batch_size": 16, "epochs": 4, "device": "cpu"}, ("width=0.125", "checkpoint_every=3"))


@pytest.mark.parametrize("streamed", [False, True])
def test_the_default_recipe_resumes_exactly_whether_photos_are_cached_or_streamed(
    streamed: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train([str(data)], replace(DEFAULT, out=tmp_path / "whole"))
    if streamed:
        monkeypatch.setattr("plusx.data.cache._no_room", lambda *_: "The cache has no room, so photos are streamed.")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    cut = replace(DEFAULT, out=tmp_path / "cut")
    with pytest.raises(MemoryError, match="power cut"):
        train([str(data)], cut, on_event=power_cut(8))
    assert newest(tmp_path / "cut") == 6
    resumed = train([], Wish(out=tmp_path / "cut", resume=True))
    plan = json.loads((resumed.run / "plan.json").read_text())
    assert plan["sizes"] == [[0.5, 32], [0.375, 48], [0.125, 64]]
    assert plusx.load(resumed.run).header.views == ("identity", "flip", "closer", "closer-flip")
    assert sha256(resumed.model) == sha256(whole.model)


EVERY_TRICK = (
    *("colour=0.3", "erasing=0.5", "policy=trivial", "mixup=0.2", "cutmix=1.0", "sampling=balanced"),
    *("precision=bf16", "accumulate=2", "clip_norm=1.0", "average=ema", "average_every=2", "keep=best"),
    *("zero_init_residual=true", "drop_last=true", "schedule=cosine", "label_smoothing=0.2", "input_rate=0.3"),
)


@pytest.mark.parametrize("recipe", ["fast", "best"])
@pytest.mark.parametrize("cut", [4, 8])
def test_resuming_is_exact_with_every_trick_on(recipe: str, cut: int, data: Path, tmp_path: Path) -> None:
    wish = replace(DEFAULT, flags=DEFAULT.flags | {"recipe": recipe}, sets=(*DEFAULT.sets, *EVERY_TRICK))
    whole = train([str(data)], replace(wish, out=tmp_path / "whole"))
    with pytest.raises(MemoryError, match="power cut"):
        train([str(data)], replace(wish, out=tmp_path / "cut"), on_event=power_cut(cut))
    resumed = train([], Wish(out=tmp_path / "cut", resume=True))
    assert sha256(resumed.model) == sha256(whole.model)
    assert (resumed.run / "history.jsonl").read_bytes() == (whole.run / "history.jsonl").read_bytes()


@pytest.mark.parametrize("checkpoints", ["before the cut", "none yet"])
def test_resuming_is_exact_where_a_timed_plan_was_revised_on_the_way(
    checkpoints: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plusx.verbs.planned.seconds_per_step", lambda *_: {32: 8.0})  # far slower than it is
    every = 3 if checkpoints == "before the cut" else 1_000_000
    flags = {"epochs": None, "time": 91.5, "sets": ("max_epochs=5", f"checkpoint_every={every}")}
    whole = run(data, tmp_path / "whole", **flags)
    assert json.loads((whole.run / "plan.json").read_text())["revisions"] == [[1, 15]]
    with pytest.raises(MemoryError, match="power cut"):
        train([str(data)], wish_of(tmp_path / "cut", **flags), on_event=power_cut(8))
    assert newest(tmp_path / "cut") == (6 if every == 3 else 0)
    resumed = train([], Wish(out=tmp_path / "cut", resume=True))
    assert sha256(resumed.model) == sha256(whole.model)
    assert (resumed.run / "history.jsonl").read_bytes() == (whole.run / "history.jsonl").read_bytes()


@pytest.mark.parametrize("written", ["metrics.json", "model.safetensors"])
def test_an_interrupt_while_the_run_ends_leaves_one_that_continues(
    written: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = run(data, tmp_path / "whole"), tmp_path / "cut run"
    real = durable.write_file

    def interrupted_write(path: Path, content: bytes) -> None:
        if path.name == written:
            raise KeyboardInterrupt
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("plusx.durable.write_file", interrupted_write)
        patch.setattr("plusx.verbs.finish.write_file", interrupted_write)
        with pytest.raises(Interrupted) as caught:
            run(data, out)
    assert caught.value.exit_code == 75
    assert caught.value.message == (
        f"Stopped; everything is in {out}. Continue with: plusx train --resume --out '{out}'"
    )
    assert sha256(train([], Wish(out=out, resume=True)).model) == sha256(whole.model)


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


def test_an_existing_folder_is_never_overwritten(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("")
    with pytest.raises(UsageError, match="exists already, and runs are never overwritten; choose another --out"):
        run(data, tmp_path / "run")


@pytest.mark.parametrize("where", ["train", "val", "test"])
def test_a_bad_photo_of_any_split_stops_training_before_it_starts_with_the_command_that_goes_on(
    where: str, data: Path, tmp_path: Path
) -> None:
    """D01."""
    sorted_data = tmp_path / "of splits"
    for name in ("train", "val", "test"):
        shutil.copytree(data, sorted_data / name)
    (sorted_data / where / "lying" / "bad one.jpg").write_text("no photo")
    with pytest.raises(DataError) as caught:
        run(sorted_data, tmp_path / "run", split=None, seed=7)
    lines = caught.value.message.splitlines()
    assert lines[0] == f"1 of 181 photos in {sorted_data} cannot be read:"
    assert lines[1].startswith(f"  {where}/lying/bad one.jpg: the content looks like text, not like a picture")
    prefix = "Mend or remove them, or leave them out with: "
    assert lines[2].startswith(f"{prefix}plusx train '{sorted_data}' --model resnet20 --epochs 3")
    assert not (tmp_path / "run").exists()
    assert cli(shlex.split(lines[2].removeprefix(f"{prefix}plusx "))) == 0
    assert "bad one.jpg,not-an-image" in (tmp_path / "run" / "skipped.csv").read_text()


def test_every_bad_photo_is_listed(data: Path, tmp_path: Path) -> None:
    """D01."""
    for number in range(30):
        (data / "lying" / f"bad{number}.jpg").write_text(f"no photo {number}")
    with pytest.raises(DataError) as caught:
        run(data, tmp_path / "run")
    assert caught.value.message.count("looks like text") == 30


def test_a_class_that_loses_every_photo_is_named(data: Path, tmp_path: Path) -> None:
    for photo in (data / "lying").iterdir():
        photo.write_text(f"no photo, {photo.name}")
    with pytest.raises(DataError) as caught:
        run(data, tmp_path / "run", skip_bad=True)
    assert caught.value.message == (
        f"Class lying has no photo to learn from in {data}, and at least two are needed: "
        "add photos, or remove the class."
    )


@pytest.mark.parametrize("model", ["alexnet", "vgg11", "plain18", "resnet50"])
def test_every_family_trains_with_the_default_recipe(model: str, data: Path, tmp_path: Path) -> None:
    events: list[Any] = []
    flags = {"model": model, "batch_size": 16, "epochs": 1, "device": "cpu"}
    trained = train([str(data)], Wish(flags, ("width=0.0625",), out=tmp_path / "run"), on_event=events.append)
    config = yaml.safe_load((trained.run / "config.yaml").read_text())
    assert config["learning_rate"] == default_rate(model)
    sizes = next(event.plan.sizes for event in events if isinstance(event, Planned))
    assert min(size for _, size in sizes) >= minimum_size(model)
    assert all(np.isfinite(event.loss) for event in events if isinstance(event, StepDone))


def test_a_last_batch_of_one_photo_joins_the_one_before(tmp_path: Path) -> None:
    fill(tmp_path / "odd" / "train", {"lying": 9, "standing": 8})
    fill(tmp_path / "odd" / "val", {"lying": 2, "standing": 2}, first=50)
    fill(tmp_path / "odd" / "test", {"lying": 2, "standing": 2}, first=70)
    events: list[Any] = []
    wish = Wish({"model": "resnet18", "size": 32, "batch_size": 8, "epochs": 1, "device": "cpu"}, ("width=0.1",))
    train([str(tmp_path / "odd")], replace(wish, out=tmp_path / "run"), on_event=events.append)
    assert [event.photos for event in events if isinstance(event, StepDone)] == [8, 9]
    with pytest.raises(RunError) as caught:
        train([str(tmp_path / "odd")], replace(wish, sets=(*wish.sets, "merge_lone=false"), out=tmp_path / "b"))
    assert caught.value.message.startswith("Step 3 holds a single photo whose last maps are one pixel")


def test_names_that_are_not_utf8_survive_a_whole_run(data: Path, tmp_path: Path) -> None:
    """D15."""
    odd = os.fsdecode(b"caf\xe9")
    try:
        (data / "lying").rename(data / odd)
    except OSError:
        pytest.skip("this file system takes no such names")
    trained = run(data, tmp_path / os.fsdecode(b"r\xfen"), epochs=1)
    assert plusx.load(trained.run).classes == (odd, "standing")
    assert evaluate(trained.run).figures["n"] == 6


def test_new_photos_leave_the_test_of_a_run_as_it_was_and_lost_ones_are_named(data: Path, tmp_path: Path) -> None:
    trained = run(data, tmp_path / "run", epochs=1)
    before = evaluate(trained.run).figures["data_fingerprint"]
    fill(tmp_path / "new", {"lying": 2, "standing": 2}, first=100)
    shutil.copytree(tmp_path / "new", data, dirs_exist_ok=True)
    assert evaluate(trained.run).figures["data_fingerprint"] == before
    tested = next(row for row in read_split_csv(trained.run / "split.csv") if row.split == "test")
    (data / tested.path).unlink()
    with pytest.raises(DataError) as caught:
        evaluate(trained.run)
    assert caught.value.message == (
        f"{data} has changed since the run was started. Photos removed: 1 ({tested.path}). "
        "Bring the old photos back, or start a new run."
    )


def test_a_lost_test_photo_is_not_taken_for_its_copy_in_training(data: Path, tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 100)):
        fill(tmp_path / "cut" / split, {"lying": 20, "standing": 20}, first=first)
    lost, copy = (tmp_path / "cut" / name for name in ("test/lying/100.jpg", "train/lying/copy.jpg"))
    shutil.copy(lost, copy)
    trained = run(tmp_path / "cut", tmp_path / "run", epochs=1)
    lost.unlink()
    with pytest.raises(DataError, match=r"Photos removed: 1 \(test/lying/100\.jpg\)\. Bring"):
        evaluate(trained.run)


def test_of_one_split_only_its_own_photos_are_told() -> None:
    rows = [Row(f"{where}/cat/{name}", "cat", where, name) for where in ("train", "test") for name in "abc"]
    now = [("train/cat/a", "cat", "a"), ("train/cat/b", "cat", "edited"), ("new", "cat", "new"), ("d", "cat", "c")]
    told = drift([*rows, Row("test/cat/e", "cat", "test", "e")], [*now, ("f", "cat", "e")], of="test")
    assert told.told() == {
        "removed": ("test/cat/a", "test/cat/b"),
        "renamed": ("d, test/cat/c before", "f, test/cat/e before"),
    }
    assert {row.split for row in told.gone} == {"test"}


def test_links_that_lead_out_of_data_are_told(data: Path, tmp_path: Path) -> None:
    far = fill(tmp_path / "far", {"lying": 2})
    for number in range(2):
        (data / "lying" / f"link{number}.jpg").symlink_to(far / "lying" / f"{number}.jpg")
    events: list[Any] = []
    run(data, tmp_path / "run", events=events, epochs=1)
    assert (
        Notice(
            "Links that lead out of DATA: 2, the first of them lying/link0.jpg. They are followed; what they lead to "
            "does not travel with the folder."
        )
        in events
    )


@pytest.mark.parametrize(
    ("flags", "sets", "sentence"),
    [
        ({"model": "alexnet", "size": 32}, (), "alexnet needs photos of at least 63 px and --size is 32"),
        ({"model": "alexnet"}, ("shortcut=none",), "alexnet has no shortcut to set; leave it out."),
        ({"model": "resnet99"}, (), "There is no model 'resnet99'"),
        ({"device": "cuda"}, (), "There is no cuda device that this PyTorch can use; choose --device cpu"),
        ({}, ("precision=fp16",), "cpu cannot train in fp16; leave --set precision=... out"),
        ({"time": 0.5}, (), "--time 0.5s is too short: preparing the photos and 1 step of training need about"),
        ({"split": "1/2/3"}, (), "--split 1/2/3 is not understood"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    flags: dict[str, Any], sets: tuple[str, ...], sentence: str, data: Path, tmp_path: Path
) -> None:
    if "cuda" in flags.values() and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(UsageError) as caught:
        train([str(data)], Wish({"device": "cpu"} | flags, sets, out=tmp_path / "run"))
    assert caught.value.message.startswith(sentence)
    assert not (tmp_path / "run").exists()


def test_resuming_with_another_plan_or_file_is_refused(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "a", epochs=1)
    longer = run(data, tmp_path / "b", epochs=2)
    with pytest.raises(UsageError, match="cannot be resumed with other settings: --plan was"):
        train([], Wish(out=tmp_path / "a", resume=True, plan=longer.run / "plan.json"))
    (tmp_path / "other.yaml").write_text("momentum: 0.5")
    with pytest.raises(UsageError, match=r"cannot be resumed with other settings: momentum was 0\.9 and is now 0\.5"):
        train([], Wish(out=tmp_path / "a", resume=True, file=tmp_path / "other.yaml"))


def test_a_finished_run_vouches_for_no_other_model(data: Path, tmp_path: Path) -> None:
    trained = run(data, tmp_path / "run", epochs=1)
    trained.model.write_bytes(trained.model.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError) as caught:
        train([], Wish(out=tmp_path / "run", resume=True))
    assert caught.value.message == (
        f"{trained.model} is damaged: its bytes are not those that were written when the run ended; "
        "copy it again or train again."
    )


def test_a_photo_in_two_classes_and_unreadable_ones_are_told(data: Path, tmp_path: Path) -> None:
    shutil.copy(data / "lying" / "3.jpg", data / "standing" / "copy.jpg")
    (data / "lying" / "bad.jpg").write_text("no photo")
    events: list[Any] = []
    run(data, tmp_path / "run", epochs=1, skip_bad=True, events=events)
    told = [event.text for event in events if isinstance(event, Notice)]
    assert told == [
        "Photos that lie in more than one class: 1. `plusx check` names them; keep one of each.",
        "Going on without 1 photo that cannot be read; skipped.csv names them.",
    ]
    counts = next(event.counts for event in events if isinstance(event, Built))
    assert sum(counts.values()) == 61


def test_settings_edited_by_hand_are_refused_in_one_sentence(data: Path, tmp_path: Path) -> None:
    trained = run(data, tmp_path / "run", epochs=1)
    config = trained.run / "config.yaml"
    text = config.read_text()
    config.write_text(text + "of_a_later_version: 1\n")
    with pytest.raises(ModelError, match=r"config\.yaml is damaged: of_a_later_version: Extra inputs"):
        train([], Wish(out=tmp_path / "run", resume=True))
    config.write_text(text.replace("batch_size: 16", "batch_size: many"))
    with pytest.raises(ModelError, match=r"config\.yaml is damaged: batch_size: Input should be a valid integer"):
        train([], Wish(out=tmp_path / "run", resume=True))


def test_a_run_of_a_version_with_fewer_settings_is_gone_on_with(data: Path, tmp_path: Path) -> None:
    def stop(event: object) -> None:
        if isinstance(event, StepDone) and event.step == 2:
            raise Interrupted("stopped there")

    with pytest.raises(Interrupted):
        train([str(data)], wish_of(tmp_path / "run", epochs=1), on_event=stop)
    config = tmp_path / "run" / "config.yaml"
    newer = ("risk:", "split_seed:")
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith(newer)))
    for _ in range(2):  # unfinished, then finished
        assert train([], Wish(out=tmp_path / "run", resume=True)).model.exists()


def test_a_plan_repeats_a_run(data: Path, tmp_path: Path) -> None:
    first = run(data, tmp_path / "a")
    flags = {name: value for name, value in QUICK.items() if name != "epochs"}
    wish = Wish(flags=flags, sets=SETS, out=tmp_path / "b", plan=first.run / "plan.json")
    assert sha256(train([str(data)], wish).model) == sha256(first.model)
    with pytest.raises(UsageError, match=r"^--plan says how long to train, and --time or --epochs says something else"):
        train([str(data)], replace(wish, flags=QUICK | {"epochs": 4}))


def test_a_plan_of_other_data_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    first = run(data, tmp_path / "a", epochs=1)
    fill(tmp_path / "more", {"lying": 60, "standing": 60})
    wish = Wish({"model": "resnet20", "size": 32, "batch_size": 16}, SETS, plan=first.run / "plan.json")
    with pytest.raises(UsageError) as caught:
        train([str(tmp_path / "more")], replace(wish, out=tmp_path / "b"))
    assert caught.value.message == (
        f"{first.run / 'plan.json'} is the plan of another run: it has steps per epoch of 3 and this run 6; "
        "give the data and settings it was made for, or leave --plan out."
    )
    assert not (tmp_path / "b").exists()


def test_a_timed_plan_that_is_repeated_is_not_cut_by_the_clock(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(data, tmp_path / "a", epochs=None, time=20.0, sets=("max_epochs=6",))
    monkeypatch.setattr("plusx.verbs.pace.RESERVE", 1e6)  # whatever is left, it is never enough
    flags = {name: value for name, value in QUICK.items() if name != "epochs"}
    wish = Wish(flags, (*SETS, "max_epochs=6"), out=tmp_path / "b", plan=first.run / "plan.json")
    assert sha256(train([str(data)], wish).model) == sha256(first.model)


def test_a_budget_that_decoding_eats_up_is_refused_for_a_new_run_and_not_where_a_plan_is_given(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(data, tmp_path / "a", epochs=None, time=60.0, sets=("max_epochs=2",))
    monkeypatch.setattr("plusx.verbs.pace.LOOK", 1e-9)
    monkeypatch.setattr("plusx.verbs.pace.DECODING", 1e-9)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="--time 60s is too short: preparing the photos"):
        run(data, tmp_path / "b", epochs=None, time=60.0, sets=("max_epochs=2",))
    assert not (tmp_path / "b").exists()
    flags = {name: value for name, value in QUICK.items() if name != "epochs"}
    again = train([str(data)], Wish(flags, (*SETS, "max_epochs=2"), out=tmp_path / "c", plan=first.run / "plan.json"))
    assert sha256(again.model) == sha256(first.model)


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
    plan = Plan.from_json(json.loads((trained.run / "plan.json").read_text()))
    assert trained.metrics["stopped_early"]
    assert plan.stalled_at is not None
    assert plan.stalled_at < trained.metrics["steps"] == plan.last_step < 150


def test_a_stalled_run_ends_with_a_low_rate_and_resumes_exactly(data: Path, tmp_path: Path) -> None:
    wished = {"epochs": 50, "sets": ("patience=8", "log_every=1")}
    whole = run(data, tmp_path / "whole", **wished)
    lines = [json.loads(line) for line in (whole.run / "history.jsonl").read_text().splitlines()]
    rates = [line["rate"] for line in lines if "rate" in line]
    assert rates[-1] < 0.5 * max(rates)
    stalled = json.loads((whole.run / "plan.json").read_text())["stalled_at"]
    with pytest.raises(MemoryError, match="power cut"):
        train([str(data)], wish_of(tmp_path / "cut", **wished), on_event=power_cut(stalled + 1))
    assert sha256(train([], Wish(out=tmp_path / "cut", resume=True)).model) == sha256(whole.model)


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


def test_a_photo_that_could_not_be_read_was_not_trained_on(data: Path, tmp_path: Path) -> None:
    for number in range(8):
        (data / "lying" / f"bad{number}.jpg").write_text(f"no photo {number}")
    trained = run(data, tmp_path / "run", epochs=1, skip_bad=True)
    rows = read_split_csv(trained.run / "split.csv")
    bad = [row for row in rows if "bad" in row.path]
    assert {row.split for row in bad} >= {"train"}
    model = load(trained.model)
    assert not any(model.known.has_seen(row.sha256) for row in bad)
    assert all(model.known.has_seen(row.sha256) for row in rows if row.split != "test" and row not in bad)


def test_a_photo_that_could_not_be_read_at_the_start_stays_out_when_it_can_be_read_later(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pool.read

    def late(source: Source) -> bytes:
        if source.file.endswith("lying/1.jpg"):
            raise Undecodable("timeout", "decoding it took longer than 20 s")
        return real(source)

    with monkeypatch.context() as patch:
        patch.setattr(pool, "read", late)
        whole = run(data, tmp_path / "whole", skip_bad=True, sets=("validation=false",), split="100/0/0")
        wish = wish_of(tmp_path / "cut", skip_bad=True, sets=("validation=false",), split="100/0/0")
        with pytest.raises(MemoryError, match="power cut"):
            train([str(data)], wish, on_event=power_cut(5))
    assert newest(tmp_path / "cut") == 4
    resumed = train([], Wish(out=tmp_path / "cut", resume=True))
    assert sha256(resumed.model) == sha256(whole.model)


def test_an_unfinished_run_has_no_model_to_use(data: Path, tmp_path: Path) -> None:
    trained = run(data, tmp_path / "run")
    trained.model.unlink()
    with pytest.raises(ModelError, match=r"has no model yet; finish it with: plusx train --resume --out "):
        list(predict(trained.run, [data]))


def test_predicting_streams_in_order_and_errors_are_rows(data: Path, tmp_path: Path) -> None:
    """D01."""
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
