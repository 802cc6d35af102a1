"""T19, T21, T24, T26, T27, T31: whole trainings on disks that fill up, in folders in use, with decoders that die."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plusx.cli.run import run as cli
from plusx.data.source import Listing
from plusx.errors import DiskError, RunError
from plusx.run_folder import RunFolder
from plusx.training.checkpoint import found
from plusx.training.events import Notice, StepDone
from plusx.verbs import room
from plusx.verbs.answers import Answered, write_answers
from plusx.verbs.labelled import LabelledPhotos
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS

Listen = Callable[[Any], None]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(data: Path, out: Path, listen: Listen | None = None, **flags: Any) -> Any:
    return train([str(data)], Wish(QUICK | flags, SETS, out=out), on_event=listen)


def resume(out: Path, listen: Listen | None = None) -> Any:
    return train([], Wish(out=out, resume=True), on_event=listen)


@contextlib.contextmanager
def file_system(folder: Path, options: str) -> Iterator[Path]:
    """A small file system of its own at `folder`, or a skip where mounting one is not allowed."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """40 MB, which are enough for the run, and few files."""
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    with file_system(tmp_path / "small", "size=40m,nr_inodes=100") as folder:
        yield folder


def fill(folder: Path) -> None:
    """Leave no byte free."""
    with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)


def fill_with_files(folder: Path) -> None:
    """Leave room for bytes, and for no further file."""
    (folder / "many").mkdir()
    with contextlib.suppress(OSError):
        for number in range(100_000):
            (folder / "many" / f"{number}").touch()


def empty(folder: Path) -> None:
    (folder / "ballast").unlink(missing_ok=True)
    shutil.rmtree(folder / "many", ignore_errors=True)


@pytest.mark.parametrize(
    ("filled", "cause"),
    [
        (fill, "/checkpoints has 0.0 MB free and "),
        (fill_with_files, "the file system holds as many files as it can, though bytes are free"),
    ],
)
def test_a_disk_that_is_full_for_a_while_changes_nothing_about_a_run(
    filled: Callable[[Path], None], cause: str, data: Path, tmp_path: Path, mounted: Path
) -> None:
    """T19, T27, for real."""
    whole, told = run(data, tmp_path / "whole"), []

    def listen(event: Any) -> None:
        if isinstance(event, StepDone) and event.step in (3, 7):
            (filled if event.step == 3 else empty)(mounted)
        if isinstance(event, Notice):
            told.append(event.text)

    trained = run(data, mounted / "run", listen)
    assert any(text.startswith("No checkpoint at step 4: ") and cause in text for text in told)
    assert sha256(trained.model) == sha256(whole.model)
    assert (trained.run / "history.jsonl").read_bytes() == (whole.run / "history.jsonl").read_bytes()
    assert not list(trained.run.rglob("tmp-*"))


def test_a_disk_that_stays_full_ends_a_run_at_its_end_and_it_can_be_resumed(
    data: Path, tmp_path: Path, mounted: Path
) -> None:
    """T19: exit code 5 comes once nothing is left to do but what cannot be written."""
    whole, steps, out = run(data, tmp_path / "whole"), [], mounted / "run"

    def listen(event: Any) -> None:
        if isinstance(event, StepDone):
            steps.append(event.step)
            if event.step == 5:
                fill(mounted)

    with pytest.raises(DiskError) as caught:
        run(data, out, listen)
    assert steps == list(range(1, 10))
    assert caught.value.exit_code == 5
    assert ": No space left on device; free some space or choose another folder with --out. " in caught.value.message
    assert caught.value.message.endswith(
        f"What was written before is whole. Continue with: plusx train --resume --out {out}"
    )
    assert [path.name for path in found(out / "checkpoints")] == ["step-000004", "step-000002"]
    assert not list(out.rglob("tmp-*"))
    with pytest.raises(DiskError, match=r"run has 0\.0 MB free and 3\d MB are needed; free some space"):
        resume(out)
    empty(mounted)
    assert sha256(resume(out).model) == sha256(whole.model)


def test_too_little_space_is_refused_before_a_photo_is_decoded(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T21: three checkpoints, the model and the pages have to fit."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=20_000_000))
    events: list[Any] = []
    with pytest.raises(DiskError) as caught:
        run(data, tmp_path / "run", events.append)
    assert caught.value.message == (
        f"{tmp_path / 'run'} has 20 MB free and 33 MB are needed; free some space or choose another folder with --out."
    )
    assert caught.value.exit_code == 5
    assert events == []
    assert not (tmp_path / "run").exists()


def test_answers_to_many_photos_of_many_classes_count_as_well(tmp_path: Path) -> None:
    """T21: a probability for each of 50,000 validation photos and 1,000 classes is more than everything else."""
    classes = tuple(f"class {number}" for number in range(1000))
    nothing = ("",) * 50_000
    photos = LabelledPhotos(Listing("photos", classes, (), (), has_splits=False), nothing, ("val",) * 50_000, nothing)
    assert room.of_answers(photos) == 50_000 * (200 + 15 * 1000)
    probabilities = np.random.default_rng(1).dirichlet(np.ones(1000), 100).astype(np.float32)
    answered = Answered.of(classes, [("class 0/name.jpg", "0" * 64)] * 100, [0] * 100, probabilities)
    write_answers(tmp_path / "validation.csv", answered)
    written = (tmp_path / "validation.csv").stat().st_size
    assert written < room.of_answers(photos) / 500 < 1.2 * written
    assert written * 500 > room.OTHER


def test_weights_that_a_recipe_saves_on_its_way_count_as_well(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T21: 25 epochs of `save_weights_every` are most of what the textbook's run writes."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=50_000_000))
    flags = {"recipe": "textbook", "epochs": 25, "size": 32, "device": "cpu", "split": "80/10/10"}
    wish = Wish(flags, ("width=0.1", "save_weights_every=1", "workers=0"), out=tmp_path / "run")
    with pytest.raises(DiskError, match=r"run has 50 MB free and \d\d+ MB are needed"):
        train([str(data)], wish)
    assert not (tmp_path / "run").exists()


def cut_at(step: int) -> Listen:
    def listen(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == step:
            raise MemoryError("power cut")

    return listen


def test_a_run_in_use_is_refused_and_one_whose_checkpoints_are_all_damaged_is_told_as_it_is(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """T26, T24."""
    out = tmp_path / "run"
    with pytest.raises(MemoryError):
        run(data, out, cut_at(6))
    with RunFolder(out).lock():
        assert cli(["train", "--resume", "--out", str(out)]) == 5
    assert capsys.readouterr().err.endswith(
        f"plusx: {out} is in use by another plusx process; wait for it to end or choose another folder with --out.\n"
    )
    checkpoints = found(out / "checkpoints")
    for path in checkpoints:
        (path / "state.json").write_text("{}")
    before = sorted(out.rglob("*"))
    assert cli(["train", "--resume", "--out", str(out)]) == 4
    newest, older = (path.name for path in checkpoints)
    assert capsys.readouterr().err.endswith(
        f"plusx: No checkpoint in {out / 'checkpoints'} can be used: {newest}: state.json has another size than was "
        f"written; {older}: state.json has another size than was written. Nothing was deleted; start the run again.\n"
    )
    assert sorted(out.rglob("*")) == before


def children() -> list[int]:
    """The processes that this one has started."""
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(word) for path in tasks for word in path.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="/proc is Linux's")
def test_decoding_processes_that_are_killed_while_a_run_streams_cost_it_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T31."""
    monkeypatch.setenv("PLUSX_CACHE_GB", "0")
    wish, killed = Wish(QUICK, (*SETS[:-1], "workers=2"), out=tmp_path / "run"), []
    whole = train([str(data)], replace(wish, out=tmp_path / "whole"))

    def listen(event: Any) -> None:
        if isinstance(event, StepDone) and event.step in (3, 7):  # three that never came up would be a broken machine
            for child in children()[:1]:
                os.kill(child, signal.SIGKILL)
                killed.append(child)

    assert sha256(train([str(data)], wish, on_event=listen).model) == sha256(whole.model)
    assert len(killed) == 2


def test_decoding_processes_that_no_longer_start_end_a_run_with_their_cause_and_it_can_be_resumed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T31."""
    monkeypatch.setenv("PLUSX_CACHE_GB", "0")
    wish = Wish(QUICK, (*SETS[:-1], "workers=1"), out=tmp_path / "run")
    whole = train([str(data)], replace(wish, out=tmp_path / "whole"))

    def listen(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            for child in children():
                os.kill(child, signal.SIGKILL)
            broken.setattr("plusx.images.process.subprocess.Popen", refuse)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as broken, pytest.raises(RunError, match="Resource temporarily unavailable") as caught:
        train([str(data)], wish, on_event=listen)
    assert caught.value.exit_code == 1
    assert [path.name for path in found(tmp_path / "run" / "checkpoints")][-1] == "step-000002"
    assert sha256(resume(tmp_path / "run").model) == sha256(whole.model)


def test_nothing_of_plusx_needs_shared_memory() -> None:
    """T31: a full /dev/shm is the end of many a loader; here photos come through pipes."""
    package = Path(train.__code__.co_filename).parents[1]
    words = ("/dev/shm", "multiprocessing", "shared_memory")
    assert [path for path in package.rglob("*.py") if any(word in path.read_text() for word in words)] == []
