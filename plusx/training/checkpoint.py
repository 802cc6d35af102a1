"""Checkpoints: everything a run needs to go on at the very next step, verified before it is trusted.

A checkpoint is a folder `step-NNNNNN` of `state.safetensors` (every tensor), `state.json` (every
number) and a manifest with their sizes and hashes; `plusx.durable` writes it whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from plusx import durable
from plusx.errors import training as sentences
from plusx.training.step import State

FORMAT = 1
KEPT = 2
LOGS = ("history", "timing")
_NUMBERS = ("step", "validated", "best", "best_step", "stale")

Buffers = Mapping[str, Tensor]


def save(folder: Path, state: State, offsets: Mapping[str, int], buffers: Buffers | None = None) -> Path:
    """Write `state` as the newest checkpoint in `folder` and drop all but the two newest.

    `offsets` are the lengths of the logs; `buffers` replace the model's own (see `interrupt`). One of the same step,
    saved before more was known of it, is replaced. Raises DiskError, and leaves what was there as it was.
    """
    path = folder / f"step-{state.step:06d}"
    durable.make_folder(folder)
    tensors = state_tensors(state, buffers)
    files = {"state.safetensors": safetensors.torch.save(tensors), "state.json": _numbers(state, offsets)}
    durable.require_space(folder, sum(map(len, files.values())))
    durable.write_folder(path, files)
    _prune(folder, state.step)
    return path


def newest_valid(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose every byte is as written, and what was passed over and why.

    None where there is no checkpoint. Raises ModelError where there are some and all are damaged. One that was about
    to be replaced when the process died is put back first, so only whoever holds the run's lock may ask.
    """
    durable.put_back(folder)
    skipped: list[str] = []
    for path in found(folder):
        fault = durable.folder_fault(path)
        if fault is None:
            return path, skipped
        skipped.append(f"{path.name}: {fault}")
    if skipped:
        raise sentences.all_damaged(folder, skipped)
    return None, skipped


def load(path: Path, state: State) -> dict[str, int]:
    """Put the checkpoint at `path` into `state`, exactly; returns the recorded lengths of the logs.

    Raises ModelError where a tensor or number is missing, unknown or of another shape.
    """
    tensors = safetensors.torch.load((path / "state.safetensors").read_bytes())
    numbers = json.loads((path / "state.json").read_bytes())
    if numbers.get("format") != FORMAT:
        raise sentences.foreign_checkpoint(path, f"its format is {numbers.get('format')!r}, not {FORMAT}")
    try:
        _restore_model(state.model, _part(tensors, "model/"))
        if state.average is not None:
            _restore_model(state.average.model, _part(tensors, "average/"))
        elif _part(tensors, "average/"):
            raise ValueError("it holds an average of the weights and this run keeps none")
        _restore_optimizer(state.optimizer, _part(tensors, "optimizer/"), numbers["optimizer"])
        state.scaler.load_state_dict(numbers["scaler"])
        for name in _NUMBERS:
            setattr(state, name, numbers[name])
        return {name: int(numbers["offsets"][name]) for name in LOGS}
    except (KeyError, ValueError, RuntimeError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise sentences.foreign_checkpoint(path, what) from error


def state_tensors(state: State, buffers: Buffers | None = None) -> dict[str, Tensor]:
    """Every tensor of the state on the CPU, under names that tell where it belongs."""
    tensors = {f"model/{name}": value for name, value in state.model.state_dict().items()}
    tensors |= {f"model/{name}": value for name, value in (buffers or {}).items()}
    if state.average is not None:
        tensors |= {f"average/{name}": value for name, value in state.average.model.state_dict().items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        kept = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        tensors |= {f"optimizer/{index}/{name}": value for name, value in kept.items()}
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def found(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, newest first, by step and not by clock."""
    paths = [p for p in folder.glob("step-*") if p.name.removeprefix("step-").isdigit()]
    return sorted(paths, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The step in a name like `step-000100`."""
    return int(path.name.removeprefix("step-"))


def best_steps(folder: Path) -> set[int]:
    """The steps of the best weights that the checkpoints in `folder` refer to; unreadable ones refer to none."""
    steps: set[int] = set()
    for path in found(folder):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            steps.add(int(json.loads((path / "state.json").read_bytes())["best_step"]))
    return steps


def _prune(folder: Path, step: int) -> None:
    """Keep the newest two up to `step`. Later ones are damaged leftovers that a resumed run has passed over."""
    durable.put_back(folder)
    kept = [path for path in found(folder) if step_of(path) <= step][:KEPT]
    for path in set(found(folder)) - set(kept):
        shutil.rmtree(path, ignore_errors=True)


def _numbers(state: State, offsets: Mapping[str, int]) -> bytes:
    numbers: dict[str, Any] = {"format": FORMAT} | {name: getattr(state, name) for name in _NUMBERS}
    numbers |= {"scaler": state.scaler.state_dict(), "offsets": dict(offsets)}
    numbers["optimizer"] = sorted(_optimizer_names(state.optimizer))
    return json.dumps(numbers, indent=2).encode()


def _optimizer_names(optimizer: torch.optim.Optimizer) -> list[str]:
    states = optimizer.state_dict()["state"].items()
    return [f"{index}/{name}" for index, values in states for name, v in values.items() if isinstance(v, Tensor)]


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _restore_model(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """`strict` alone would pass over a missing `num_batches_tracked`, for the sake of files from before 2018."""
    for name in model.state_dict().keys() - tensors.keys():
        raise KeyError(name)
    model.load_state_dict(dict(tensors), strict=True)


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], names: list[str]) -> None:
    """Momentum and other per-parameter tensors; `names` lists those that must be there."""
    saved = optimizer.state_dict()
    if unknown := sorted(tensors.keys() - set(names)):
        raise ValueError(f"the optimizer's {unknown[0]!r} is not listed")
    states: dict[int, dict[str, Tensor]] = {}
    for name in names:
        index, _, key = name.partition("/")
        states.setdefault(int(index), {})[key] = tensors[name]
    optimizer.load_state_dict({"state": states, "param_groups": saved["param_groups"]})
