"""A resumed run ends with the very bits of an uninterrupted one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from toy_training import Digest, Photos, digest, run, settings, training

from plusx.training.events import Event, Notice, Saved, StepDone
from plusx.training.loop import fit

TOTAL = 12  # three epochs


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Digest, Path]:
    """A whole run, and a copy of its folder as it was after every step (before and after validations)."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    copies = tmp_path_factory.mktemp("copies")
    one = training(folder / "run", settings(TOTAL, checkpoint_every=1))

    def copy(event: Event) -> None:
        if isinstance(event, StepDone):
            one.save()
            shutil.copytree(folder / "run", copies / f"step-{event.step}")
        if isinstance(event, Saved) and one.state.validated == one.state.step:
            shutil.copytree(folder / "run", copies / f"validated-{one.state.step}")

    one.listen = copy
    photos = Photos()
    return digest(one, fit(one, photos, photos.validate)), copies


MOMENTS = [f"step-{step}" for step in range(1, TOTAL + 1)] + [f"validated-{step}" for step in (4, 8, 12)]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_resumed_at_any_step_ends_with_equal_bits(
    uninterrupted: tuple[Digest, Path], moment: str, tmp_path: Path
) -> None:
    whole, copies = uninterrupted
    shutil.copytree(copies / moment, tmp_path / "run")
    torch.manual_seed(99)  # no run may depend on what the global generators were before
    assert run(tmp_path / "run", settings(TOTAL), resume=True) == whole


def test_a_run_without_interruption_is_a_function_of_its_settings(
    uninterrupted: tuple[Digest, Path], tmp_path: Path
) -> None:
    assert run(tmp_path, settings(TOTAL)) == uninterrupted[0]
    assert run(tmp_path / "other", settings(TOTAL, seed=4)) != uninterrupted[0]


def test_a_second_resume_in_the_same_epoch_changes_nothing(uninterrupted: tuple[Digest, Path], tmp_path: Path) -> None:
    whole, copies = uninterrupted
    folder = tmp_path / "run"
    shutil.copytree(copies / "step-5", folder)

    class StopError(Exception):
        pass

    def stop_after_saving(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 7:
            one.save()
            raise StopError

    one = training(folder, settings(TOTAL), stop_after_saving)
    one.resume()
    photos = Photos()
    with pytest.raises(StopError):
        fit(one, photos, photos.validate)
    assert run(folder, settings(TOTAL), resume=True) == whole


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
