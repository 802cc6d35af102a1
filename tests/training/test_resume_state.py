"""Everything in a checkpoint is needed, and a checkpoint of something else is refused: rows T07 and T25."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from toy_training import Digest, Photos, moments, run, settings, training, until

from plusx import durable
from plusx.errors import ModelError
from plusx.training import checkpoint
from plusx.training.loop import Training
from plusx.training.paths import Paths
from plusx.training.step import State

TOTAL = 12
OLDEST = Path(__file__).parent / "checkpoints-of-format-1"  # written by plusx 0.1.0 before formats changed


@pytest.fixture(autouse=True, scope="module")
def unsynced() -> Iterator[None]:
    """What is equal does not depend on when the disk has it, and hundreds of checkpoints are written here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


class Falling(Photos):
    """Photos whose validation falls, so that at its second one no counter is what it was at the start."""

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        steps = int(model.get_buffer("bn1.num_batches_tracked"))
        return {"accuracy": 1 - steps / 1000, "log_loss": super().validate(model)["log_loss"]}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Digest, Path]:
    """What a whole run ends with, and its folder after the second of its three validations."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    whole = moments(folder / "run", settings(TOTAL), folder / "copies", Falling())
    return whole, folder / "copies" / "validated-8"


def contents(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    path = folder / "checkpoints" / "step-000008"
    tensors = safetensors.torch.load((path / "state.safetensors").read_bytes())
    return tensors, json.loads((path / "state.json").read_bytes())


def resumed(
    stopped: Path, folder: Path, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]
) -> Digest | str:
    """What a run ends with whose checkpoint holds this, or what refuses it."""
    shutil.copytree(stopped, folder)
    shutil.rmtree(folder / "checkpoints" / "step-000007")  # which would be used instead where best weights are missing
    files = {"state.safetensors": safetensors.torch.save(dict(tensors)), "state.json": json.dumps(numbers).encode()}
    durable.write_folder(folder / "checkpoints" / "step-000008", files)
    try:
        return run(folder, settings(TOTAL), resume=True, photos=Falling())
    except ModelError as error:
        return error.message


def test_what_is_written_anew_and_unchanged_ends_as_the_whole_run(stopped: tuple[Digest, Path], tmp_path: Path) -> None:
    whole, folder = stopped
    assert resumed(folder, tmp_path / "run", *contents(folder)) == whole


def test_every_tensor_of_a_checkpoint_is_needed(stopped: tuple[Digest, Path], tmp_path: Path) -> None:
    """Dropped, it is missed by its name; as it was before the first step, the run ends otherwise."""
    whole, folder = stopped
    tensors, numbers = contents(folder)
    assert {name.partition("/")[0] for name in tensors} == {"model", "average", "optimizer"}
    fresh = checkpoint.state_tensors(training(tmp_path / "fresh", settings(TOTAL)).state)
    for number, (name, value) in enumerate(tensors.items()):
        rest = {other: kept for other, kept in tensors.items() if other != name}
        refused = resumed(folder, tmp_path / f"dropped-{number}", rest, numbers)
        assert isinstance(refused, str)
        assert name.partition("/")[2] in refused
        forgotten = tensors | {name: fresh.get(name, torch.zeros_like(value))}
        ended = resumed(folder, tmp_path / f"forgotten-{number}", forgotten, numbers)
        copied = name.startswith("average/") and name.endswith("num_batches_tracked")  # by the next update
        assert (ended == whole) == copied, f"{name} is not needed"


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where everything in the numbers of a checkpoint lies."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


def without(numbers: Mapping[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    rest: Any = copy.deepcopy(dict(numbers))
    inner = rest
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return rest


FRESH = {"step": 0, "validated": 0, "best": None, "best_step": 0, "stale": 0}


def test_every_number_of_a_checkpoint_is_needed(stopped: tuple[Digest, Path], tmp_path: Path) -> None:
    """Dropped, however deep, it is refused; as it was before the first step, the run ends otherwise."""
    whole, folder = stopped
    tensors, numbers = contents(folder)
    assert set(numbers) == {*FRESH, "format", "of", "scaler", "offsets", "optimizer"}
    assert all(numbers[name] != value for name, value in FRESH.items()), "a counter is what it was at the start"
    for number, path in enumerate(paths(numbers)):
        refused = resumed(folder, tmp_path / f"dropped-{number}", tensors, without(numbers, path))
        assert isinstance(refused, str), path
    forgotten = [{name: value} for name, value in FRESH.items()]
    forgotten += [{"offsets": numbers["offsets"] | {log: 0}} for log in checkpoint.LOGS]
    for number, values in enumerate(forgotten):
        ended = resumed(folder, tmp_path / f"forgotten-{number}", tensors, numbers | values)
        assert ended != whole, f"{values} goes unnoticed"


def scaled(folder: Path) -> State:
    """A state that scales its loss, as fp16 on a GPU does."""
    state = training(folder, settings(TOTAL)).state
    state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return state


def test_every_number_of_the_scale_of_the_loss_is_needed_and_comes_back(tmp_path: Path) -> None:
    """T07; one was missing in the_well pull request 77. That fp16 resumes exactly is for a GPU to show (T08)."""
    state = scaled(tmp_path / "one")
    state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": 512.0, "_growth_tracker": 7})
    path = checkpoint.save(tmp_path, state, {"history": 0, "timing": 0})
    again = scaled(tmp_path / "again")
    checkpoint.load(path, again)
    assert again.scaler.state_dict() == state.scaler.state_dict()
    numbers = json.loads((path / "state.json").read_bytes())
    kept = (path / "state.safetensors").read_bytes()
    for dropped in ({"scaler": {}}, *(without(numbers, ("scaler", key)) for key in numbers["scaler"])):
        files = {"state.safetensors": kept, "state.json": json.dumps(numbers | dropped).encode()}
        durable.write_folder(path, files)
        with pytest.raises(ModelError, match="does not fit this run"):
            checkpoint.load(path, scaled(tmp_path / "refused"))
    durable.write_folder(path, files | {"state.json": json.dumps(numbers).encode()})
    with pytest.raises(ModelError, match="it holds a scale of the loss and this run has none"):
        checkpoint.load(path, training(tmp_path / "unscaled", settings(TOTAL)).state)


def test_momentum_comes_back_in_the_memory_layout_it_had(tmp_path: Path) -> None:
    """In another one the same sums are done by other instructions, which nobody promises to give the same bits."""
    for kind in ("sgd", "adamw"):
        how = settings(TOTAL, optimizer=kind, learning_rate=0.01)
        one = training(tmp_path / kind, how)
        one.state.model.to(memory_format=torch.channels_last)
        for parameter in one.state.learning:
            parameter.grad = torch.ones_like(parameter)
        one.state.optimizer.step()
        path = checkpoint.save(tmp_path / kind, one.state, {"history": 0, "timing": 0})
        again = training(tmp_path / f"{kind}-again", how)
        again.state.model.to(memory_format=torch.channels_last)
        checkpoint.load(path, again.state)
        assert strides(again.state) == strides(one.state)
        assert any(stride != sorted(stride, reverse=True) for stride in strides(one.state)), "all are as by default"


def strides(state: State) -> list[list[int]]:
    states = (state.optimizer.state[parameter] for parameter in state.learning)
    return [list(values[name].stride()) for values in states for name in sorted(values)]


# T25: checkpoints of something else


def of(folder: Path, **facts: Any) -> Training:
    how = settings(TOTAL, keep="last")
    network = training(folder, how).state.model
    return Training(State.fresh(network, how, facts), how, Paths(folder, "plusx train --resume"), lambda _: None)


@pytest.mark.parametrize(
    ("before", "now", "difference"),
    [
        (
            {"classes": ["bird", "cat", "dog"]},
            {"classes": ["cat", "dog", "fox"]},
            "of the classes, bird only there and fox only here",
        ),
        ({"classes": ["cat", "dog"]}, {"classes": ["dog", "cat"]}, "the classes have another order"),
        ({"network": "resnet18"}, {"network": "resnet34"}, "network is resnet18 there and resnet34 here"),
        ({"network": "r", "width": 0.5}, {"network": "r"}, "width is 0.5 there and not told here"),
        (
            {"classes": [f"class {n}" for n in range(9)], "average": "ema"},
            {"classes": ["class 0"], "average": "none"},
            "average is ema there and none here; of the classes, class 1, class 2, class 3 and 5 more only there",
        ),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_the_difference(
    before: dict[str, Any], now: dict[str, Any], difference: str, tmp_path: Path
) -> None:
    of(tmp_path, **before).save()
    with pytest.raises(ModelError) as caught:
        of(tmp_path, **now).resume()
    assert caught.value.exit_code == 4
    assert caught.value.message == (
        f"{tmp_path}/checkpoints/step-000000 does not fit this run: {difference}. "
        "Resume with the settings and the version it was written with."
    )
    of(tmp_path, **before).resume()


def test_a_network_of_another_shape_is_told_in_a_few_words(stopped: tuple[Digest, Path], tmp_path: Path) -> None:
    tensors, numbers = contents(stopped[1])
    narrow = {name: value[:2] if value.ndim > 1 else value for name, value in tensors.items()}
    renamed = {name.replace("model/block", "model/stage"): value for name, value in tensors.items()}
    for other, told in (
        (narrow, "'conv1.weight' is float32 [2, 3, 3, 3] there and float32 [6, 3, 3, 3] here, "),
        (renamed, "'block.conv1.weight' is missing, 'block.bn1.weight' is missing, 'block.bn1.bias' is missing and 9 "),
    ):
        refused = resumed(stopped[1], tmp_path / told[1:6], other, numbers)
        assert isinstance(refused, str)
        assert told in refused
        assert len(refused) < 600


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "a list": ({"state.json": b"[]"}, "state.json"),
    "no JSON": ({"state.json": b"{"}, "state.json"),
    "deep": ({"state.json": b"[" * 100_000}, "state.json"),
    "no numbers": ({"state.json": None}, "state.json cannot be read (No such file or directory)"),
    "no tensors": ({"state.safetensors": None}, "state.safetensors cannot be read (No such file or directory)"),
    "a word for the best step": ({"best_step": "x"}, "its 'best_step' is 'x', and a whole number from 0 on"),
    "a word for the best": ({"best": "x"}, "its 'best' is 'x', and a finite number or none was expected"),
    "infinite": ({"best": float("inf")}, "its 'best' is inf, and a finite number or none was expected"),
    "before the start": ({"step": -1}, "its 'step' is -1, and a whole number from 0 on was expected"),
}


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("odd", ODD)
def test_a_forged_checkpoint_is_refused_with_a_sentence(
    odd: str, keep: str, stopped: tuple[Digest, Path], tmp_path: Path
) -> None:
    """T25: its manifest is right, and what it lists is odd or not all there."""
    changes, told = ODD[odd]
    shutil.copytree(stopped[1], tmp_path / "run")
    newest, older = checkpoint.found(tmp_path / "run" / "checkpoints")
    shutil.rmtree(older)
    files = {path.name: path.read_bytes() for path in newest.glob("state.*")}
    numbers = {name: value for name, value in changes.items() if not name.startswith("state.")}
    files["state.json"] = json.dumps(json.loads(files["state.json"]) | numbers).encode()
    files |= {name: value for name, value in changes.items() if name not in numbers}
    durable.write_folder(newest, {name: data for name, data in files.items() if data is not None})
    with pytest.raises(ModelError) as caught:
        training(tmp_path / "run", settings(TOTAL, keep=keep)).resume()
    assert caught.value.exit_code == 4
    assert told in caught.value.message
    assert "\n" not in caught.value.message


def test_momentum_of_another_shape_or_parameter_is_refused(stopped: tuple[Digest, Path], tmp_path: Path) -> None:
    tensors, numbers = contents(stopped[1])
    name = "optimizer/0/momentum_buffer"
    refused = resumed(stopped[1], tmp_path / "shape", tensors | {name: tensors[name][:1]}, numbers)
    assert "the optimizer's '0/momentum_buffer' is [1, 3, 3, 3] there and [6, 3, 3, 3] here" in str(refused)
    more = {"optimizer/99/momentum_buffer": torch.zeros(3)}
    listed = numbers | {"optimizer": [*numbers["optimizer"], "99/momentum_buffer"]}
    assert "99 is missing" in str(resumed(stopped[1], tmp_path / "more", tensors | more, listed))


def test_a_checkpoint_of_a_later_format_is_refused_by_its_number(stopped: tuple[Digest, Path], tmp_path: Path) -> None:
    tensors, numbers = contents(stopped[1])
    refused = resumed(stopped[1], tmp_path / "run", tensors, numbers | {"format": checkpoint.FORMAT + 1})
    assert f"its format is {checkpoint.FORMAT + 1}, and formats 1 and 2 are known" in str(refused)


def test_checkpoints_of_format_1_are_still_gone_on_with(tmp_path: Path) -> None:
    """T25; the fixture was written by the program of that time. Its bits are of its machine, so no hash is compared."""
    shutil.copytree(OLDEST, tmp_path / "checkpoints")
    one = of(tmp_path, classes=["cat", "dog"])
    one.resume()
    assert (one.state.step, one.state.validated, one.state.best_step, one.state.stale) == (5, 4, 4, 0)
    kept = safetensors.torch.load((OLDEST / "step-000005" / "state.safetensors").read_bytes())
    ours = checkpoint.state_tensors(one.state)
    assert kept.keys() == ours.keys()
    assert all(torch.equal(kept[name], ours[name]) for name in kept)
    until(6, tmp_path, settings(TOTAL, keep="last"))
    newest = tmp_path / "checkpoints" / "step-000006" / "state.json"
    assert json.loads(newest.read_bytes())["format"] == checkpoint.FORMAT
