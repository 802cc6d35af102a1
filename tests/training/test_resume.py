"""A resumed run ends with the very bits of an uninterrupted one: rows T01, T03 to T07.

The exhaustive product of moments and settings is `campaigns/resume.py`; here are all moments of one training with
everything switched on, some of others, and the proof that each of these tests can fail.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_training import (
    PHOTOS,
    Batch,
    Digest,
    Photos,
    moments,
    run,
    settings,
    training,
    until,
)

from plusx import durable
from plusx.training import checkpoint, loop, step
from plusx.training.events import Event, Notice, StepDone
from plusx.training.optimizer import set_rate

TOTAL = 12  # three epochs
ENDS = (4, 8, 12)


@pytest.fixture(autouse=True, scope="module")
def unsynced() -> Iterator[None]:
    """What is equal does not depend on when the disk has it, and hundreds of checkpoints are written here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Digest, Path]:
    """A whole run, and a copy of its folder as it was at every moment at which it might be stopped."""
    torch.set_num_threads(1)
    folder, copies = (tmp_path_factory.mktemp(name) for name in ("run", "copies"))
    return moments(folder / "run", settings(TOTAL), copies), copies


MOMENTS = [
    *(f"computing-{step}-{part}" for step in range(1, TOTAL + 1) for part in (1, 2)),
    *(f"{what}-{step}" for what in ("killed", "step") for step in range(1, TOTAL + 1)),
    *(f"{what}-{step}" for what in ("validating", "unsaved", "validated") for step in ENDS),
]


def test_no_moment_of_a_run_is_left_out(uninterrupted: tuple[Digest, Path]) -> None:
    assert sorted(MOMENTS) == sorted(path.name for path in uninterrupted[1].iterdir())


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_resumed_at_any_moment_ends_with_equal_bits(
    uninterrupted: tuple[Digest, Path], moment: str, tmp_path: Path
) -> None:
    """T01; T04 at the steps around the ends of epochs; T05 in and after validations; T06 inside a cycle of parts."""
    whole, copies = uninterrupted
    shutil.copytree(copies / moment, tmp_path / "run")
    torch.manual_seed(99)  # no run may depend on what the global generators were before
    assert run(tmp_path / "run", settings(TOTAL), resume=True) == whole


def test_a_run_without_interruption_is_a_function_of_its_settings(
    uninterrupted: tuple[Digest, Path], tmp_path: Path
) -> None:
    assert run(tmp_path, settings(TOTAL)) == uninterrupted[0]
    assert run(tmp_path / "other", settings(TOTAL, seed=4)) != uninterrupted[0]


OTHERS: dict[str, dict[str, Any]] = {
    "adamw in bf16, averaged at every step": {
        "optimizer": "adamw", "learning_rate": 0.01, "precision": "bf16", "average_every": 1, "schedule": "cosine",
    },
    "three parts, no average, the head alone at first": {
        "accumulate": 3, "average": "none", "frozen": 0.4, "schedule": "steps", "milestones": (0.5, 0.75),
    },
    "stopped early, the last weights": {"patience": 1, "keep": "last", "schedule": "constant", "clip_norm": None},
    "a plan that was cut": {"revisions": ((5, 10),), "norm_bias_rate": 4.0, "input_rate": 0.3},
}  # fmt: skip


@pytest.mark.parametrize("how", OTHERS.values(), ids=OTHERS)
def test_other_ways_to_train_resume_exactly_as_well(how: dict[str, Any], tmp_path: Path) -> None:
    """T07, T08 (bf16), in the middle and at the end of an epoch; `campaigns/resume.py` has them at all moments."""
    whole = moments(tmp_path / "whole", settings(TOTAL, **how), tmp_path / "copies")
    for moment in ("step-2", "computing-4-1", "killed-4", "validating-4", "unsaved-4", "step-6", "validated-8"):
        shutil.copytree(tmp_path / "copies" / moment, tmp_path / moment)
        assert run(tmp_path / moment, settings(TOTAL, **how), resume=True) == whole, moment


def test_a_second_resume_in_the_same_epoch_changes_nothing(uninterrupted: tuple[Digest, Path], tmp_path: Path) -> None:
    """T03, once; the order of a second resume was off in KempnerForge issue 57."""
    whole, copies = uninterrupted
    folder = tmp_path / "run"
    shutil.copytree(copies / "step-5", folder)
    until(7, folder, settings(TOTAL))
    assert run(folder, settings(TOTAL), resume=True) == whole


@pytest.mark.parametrize("stops", [(16, 21), range(16, 26)], ids=["two", "ten"])
def test_many_resumes_in_one_epoch_change_nothing_and_show_every_photo_once(stops: Any, tmp_path: Path) -> None:
    """T03, and T04: no epoch is empty, doubled or in another order (data issue 1437, torchtitan issue 2864)."""
    how = settings(28, steps_per_epoch=14, checkpoint_every=1000)
    whole_photos, photos = Photos(batch_size=2), Photos(batch_size=2)
    whole = run(tmp_path / "whole", how, photos=whole_photos)
    for stop in stops:
        until(stop, tmp_path / "run", how, photos)
    assert run(tmp_path / "run", how, resume=True, photos=photos) == whole
    assert photos.seen == whole_photos.seen
    for epoch in (0, 1):
        shown = [row for step, rows in photos.seen if step // 14 == epoch for row in rows]
        assert sorted(shown) == list(range(PHOTOS))


class Reshuffled(Photos):
    """As peers had it: one generator of the process deals out the order, and a resumed run begins it anew."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.order = np.random.default_rng(7), np.arange(PHOTOS)

    def batch(self, step: int) -> Batch:
        place = step % self.steps_per_epoch
        if place == 0 or not self.seen:
            self.order = self.generator.permutation(self.order)  # a shuffle of the shuffle before
        rows = self.order[place * self.batch_size : (place + 1) * self.batch_size]
        self.seen.append((step, rows.tolist()))
        return Batch(self.images[rows], self.targets[rows], rows)


def test_an_order_that_is_dealt_out_by_a_generator_is_noticed(tmp_path: Path) -> None:
    """Control of T01 and T03: with such batches the digests differ."""
    whole = run(tmp_path / "whole", settings(TOTAL), photos=Reshuffled())
    assert run(tmp_path / "again", settings(TOTAL), photos=Reshuffled()) == whole
    until(6, tmp_path / "run", settings(TOTAL), Reshuffled())
    assert run(tmp_path / "run", settings(TOTAL), resume=True, photos=Reshuffled()) != whole


def _rate_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter(range(TOTAL))
    monkeypatch.setattr(step, "set_rate", lambda optimizer, how, _: set_rate(optimizer, how, next(steps)))


def _live_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_copies", lambda model: dict(model.named_buffers()))


def _uncut_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable.Log, "truncate", lambda *_: True)


def _unseeded_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step.keyed, "global_seed", lambda *_: int(torch.randint(2**31, ())))


def test_taking_a_protection_out_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Controls of T01, T06 and T07: a rate that begins anew (yolov5 issue 292), statistics of an unfinished step in the
    checkpoint, logs that are not cut back, dropout that follows whatever generator there is."""
    controls = {
        "step-6": _rate_of_the_process,
        "computing-6-2": _live_statistics,
        "killed-6": _uncut_logs,
        "step-5": _unseeded_layers,
    }
    for moment, takes_out in controls.items():
        with monkeypatch.context() as patch:
            if takes_out is not _rate_of_the_process:  # it is the resumed process that counts from nothing
                takes_out(patch)
            whole = moments(tmp_path / moment / "whole", settings(TOTAL), tmp_path / moment / "copies")
            if takes_out is _rate_of_the_process:
                takes_out(patch)
            torch.manual_seed(99)
            resumed = run(tmp_path / moment / "copies" / moment, settings(TOTAL), resume=True)
        assert resumed != whole, f"{takes_out.__name__} goes unnoticed"


def test_resuming_a_finished_run_gives_its_result_again(uninterrupted: tuple[Digest, Path], tmp_path: Path) -> None:
    whole, copies = uninterrupted
    shutil.copytree(copies / "validated-12", tmp_path / "run")
    steps: list[Event] = []
    assert run(tmp_path / "run", settings(TOTAL), resume=True, listen=steps.append) == whole
    assert not [event for event in steps if isinstance(event, StepDone)]


def test_resuming_without_a_checkpoint_starts_at_the_first_step_with_empty_logs(
    uninterrupted: tuple[Digest, Path], tmp_path: Path
) -> None:
    (tmp_path / "history.jsonl").write_text('{"step": 1, "left over": true}\n')
    assert run(tmp_path, settings(TOTAL), resume=True) == uninterrupted[0]


def test_a_log_that_has_lost_lines_is_told_and_never_filled_up(
    uninterrupted: tuple[Digest, Path], tmp_path: Path
) -> None:
    whole, copies = uninterrupted
    shutil.copytree(copies / "step-6", tmp_path / "run")
    history = tmp_path / "run" / "history.jsonl"
    history.write_bytes(history.read_bytes()[:-30])  # in the middle of the line of step 6
    (tmp_path / "run" / "timing.jsonl").unlink()
    told: list[Event] = []
    resumed = run(tmp_path / "run", settings(TOTAL), resume=True, listen=told.append)
    assert (resumed.state, resumed.kept) == (whole.state, whole.kept)
    assert [event.text for event in told if isinstance(event, Notice)] == [
        f"{name} has lost lines of the 6 steps done; the run goes on without them."
        for name in ("history.jsonl", "timing.jsonl")
    ]
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, *range(7, TOTAL + 1)]
    assert resumed.timed == tuple(range(7, TOTAL + 1))


def test_a_checkpoint_whose_best_weights_are_damaged_gives_way_to_the_one_before(tmp_path: Path) -> None:
    """The best weights lie beside the checkpoints, and are as much a part of the state."""
    how, photos = settings(TOTAL, checkpoint_every=1), Photos()
    whole = moments(tmp_path / "whole", how, tmp_path / "copies", photos)
    moment, bests = next(
        (copy, bests)
        for copy in (tmp_path / "copies" / f"validated-{step}" for step in ENDS)
        if len(bests := sorted((copy / "best").iterdir())) == 2
    )
    (bests[1] / "model.safetensors").write_bytes(b"")
    told: list[Event] = []
    assert run(moment, how, resume=True, listen=told.append) == whole
    assert [event.text for event in told if isinstance(event, Notice)] == [
        f"Skipped a damaged checkpoint (step-{moment.name.partition('-')[2].zfill(6)}: of its best weights, "
        f"best/{bests[1].name}, model.safetensors has another size than was written); using the one before it."
    ]


def test_damaged_best_weights_that_every_checkpoint_refers_to_cost_only_themselves(tmp_path: Path) -> None:
    """The usual case: the best step lies behind both checkpoints. The run goes on and keeps the best from there on."""
    how = settings(TOTAL, checkpoint_every=1)
    until(7, tmp_path / "run", how)
    best = tmp_path / "run" / "best" / "step-000004"
    checkpoints = checkpoint.found(tmp_path / "run" / "checkpoints")
    assert {json.loads((path / "state.json").read_bytes())["best_step"] for path in checkpoints} == {4}
    data = bytearray((best / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (best / "model.safetensors").write_bytes(data)
    told: list[Event] = []
    whole, ended = run(tmp_path / "whole", how), run(tmp_path / "run", how, resume=True, listen=told.append)
    assert [event.text for event in told if isinstance(event, Notice)] == [
        "The best weights so far are lost (step-000007: of its best weights, best/step-000004, model.safetensors has "
        "other bytes than were written); the run goes on from this checkpoint and keeps the best from here on."
    ]
    assert next(event.step for event in told if isinstance(event, StepDone)) == 8
    assert ended.state == whole.state
    assert ended.numbers[3] in (8, 12)
    assert not best.exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no manifest"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    uninterrupted: tuple[Digest, Path], damage: str, tmp_path: Path
) -> None:
    whole, copies = uninterrupted
    folder = tmp_path / "run"
    shutil.copytree(copies / "step-7", folder)
    _damage(folder / "checkpoints" / "step-000007", damage)
    notices: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Notice):
            notices.append(event.text)

    assert run(folder, settings(TOTAL, checkpoint_every=1), resume=True, listen=listen) == whole
    assert len(notices) == 1
    assert notices[0].startswith("Skipped a damaged checkpoint (step-000007: ")
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["step-000011", "step-000012"]


def _damage(checkpoint: Path, damage: str) -> None:
    tensors = checkpoint / "state.safetensors"
    data = bytearray(tensors.read_bytes())
    if damage == "truncated":
        tensors.write_bytes(data[:-100])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        tensors.write_bytes(data)
    else:
        (checkpoint / "manifest.json").unlink()


def test_a_resumed_run_keeps_the_best_weights_of_its_own_past(tmp_path: Path) -> None:
    """Best weights written after the last checkpoint belong to a future that need not come again."""
    one = training(tmp_path, settings(TOTAL))
    one.state.best, one.state.best_step = 0.5, 4
    one.state.step = 4
    one.validated({"accuracy": 0.9})
    one.save()
    early = one.state.model.fc.weight.detach().clone()
    with torch.no_grad():
        one.state.average.model.fc.weight.add_(1.0)  # type: ignore[union-attr]
    one.state.step = 8
    one.validated({"accuracy": 0.95})  # killed here: no checkpoint knows of it
    _expect_best(tmp_path, early)
    one.save()  # known now; but what the older checkpoint refers to has to stay as well
    _damage(tmp_path / "checkpoints" / "step-000008", "truncated")
    _expect_best(tmp_path, early)


def _expect_best(folder: Path, weights: torch.Tensor) -> None:
    again = training(folder, settings(TOTAL))
    again.resume()
    outcome = again.outcome()
    assert outcome.kept_step == 4
    assert torch.equal(outcome.model.fc.weight, weights)
