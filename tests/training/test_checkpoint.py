"""A checkpoint is complete, or it is refused with the name of what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from toy_training import Photos, settings, sha256, training

from plusx import durable
from plusx.errors import ModelError
from plusx.training import checkpoint
from plusx.training.loop import fit
from plusx.training.step import State

FULL = settings(3, keep="last")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint after three steps with momentum and an average."""
    folder = tmp_path_factory.mktemp("written")
    fit(training(folder, FULL), Photos())
    return folder / "checkpoints" / "step-000003"


def contents(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors = safetensors.torch.load((path / "state.safetensors").read_bytes())
    return tensors, json.loads((path / "state.json").read_bytes())


def rewritten(folder: Path, tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> Path:
    """A checkpoint whose manifest is right and whose content is what the test made of it."""
    files = {"state.safetensors": safetensors.torch.save(tensors), "state.json": json.dumps(numbers).encode()}
    durable.write_folder(folder / "step-000003", files)
    return folder / "step-000003"


def refused(path: Path, folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        checkpoint.load(path, training(folder, FULL).state)
    assert caught.value.exit_code == 4
    return str(caught.value)


def test_what_was_saved_comes_back_exactly(written: Path, tmp_path: Path) -> None:
    one = training(tmp_path, FULL)
    offsets = checkpoint.load(written, one.state)
    tensors, numbers = contents(written)
    assert sha256(checkpoint.state_tensors(one.state)) == sha256(tensors)
    assert (one.state.step, offsets) == (3, numbers["offsets"])


def test_a_dropped_tensor_is_named(written: Path, tmp_path: Path) -> None:
    tensors, numbers = contents(written)
    assert {name.partition("/")[0] for name in tensors} == {"model", "average", "optimizer"}
    for name in tensors:
        rest = {other: value for other, value in tensors.items() if other != name}
        message = refused(rewritten(tmp_path, rest, numbers), tmp_path)
        assert name.partition("/")[2] in message, name


@pytest.mark.parametrize(
    "key", ["format", "of", "step", "validated", "best", "best_step", "stale", "scaler", "offsets", "optimizer"]
)
def test_a_dropped_number_is_named(written: Path, key: str, tmp_path: Path) -> None:
    tensors, numbers = contents(written)
    assert key in numbers
    del numbers[key]
    assert key in refused(rewritten(tmp_path, tensors, numbers), tmp_path)


def test_no_number_of_a_checkpoint_is_left_untested(written: Path) -> None:
    assert set(contents(written)[1]) == {
        "format", "of", "step", "validated", "best", "best_step", "stale", "scaler", "offsets", "optimizer",
    }  # fmt: skip


def test_a_dropped_log_length_or_optimizer_entry_is_named(written: Path, tmp_path: Path) -> None:
    tensors, numbers = contents(written)
    del numbers["offsets"]["history"]
    assert "'history' is missing" in refused(rewritten(tmp_path, tensors, numbers), tmp_path)
    tensors, numbers = contents(written)
    dropped = numbers["optimizer"].pop()
    assert dropped in refused(rewritten(tmp_path, tensors, numbers), tmp_path)


def test_a_checkpoint_of_another_network_is_refused_with_advice(written: Path, tmp_path: Path) -> None:
    tensors, numbers = contents(written)
    tensors["model/fc.weight"] = torch.zeros(5, 6)
    path = rewritten(tmp_path, tensors, numbers)
    message = refused(path, tmp_path)
    assert message.startswith(f"{path} does not fit this run: ")
    assert message.endswith("Resume with the settings and the version it was written with.")


def test_an_average_that_the_run_does_not_keep_is_refused(written: Path, tmp_path: Path) -> None:
    without = settings(3, average="none")
    with pytest.raises(ModelError, match="it holds an average of the weights and this run keeps none"):
        checkpoint.load(written, training(tmp_path, without).state)


def test_the_optimizer_may_have_no_state_for_a_parameter(tmp_path: Path) -> None:
    """A parameter that never had a gradient has no momentum."""
    one = training(tmp_path, settings(average="none"))
    one.state.model.fc.bias.grad = torch.ones(3)
    one.state.optimizer.step()
    path = checkpoint.save(tmp_path, one.state, {"history": 0, "timing": 0})
    other = training(tmp_path, settings(average="none"))
    checkpoint.load(path, other.state)
    assert sha256(checkpoint.state_tensors(other.state)) == sha256(checkpoint.state_tensors(one.state))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_both_optimizers_come_back_with_equal_next_steps(kind: str, tmp_path: Path) -> None:
    how = settings(6, optimizer=kind, keep="last", learning_rate=0.01)
    one = training(tmp_path, how)
    fit(one, Photos())
    half = training(tmp_path / "half", how)

    def save_at_three(event: object) -> None:
        if half.state.step == 3:
            half.save()

    half.listen = save_at_three
    fit(half, Photos())
    other = State.fresh(training(tmp_path / "x", how).state.model, how)
    checkpoint.load(tmp_path / "half" / "checkpoints" / "step-000003", other)
    again = training(tmp_path / "again", how)
    again.state = other
    fit(again, Photos())
    assert sha256(checkpoint.state_tensors(again.state)) == sha256(checkpoint.state_tensors(one.state))


def test_checkpoints_are_ordered_by_step_and_not_by_clock_or_name(written: Path, tmp_path: Path) -> None:
    tensors, numbers = contents(written)
    files = {"state.safetensors": safetensors.torch.save(tensors), "state.json": json.dumps(numbers).encode()}
    for step in (1000000, 999999, 5):
        durable.write_folder(tmp_path / f"step-{step:06d}", files)
    assert [checkpoint.step_of(path) for path in checkpoint.found(tmp_path)] == [1000000, 999999, 5]
    assert checkpoint.newest_valid(tmp_path) == (tmp_path / "step-1000000", [])


def test_an_empty_folder_has_no_checkpoint_and_all_damaged_ones_are_listed(tmp_path: Path) -> None:
    assert checkpoint.newest_valid(tmp_path / "absent") == (None, [])
    for step in (1, 2):
        durable.write_folder(tmp_path / f"step-{step:06d}", {"state.json": b"{}"})
        (tmp_path / f"step-{step:06d}" / "state.json").unlink()
    with pytest.raises(ModelError) as caught:
        checkpoint.newest_valid(tmp_path)
    assert str(caught.value) == (
        f"No checkpoint in {tmp_path} can be used: step-000002: state.json is not there; "
        "step-000001: state.json is not there. Nothing was deleted; start the run again."
    )


def test_leftovers_of_an_interrupted_write_are_not_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "tmp-0123").mkdir()
    (tmp_path / "step-final").mkdir()
    assert checkpoint.newest_valid(tmp_path) == (None, [])


def test_damaged_checkpoints_of_a_later_step_do_not_take_the_place_of_good_ones(tmp_path: Path) -> None:
    state = training(tmp_path, FULL).state
    (tmp_path / "step-000009").mkdir()
    for state.step in (1, 2, 3):
        checkpoint.save(tmp_path, state, {"history": 0, "timing": 0})
    assert [checkpoint.step_of(path) for path in checkpoint.found(tmp_path)] == [3, 2]
