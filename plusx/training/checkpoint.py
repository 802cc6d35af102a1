"""Checkpoints: everything a run needs to go on at the very next step, verified before it is trusted.

A checkpoint is a folder `step-NNNNNN` of `state.safetensors` (every tensor), `state.json` (every
number) and a manifest with their sizes and hashes; `plusx.durable` writes it whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from plusx import durable
from plusx.errors import training as sentences
from plusx.errors.use import first_few
from plusx.training.step import State

FORMAT = 2
READABLE = (1, 2)  # a checkpoint of format 1 does not say what it is of
KEPT = 2
LOGS = ("history", "timing")
_COUNTS = ("step", "validated", "best_step", "stale")
_NUMBERS = (*_COUNTS, "best")
_MOMENTS = {"momentum_buffer": "the momentum", "exp_avg": "the momentum", "exp_avg_sq": "the mean squared gradients"}
# what a checkpoint whose manifest is right may still raise, since anybody can write a manifest
_FORGED = (
    *(KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError, OSError),
    safetensors.SafetensorError,
)

Buffers = Mapping[str, Tensor]


@dataclass(frozen=True)
class Choice:
    """The checkpoint that a run goes on from, None where there is none, and what was passed over and why.

    `lost` is what is wrong with its best weights, where every checkpoint that is whole has lost them.
    """

    path: Path | None
    skipped: tuple[str, ...] = ()
    lost: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The choice as plain values."""
        return {"path": self.path and str(self.path), "skipped": list(self.skipped), "lost": self.lost}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Choice:
        """The choice that `to_json` told."""
        return cls(values["path"] and Path(values["path"]), tuple(values["skipped"]), values["lost"])


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
    """The newest checkpoint whose every byte is as written, and what was passed over and why; raises as `chosen`."""
    choice = chosen(folder, None)
    return choice.path, list(choice.skipped)


def chosen(folder: Path, best: Path | None) -> Choice:
    """The checkpoint in `folder` that a run goes on from: the newest that is whole, with its best weights in `best`.

    Where all that are whole have lost those, the newest of them. `best` is None where no best weights will be asked
    for. Raises ModelError where there are checkpoints and all are damaged. One that was about to be replaced when the
    process died is put back first, so only whoever holds the run's lock may ask.
    """
    durable.put_back(folder)
    skipped: list[str] = []
    without: Choice | None = None
    for path in found(folder):
        fault = durable.folder_fault(path) or (_numbers_fault(path) if best else None)
        lost = _best_fault(path, best) if best and not fault else None
        if not fault and not lost:
            return Choice(path, tuple(skipped))
        if lost and without is None:
            without = Choice(path, tuple(skipped), lost)
        skipped.append(f"{path.name}: {fault or lost}")
    if skipped and without is None:
        raise sentences.all_damaged(folder, skipped)
    return without or Choice(None)


def load(path: Path, state: State) -> dict[str, int]:
    """Put the checkpoint at `path` into `state`, exactly; returns the recorded lengths of the logs.

    Raises ModelError where it is of another network, other classes or a later format, or a tensor or number is
    missing, unknown or of another shape; `state` is then half restored and of no use.
    """
    try:
        tensors = safetensors.torch.load((path / "state.safetensors").read_bytes())
        numbers = _read_numbers(path)
        if numbers.get("format") not in READABLE:
            known = " and ".join(map(str, READABLE))
            raise ValueError(f"its format is {numbers.get('format')!r}, and formats {known} are known")
        if wrong := _no_number(numbers):
            raise ValueError(wrong)
        _refuse_another(numbers, state)
        _restore_model(state.model, _part(tensors, "model/"))
        if state.average is not None:
            _restore_model(state.average.model, _part(tensors, "average/"))
        elif _part(tensors, "average/"):
            raise ValueError("it holds an average of the weights and this run keeps none")
        _restore_optimizer(state, _part(tensors, "optimizer/"), numbers["optimizer"])
        if numbers["scaler"] and not state.scaler.is_enabled():
            raise ValueError("it holds a scale of the loss and this run has none")
        state.scaler.load_state_dict(numbers["scaler"])
        for name in _NUMBERS:
            setattr(state, name, numbers[name])
        return {name: int(numbers["offsets"][name]) for name in LOGS}
    except _FORGED as error:
        raise sentences.foreign_checkpoint(path, _what(error)) from error


def told(name: str, state: State) -> str:
    """What the tensor `name` of `named_tensors` is called among people: "the momentum of conv1.weight"."""
    kind, _, rest = name.partition("/")
    if kind != "optimizer":
        return f"the average of {rest}" if kind == "average" else rest
    index, _, key = rest.partition("/")
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    return f"{_MOMENTS.get(key, key)} of {names.get(id(state.learning[int(index)]), rest)}"


def state_tensors(state: State, buffers: Buffers | None = None) -> dict[str, Tensor]:
    """Every tensor of the state on the CPU, under names that tell where it belongs."""
    return {name: value.detach().cpu().contiguous() for name, value in named_tensors(state, buffers).items()}


def named_tensors(state: State, buffers: Buffers | None = None) -> dict[str, Tensor]:
    """The same tensors where and as they are."""
    tensors = {f"model/{name}": value for name, value in state.model.state_dict().items()}
    tensors |= {f"model/{name}": value for name, value in (buffers or {}).items()}
    if state.average is not None:
        tensors |= {f"average/{name}": value for name, value in state.average.model.state_dict().items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        kept = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        tensors |= {f"optimizer/{index}/{name}": value for name, value in kept.items()}
    return tensors


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


def _read_numbers(path: Path) -> dict[str, Any]:
    """What state.json holds. Raises ValueError with what is wrong with it, and OSError."""
    try:
        numbers = json.loads((path / "state.json").read_bytes())
    except (ValueError, RecursionError):
        raise ValueError("state.json is damaged") from None
    if not isinstance(numbers, dict):
        raise ValueError("state.json does not hold numbers with their names")
    return numbers


def _numbers_fault(path: Path) -> str | None:
    """What is wrong with the counts and the best figure in a whole checkpoint; of missing ones, loading says so."""
    try:
        return _no_number(dict.fromkeys(_COUNTS, 0) | {"best": None} | _read_numbers(path))
    except (OSError, ValueError) as error:
        return _what(error)


def _best_fault(path: Path, best: Path) -> str | None:
    """What is wrong with the best weights in `best` that a checkpoint refers to, whose numbers have no fault."""
    numbers = _read_numbers(path)
    step = numbers.get("best_step")
    if numbers.get("best") is None or step is None:
        return None
    folder = best / f"step-{step:06d}"
    fault = durable.folder_fault(folder)
    return fault and f"of its best weights, best/{folder.name}, {fault}"


def _no_number(numbers: Mapping[str, Any]) -> str | None:
    """Which of the numbers that a state is made of is none. Raises KeyError for one that is missing."""
    for name in _COUNTS:
        if type(numbers[name]) is not int or numbers[name] < 0:
            return f"its {name!r} is {numbers[name]!r}, and a whole number from 0 on was expected"
    best = numbers["best"]
    if best is not None and not (type(best) is float and math.isfinite(best)):
        return f"its 'best' is {best!r}, and a finite number or none was expected"
    return None


def _what(error: Exception) -> str:
    """What an error of a forged checkpoint says, on one line."""
    if isinstance(error, OSError):
        return f"{Path(error.filename or '').name} cannot be read ({error.strerror})"
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())


def _prune(folder: Path, step: int) -> None:
    """Keep the newest two up to `step`. Later ones are damaged leftovers that a resumed run has passed over."""
    durable.put_back(folder)
    kept = [path for path in found(folder) if step_of(path) <= step][:KEPT]
    for path in set(found(folder)) - set(kept):
        shutil.rmtree(path, ignore_errors=True)


def _numbers(state: State, offsets: Mapping[str, int]) -> bytes:
    numbers: dict[str, Any] = {"format": FORMAT, "of": dict(state.of)} | {
        name: getattr(state, name) for name in _NUMBERS
    }
    numbers |= {"scaler": state.scaler.state_dict(), "offsets": dict(offsets)}
    numbers["optimizer"] = sorted(_optimizer_names(state.optimizer))
    return json.dumps(numbers, indent=2).encode()


def _optimizer_names(optimizer: torch.optim.Optimizer) -> list[str]:
    states = optimizer.state_dict()["state"].items()
    return [f"{index}/{name}" for index, values in states for name, v in values.items() if isinstance(v, Tensor)]


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _refuse_another(numbers: Mapping[str, Any], state: State) -> None:
    """Raise ValueError where the checkpoint says that it is of something else."""
    if numbers["format"] == 1:
        return
    theirs, ours = numbers["of"], json.loads(json.dumps(dict(state.of)))
    differing = [_differing(name, theirs.get(name), ours.get(name)) for name in sorted(theirs.keys() | ours.keys())]
    if told := [difference for difference in differing if difference]:
        raise ValueError("; ".join(told))


def _differing(name: str, theirs: Any, ours: Any) -> str | None:
    """How a fact of the checkpoint differs from that of this run; of lists of names, by the names."""
    if theirs == ours:
        return None
    if not isinstance(theirs, list) or not isinstance(ours, list):
        there, here = ("not told" if value is None else value for value in (theirs, ours))
        return f"{name} is {there} there and {here} here"
    only = {
        where: [str(n) for n in a if n not in set(b)]
        for where, a, b in (("there", theirs, ours), ("here", ours, theirs))
    }
    told = [f"{first_few(names)} only {where}" for where, names in only.items() if names]
    return f"of the {name}, {' and '.join(told)}" if told else f"the {name} have another order"


def _restore_model(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """`strict` alone would pass over a missing `num_batches_tracked`, for the sake of files from before 2018."""
    if differences := list(_misfits(model.state_dict(), tensors)):
        raise ValueError(first_few(differences))
    model.load_state_dict(dict(tensors), strict=True)


def _misfits(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Iterator[str]:
    yield from (f"{name!r} is missing" for name in ours if name not in theirs)
    yield from (f"{name!r} is unknown" for name in theirs if name not in ours)
    for name in (name for name in ours if name in theirs):
        kinds = [f"{value.dtype} {list(value.shape)}".removeprefix("torch.") for value in (theirs[name], ours[name])]
        if kinds[0] != kinds[1]:
            yield f"{name!r} is {kinds[0]} there and {kinds[1]} here"


def _restore_optimizer(state: State, tensors: Mapping[str, Tensor], names: list[str]) -> None:
    """Momentum and other per-parameter tensors; `names` lists those that must be there."""
    if unknown := sorted(tensors.keys() - set(names)):
        raise ValueError(f"the optimizer's {unknown[0]!r} is not listed")
    parameters = dict(enumerate(state.learning))
    states: dict[int, dict[str, Tensor]] = {}
    for name in names:
        index, _, key = name.partition("/")
        states.setdefault(int(index), {})[key] = _laid_out(name, tensors[name], parameters[int(index)])
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": states, "param_groups": groups})


def _laid_out(name: str, value: Tensor, parameter: Tensor) -> Tensor:
    """A tensor of the optimizer in the memory layout it had, that of its parameter.

    In another one the same sums are done by other instructions: AdamW takes three times as long on a CPU, and nothing
    promises equal bits.
    """
    if not value.ndim:
        return value  # a count of steps
    if value.shape != parameter.shape:
        raise ValueError(f"the optimizer's {name!r} is {list(value.shape)} there and {list(parameter.shape)} here")
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
