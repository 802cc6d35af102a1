"""What the loop logs, validates, keeps and refuses."""

from __future__ import annotations

import errno
import json
import os
import weakref
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_training import Batch, Photos, network, run, settings, training

from plusx.errors import Interrupted, ModelError, RunError
from plusx.training.events import Event, Notice, Saved, StepDone, Validated, WeightsDue
from plusx.training.loop import Training, fit
from plusx.training.memory import out_of_memory
from plusx.training.paths import Paths
from plusx.training.step import State


def history(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_history_holds_functions_of_the_run_only_and_timing_the_clock(tmp_path: Path) -> None:
    run(tmp_path, settings(log_every=3))
    records = history(tmp_path)
    assert [r["step"] for r in records if "loss" in r] == [1, 3, 6, 9, 12]
    assert [(r["step"], r["epoch"]) for r in records if "validation" in r] == [(4, 0), (8, 1), (12, 2)]
    assert set(records[0]) == {"step", "epoch", "loss", "accuracy", "rate"}
    timing = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert set(timing[0]) == {"step", "seconds", "images_per_second"}


def test_validation_runs_every_few_epochs_and_after_the_last_step(tmp_path: Path) -> None:
    run(tmp_path, settings(10, validate_every=2))
    assert [r["step"] for r in history(tmp_path) if "validation" in r] == [8, 10]


def test_two_checkpoints_are_kept_and_written_as_often_as_asked(tmp_path: Path) -> None:
    saved: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Saved):
            saved.append(event.path.name)

    run(tmp_path, settings(checkpoint_every=5), listen=listen)
    assert saved == ["step-000005", "step-000010", "step-000012"]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == saved[1:]


def test_checkpoints_are_due_by_the_clock_too(tmp_path: Path) -> None:
    saved: list[Event] = []
    run(
        tmp_path,
        settings(3, checkpoint_seconds=1e-9),
        listen=lambda e: saved.append(e) if isinstance(e, Saved) else None,
    )
    assert len(saved) == 3


class Told(Photos):
    """Photos whose validation says what it is told to."""

    def __init__(self, *accuracies: float) -> None:
        super().__init__()
        self.accuracies = list(accuracies)

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        assert not model.training
        return {"accuracy": self.accuracies.pop(0)}


def test_training_stops_early_when_validation_stalls_and_keeps_the_best_weights(tmp_path: Path) -> None:
    one, photos = training(tmp_path, settings(40, patience=2)), Told(0.5, 0.7, 0.6, 0.7)
    weights = {}
    one.listen = lambda e: weights.update({e.step: copied(one)}) if isinstance(e, Validated) else None
    outcome = fit(one, photos, photos.validate)
    assert (outcome.steps, outcome.kept_step, outcome.stopped_early) == (16, 8, True)
    assert torch.equal(outcome.model.get_parameter("fc.weight"), weights[8])
    assert not torch.equal(weights[16], weights[8])
    assert [p.name for p in (tmp_path / "best").iterdir()] == ["step-000008"]


def copied(one: Training) -> torch.Tensor:
    return one.state.kept.get_parameter("fc.weight").detach().clone()


def test_the_last_weights_are_kept_unless_the_best_are_asked_for(tmp_path: Path) -> None:
    one, photos = training(tmp_path, settings(8, keep="last")), Told(0.7, 0.5)
    outcome = fit(one, photos, photos.validate)
    assert (outcome.kept_step, outcome.model) == (8, one.state.kept)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["step-000004"]  # both are there to compare


def test_best_weights_that_are_lost_at_the_very_end_leave_the_last_ones_and_that_is_told(tmp_path: Path) -> None:
    run(tmp_path, settings(4))
    (tmp_path / "best" / "step-000004" / "model.safetensors").write_bytes(b"")
    told: list[Event] = []
    ended = run(tmp_path, settings(4), resume=True, listen=told.append)
    assert ended.numbers[2:4] == (None, 0)
    assert [event.text for event in told if isinstance(event, Notice)] == [
        "The best weights so far are lost (step-000004: of its best weights, best/step-000004, model.safetensors has "
        "another size than was written); the run goes on from this checkpoint and keeps the best from here on."
    ]


def test_best_weights_that_are_damaged_while_the_run_goes_on_are_an_error_at_its_end(tmp_path: Path) -> None:
    def damage(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 6:
            (tmp_path / "best" / "step-000004" / "model.safetensors").write_bytes(b"")

    one, photos = training(tmp_path, settings(8), damage), Told(0.9, 0.5)
    with pytest.raises(ModelError) as caught:
        fit(one, photos, photos.validate)
    assert str(caught.value) == (
        f"The best weights in {tmp_path}/best/step-000004 cannot be used: model.safetensors has another size than was "
        "written. Nothing was deleted; start the run again, or with --set keep=last."
    )


def test_a_run_without_validation_ends_with_its_last_weights(tmp_path: Path) -> None:
    one = training(tmp_path, settings(4))
    assert fit(one, Photos()).kept_step == 4


def test_weights_are_due_at_steps_counted_within_each_epoch(tmp_path: Path) -> None:
    due: list[tuple[int, int]] = []

    def listen(event: Event) -> None:
        if isinstance(event, WeightsDue):
            due.append((event.epoch, event.step_in_epoch))

    run(tmp_path, settings(8, save_weights_every=3), listen=listen)
    assert due == [(0, 0), (0, 3), (1, 0), (1, 3)]


def test_every_step_is_told_with_its_figures(tmp_path: Path) -> None:
    told: list[StepDone] = []
    run(tmp_path, settings(5, log_every=100), listen=lambda e: told.append(e) if isinstance(e, StepDone) else None)
    assert [(e.step, e.total, e.epoch, e.photos) for e in told] == [
        (1, 5, 0, 8), (2, 5, 0, 8), (3, 5, 0, 8), (4, 5, 0, 4), (5, 5, 1, 8),
    ]  # fmt: skip
    assert all(e.seconds > 0 and e.loss > 0 and 0 <= e.accuracy <= 1 for e in told)


def test_a_shortened_plan_ends_at_its_new_end_with_its_rate_near_nothing(tmp_path: Path) -> None:
    asked: list[int] = []

    def revise(step: int, stalled: bool) -> tuple[tuple[int, int], ...] | None:
        asked.append(step)
        return ((6, 9),) if step == 6 else None

    one, photos = training(tmp_path, settings(12)), Photos()
    outcome = fit(one, photos, photos.validate, revise)
    assert asked == list(range(9))
    assert (outcome.steps, outcome.stopped_early) == (9, False)
    rates = [r["rate"] for r in history(tmp_path) if "rate" in r]
    assert rates[-1] == pytest.approx(0.05 * (1 - (0.5 + 0.5 * 2 / 3)) / 0.8)
    again = run(tmp_path / "again", settings(12, revisions=((6, 9),)))  # --plan FILE repeats it
    assert again.history == run(tmp_path, settings(12, revisions=((6, 9),)), resume=True).history


def test_a_run_whose_validation_stalls_is_brought_to_the_end_of_its_schedule_where_somebody_plans(
    tmp_path: Path,
) -> None:
    stalls: list[int] = []

    def revise(step: int, stalled: bool) -> tuple[tuple[int, int], ...] | None:
        stalls.extend([step] * stalled)
        return ((step, step + 4),) if stalled and len(stalls) == 1 else None

    one, photos = training(tmp_path, settings(40, patience=2)), Told(0.5, 0.7, 0.6, 0.7, 0.6)
    outcome = fit(one, photos, photos.validate, revise)
    assert stalls == [16, 17, 18, 19]
    assert outcome.steps == 20
    rates = [r["rate"] for r in history(tmp_path) if "rate" in r]
    assert rates[-1] < 0.3 * rates[15]


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("checkpoints/step-000002", "No checkpoint at step 2: {fault} The run goes on."),
        ("best/step-000004", "The weights of step 4 are not kept as the best: {fault}"),
    ],
)
def test_a_full_disk_costs_what_was_being_written_and_neither_what_was_before_nor_the_run(
    where: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, told, folder = os.rename, list[Event](), tmp_path / "full"
    how = settings(8, checkpoint_every=2, keep="last")
    whole = run(tmp_path / "whole", how)

    def rename(source: Path, target: Path) -> None:
        if target == folder / where:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    assert run(folder, how, listen=told.append).state == whole.state
    fault = (
        f"Could not write {folder / where}: No space left on device; "
        "free some space or choose another folder with --out."
    )
    assert [event.text for event in told if isinstance(event, Notice)] == [sentence.format(fault=fault)]


class Poisoned(Photos):
    def batch(self, step: int) -> Batch:
        batch = super().batch(step)
        if step == 5:
            batch.images = batch.images.float()
            batch.images[2] = float("nan")
        return batch


def test_a_loss_that_is_not_finite_names_the_step_and_the_photos_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    one, photos = training(tmp_path, settings(checkpoint_every=2)), Poisoned()
    with pytest.raises(RunError) as caught:
        fit(one, photos, photos.validate)
    names = ", ".join(photos.name(int(i)) for i in photos.batch(5).indices)
    assert str(caught.value) == (
        f"The loss became nan at step 6, in the batch of {names}; the last checkpoint is kept. "
        "Look at these photos, or train with a lower --set learning_rate=..."
    )
    assert caught.value.exit_code == 1
    again = training(tmp_path, settings(checkpoint_every=2))
    again.resume()
    assert again.state.step == 4


def test_weights_that_are_not_finite_never_replace_a_checkpoint(tmp_path: Path) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            one.state.model.fc.bias.data[0] = float("inf")

    one = training(tmp_path, settings(checkpoint_every=1), listen)
    with pytest.raises(RunError) as caught:
        fit(one, Photos())
    assert str(caught.value) == (
        "The numbers in fc.bias are no longer finite after step 3; the last checkpoint is kept. "
        "Train with a lower --set learning_rate=..., or with --set clip_norm=1."
    )
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-000001", "step-000002"]


class Hungry(nn.Module):
    """A network that has memory for `fits` photos."""

    def __init__(self, fits: int) -> None:
        super().__init__()
        self.inner, self.fits = network(), fits
        self.activations: weakref.ref[torch.Tensor] | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert self.activations is None or self.activations() is None, "a failed step still holds its memory"
        if len(images) > self.fits:
            activations = images.float()
            self.activations = weakref.ref(activations)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.inner(images)


@pytest.mark.parametrize(
    ("fits", "advice"),
    [
        (2, "2 fit: use --batch-size 2, or compute the batch in parts with --set accumulate=4"),
        (0, "not even one photo fits: choose a smaller --size or a smaller --model"),
    ],
)
def test_running_out_of_memory_says_which_batch_fits(fits: int, advice: str, tmp_path: Path) -> None:
    how = settings(average="none")
    one = Training(State.fresh(Hungry(fits), how), how, Paths(tmp_path, ""), lambda _: None)
    with pytest.raises(RunError) as caught:
        fit(one, Photos())
    assert str(caught.value) == f"A batch of 8 photos does not fit into memory; {advice}."
    assert caught.value.exit_code == 1


def test_the_message_of_a_full_cpu_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(caught.value)
    assert not out_of_memory(RuntimeError("shape mismatch"))


def test_other_errors_of_a_step_are_not_dressed_up(tmp_path: Path) -> None:
    class Wrong(Photos):
        def batch(self, step: int) -> Batch:
            batch = super().batch(step)
            batch.targets = batch.targets[:3]
            return batch

    with pytest.raises(ValueError, match="batch_size"):
        fit(training(tmp_path, settings(accumulate=1)), Wrong())


def test_a_request_during_the_last_step_stops_what_would_follow(tmp_path: Path) -> None:
    import signal
    import time

    def listen(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 4:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.2)

    with pytest.raises(Interrupted) as caught:
        run(tmp_path, settings(4), listen=listen)
    assert str(caught.value).startswith("Stopped after step 4; everything is in ")
    assert run(tmp_path, settings(4), resume=True).numbers[0] == 4
