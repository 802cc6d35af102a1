"""What goes wrong in a step costs that step: rows T29 (not finite), T30 (out of memory) and T32 (clocks)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from toy_training import Photos, network, run, settings, training

from plusx.errors import RunError
from plusx.training import checkpoint, interrupt, loop
from plusx.training.events import Event, Notice, StepDone
from plusx.training.interrupt import Stop
from plusx.training.loop import Training, fit
from plusx.training.settings import Settings
from plusx.training.step import State, apply_gradients


@pytest.fixture(autouse=True, scope="module")
def unsynced() -> Iterator[None]:
    """What is equal does not depend on when the disk has it, and hundreds of checkpoints are written here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def spoiled(what: str, state: State, value: float) -> str:
    """Put `value` into one number of the state; returns the name by which it should be told."""
    assert state.average is not None
    weight = state.model.get_parameter("conv1.weight")
    tensors = {
        "conv1.weight": weight,
        "bn1.running_var": state.model.get_buffer("bn1.running_var"),
        "the average of block.bn1.running_mean": state.average.model.get_buffer("block.bn1.running_mean"),
        "the momentum of conv1.weight": state.optimizer.state[weight]["momentum_buffer"],
    }
    name = next(name for name in tensors if what in name)
    tensors[name].data.view(-1)[0] = value
    return name


def run_spoiled(folder: Path, what: str, at: int, value: float = float("inf")) -> tuple[str, RunError]:
    """A training whose update number `at` made something infinite; what that was, and how it ended."""
    name = [""]

    def update(state: State, how: Settings) -> None:
        apply_gradients(state, how)
        if state.step == at:
            name[0] = spoiled(what, state, value)

    one, photos = training(folder, settings(12, checkpoint_every=1)), Photos()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "apply_gradients", update)
        with pytest.raises(RunError) as caught:
            fit(one, photos, photos.validate)
    return name[0], caught.value


@pytest.mark.parametrize("what", ["conv1.weight", "bn1.running_var", "running_mean", "momentum"])
def test_an_update_that_makes_anything_infinite_is_told_and_the_finite_checkpoints_stay(
    what: str, tmp_path: Path
) -> None:
    """T29. With infinite variances or squared gradients the loss stays finite, so nothing else would notice."""
    name, error = run_spoiled(tmp_path / "run", what, 6)
    assert error.message == (
        f"The numbers in {name} are no longer finite after step 6; the last checkpoint is kept. "
        "Train with a lower --set learning_rate=..., or with --set clip_norm=1."
    )
    assert error.exit_code == 1
    assert [path.name for path in checkpoint.found(tmp_path / "run" / "checkpoints")] == ["step-000005", "step-000004"]
    assert run(tmp_path / "run", settings(), resume=True) == run(tmp_path / "whole", settings())


class Told(Photos):
    """Photos whose validation says what it is told to."""

    def __init__(self, *accuracies: float) -> None:
        super().__init__()
        self.accuracies = list(accuracies)

    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        assert not model.training
        return {"accuracy": self.accuracies.pop(0)}


def best(folder: Path) -> dict[str, torch.Tensor]:
    found = sorted((folder / "best").glob("*/model.safetensors"))
    return {f"{path.parent.name}/{name}": v for path in found for name, v in safetensors.torch.load_file(path).items()}


@pytest.mark.parametrize("protected", [True, False])
def test_weights_that_are_not_finite_are_never_kept_as_the_best(
    protected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T29, and its control: spoiled by the very update before the first validation, which has nothing to beat."""
    if not protected:
        monkeypatch.setattr(Training, "refuse_not_finite", lambda _: None)

    def update(state: State, how: Settings) -> None:
        apply_gradients(state, how)
        if state.step == 4:
            spoiled("running_mean", state, float("nan"))

    monkeypatch.setattr(loop, "apply_gradients", update)
    one, photos = training(tmp_path, settings(5, checkpoint_every=1)), Told(0.9, 0.8)
    with pytest.raises(RunError) if protected else nullcontext():
        fit(one, photos, photos.validate)
    kept = best(tmp_path)
    assert all(bool(torch.isfinite(value).all()) for value in kept.values()) == protected
    assert bool(kept) != protected


def test_a_validation_that_gives_no_number_is_never_the_best(tmp_path: Path) -> None:
    one, photos = training(tmp_path, settings(12)), Told(float("nan"), 0.4, float("nan"))
    outcome = fit(one, photos, photos.validate)
    assert (one.state.best, one.state.best_step, one.state.stale, outcome.kept_step) == (0.4, 8, 1, 8)


class Grown(torch.nn.Module):
    """A network that has no memory for step number `at`, after it has moved its statistics in the first part of it."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        self.inner, self.at, self.parts = network(), at, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers = self.inner(images)
        self.parts += self.training
        if self.at is not None and self.parts >= 2 * self.at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return answers


def grown(folder: Path, at: int | None) -> Training:
    how = settings(average="none", checkpoint_every=2, keep="last")
    folder.mkdir(exist_ok=True)
    return Training(State.fresh(Grown(at), how), how, loop.Paths(folder, ""), lambda _: None)


def test_running_out_of_memory_leaves_the_last_checkpoint_and_a_run_that_goes_on_exactly(tmp_path: Path) -> None:
    """T30: in the second part of step 6, when the statistics of the norms have moved already."""
    whole, photos = grown(tmp_path / "whole", None), Photos()
    fit(whole, photos, photos.validate)
    failed = grown(tmp_path / "run", 6)
    with pytest.raises(RunError, match="A batch of 8 photos does not fit into memory"):
        fit(failed, photos, photos.validate)
    assert [path.name for path in checkpoint.found(failed.paths.checkpoints)] == ["step-000004", "step-000002"]
    again = grown(tmp_path / "run", None)
    again.resume()
    fit(again, photos, photos.validate)
    for name in ("state.safetensors", "state.json"):
        one, other = (part.paths.checkpoints / "step-000012" / name for part in (whole, again))
        assert name == "state.json" or one.read_bytes() == other.read_bytes()
    assert (tmp_path / "whole" / "history.jsonl").read_bytes() == (tmp_path / "run" / "history.jsonl").read_bytes()


class SlowLock:
    """A lock after whose release its holder takes a while: whoever waits for it comes first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: Any) -> None:
        self.lock.release()
        time.sleep(0.1)


@contextmanager
def plainly_changing(stop: Stop) -> Iterator[None]:
    with stop.changing:
        yield


@pytest.mark.parametrize("protected", [True, False])
def test_an_update_that_fails_half_way_is_saved_by_nobody(
    protected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T30: a signal came long ago and its watcher waits for the end of an update, which then runs out of memory.

    The control has the lock alone, as it was: the watcher saved a state whose weights were one update ahead.
    """
    one, photos, saved = training(tmp_path, settings(checkpoint_every=1000)), Photos(), list[int]()
    stop = Stop(lambda: saved.append(one.state.step) or "", grace=0.0)  # type: ignore[func-returns-value]
    stop.changing = SlowLock()  # type: ignore[assignment]
    watcher = threading.Thread(target=stop._save_if_late)
    monkeypatch.setattr(loop, "stopping", lambda *_: nullcontext(stop))
    monkeypatch.setattr(interrupt, "_end", lambda *_: None)
    if not protected:
        monkeypatch.setattr(loop, "_changing", plainly_changing)

    def update(state: State, how: Settings) -> None:
        if state.step == 2:
            state.model.get_parameter("conv1.weight").data.add_(1.0)
            watcher.start()
            time.sleep(0.1)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        apply_gradients(state, how)

    monkeypatch.setattr(loop, "apply_gradients", update)
    with pytest.raises(RunError):
        fit(one, photos, photos.validate)
    watcher.join()
    assert saved == ([] if protected else [2])


def test_checkpoints_are_ordered_by_step_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T32: a clock that goes backwards by an hour with every look, saves of one second, and times that are reversed."""
    whole = run(tmp_path / "whole", settings())
    now = [2e9]

    def backwards() -> float:
        now[0] -= 3600.0
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    monkeypatch.setattr(time, "time_ns", lambda: int(backwards() * 1e9))
    told: list[Event] = []

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", settings(checkpoint_every=1), listen=stop)
    folders = checkpoint.found(tmp_path / "run" / "checkpoints")
    assert [folder.name for folder in folders] == ["step-000006", "step-000005"]
    for times in ((1e9, 1e9), (1e9, 2e9)):  # as old as each other, then the older one newer
        for folder, when in zip(folders, times, strict=True):
            os.utime(folder, (when, when))
        assert checkpoint.newest_valid(tmp_path / "run" / "checkpoints")[0] == folders[0]
    assert run(tmp_path / "run", settings(), resume=True, listen=told.append) == whole
    assert next(event.step for event in told if isinstance(event, StepDone)) == 7
    assert not [event for event in told if isinstance(event, Notice)]
