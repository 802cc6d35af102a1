"""A small network, batches that are a pure function of the step, and a training on them: what these tests train.

Run as a program, it is one training in a process of its own: `toy_training.py FOLDER [total=12] [hold=4:sleep] ...`.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plusx import durable, errors, keyed
from plusx.training import checkpoint
from plusx.training.events import Event, Saved, StepDone, Validated
from plusx.training.loop import Outcome, Training, fit
from plusx.training.paths import Paths
from plusx.training.settings import Settings
from plusx.training.step import State

PHOTOS, BATCH, CLASSES = 28, 8, 3


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn1(self.conv1(x)))


class Network(nn.Module):
    """Convolution, batch norm, one residual block, dropout, a linear layer; takes pixels on the 0..255 scale."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.block = Block(6)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.block(F.relu(self.bn1(self.conv1(images.float() / 255))))
        return self.fc(self.drop(x.mean(dim=(2, 3))))


def network(seed: int = 1) -> Network:
    torch.manual_seed(seed)
    return Network()


@dataclass
class Batch:
    images: Tensor
    targets: Tensor
    indices: np.ndarray[Any, np.dtype[np.int64]]

    @property
    def shares(self) -> tuple[int, ...]:
        return (len(self.images),)


class Photos:
    """28 photos of noise, 4 batches an epoch (the last one partial), in an order keyed by the epoch.

    `seen` are the photos of every batch that was asked for, with its step.
    """

    def __init__(self, batch_size: int = BATCH) -> None:
        self.batch_size, self.steps_per_epoch = batch_size, -(-PHOTOS // batch_size)
        self.seen: list[tuple[int, list[int]]] = []
        pixels = keyed.uniform(7, 0, np.arange(PHOTOS), "pixels", 3 * 12 * 12).reshape(PHOTOS, 3, 12, 12)
        self.images = torch.from_numpy((pixels * 255).astype(np.uint8))
        self.targets = torch.arange(PHOTOS) % CLASSES
        for label in range(CLASSES):  # something to learn: each class is brighter in one channel
            self.images[self.targets == label, label] |= 128

    def batch(self, step: int) -> Batch:
        epoch, place = divmod(step, self.steps_per_epoch)
        rows = keyed.permutation(7, epoch, PHOTOS)[place * self.batch_size : (place + 1) * self.batch_size]
        self.seen.append((step, rows.tolist()))
        return Batch(self.images[rows], self.targets[rows], rows)

    def name(self, index: int) -> str:
        return f"class-{index % CLASSES}/{index}.jpg"

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Accuracy goes up and down by design, so that counters and the best weights have something to do."""
        logits = model(self.images)
        loss = F.cross_entropy(logits, self.targets)
        return {"accuracy": float(torch.frac(logits.sum() * 100).abs()), "log_loss": float(loss)}


EVERYTHING = {
    "learning_rate": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3, "schedule": "triangular",
    "warmup": 0.2, "label_smoothing": 0.1, "clip_norm": 1.0, "accumulate": 2, "average": "ema", "average_every": 2,
    "patience": 100, "keep": "best", "log_every": 1, "checkpoint_every": 1000, "checkpoint_seconds": 1e9, "seed": 3,
}  # fmt: skip


def settings(total: int = 12, **others: Any) -> Settings:
    return Settings(**({"total_steps": total, "steps_per_epoch": 4} | EVERYTHING | others))


def training(folder: Path, how: Settings, listen: Any = lambda _: None) -> Training:
    folder.mkdir(parents=True, exist_ok=True)
    return Training(State.fresh(network(), how), how, Paths(folder, "plusx train --resume"), listen)


def run(
    folder: Path,
    how: Settings,
    *,
    resume: bool = False,
    listen: Any = lambda _: None,
    photos: Photos | None = None,
) -> Digest:
    """One training from its start, or from its last checkpoint, to its end."""
    photos, one = photos or Photos(), training(folder, how, listen)
    if resume:
        one.resume()
    return digest(one, fit(one, photos, photos.validate))


@dataclass(frozen=True)
class Digest:
    """What must be equal between an uninterrupted run and a resumed one.

    `state` is what a checkpoint holds: weights, their average and momentum; `numbers` are its counters; `kept` are the
    weights that the run ends with; `timed` are the steps in the log of clock figures.
    """

    state: str
    kept: str
    numbers: tuple[Any, ...]
    history: str
    timed: tuple[int, ...]


def digest(one: Training, outcome: Outcome) -> Digest:
    state, folder = one.state, one.paths.folder
    numbers = (state.step, state.validated, state.best, state.best_step, state.stale, state.scaler.state_dict())
    kept = (outcome.steps, outcome.kept_step, outcome.stopped_early)
    timed = tuple(record["step"] for record in durable.Log(folder / "timing.jsonl").records())
    return Digest(
        sha256(checkpoint.state_tensors(state)),
        sha256(dict(outcome.model.state_dict())),
        (*numbers, *kept),
        _sha((folder / "history.jsonl").read_bytes()),
        timed,
    )


def moments(folder: Path, how: Settings, copies: Path, photos: Photos | None = None) -> Digest:
    """A whole run in `folder`, and in `copies` what a stop would leave of it at every moment that differs:

    computing-N-P: stopped while the network computes part P of step N, which saves step N - 1;
    killed-N: killed after step N, before its checkpoint; step-N: stopped then, which saves it;
    validating-N: stopped during the validation after step N; unsaved-N: killed between that and its checkpoint;
    validated-N: killed after it.
    """
    one = training(folder, replace(how, checkpoint_every=1))
    stop = _Copier(one, copies)
    one.listen = stop.heard
    one.state.model.conv1.register_forward_hook(stop.computing)
    photos = photos or Photos()

    def validate(model: nn.Module) -> Mapping[str, float]:
        stop.saved(f"validating-{one.state.step}")
        return photos.validate(model)

    return digest(one, fit(one, photos, validate))


class _Copier:
    """Copies the folder of a training whenever something happens in it."""

    def __init__(self, one: Training, copies: Path) -> None:
        self.one, self.copies, self.parts = one, copies, 0

    def heard(self, event: Event) -> None:
        step = self.one.state.step
        if isinstance(event, StepDone):
            self.parts = 0
            self.copy(f"killed-{step}")
            self.saved(f"step-{step}")
        if isinstance(event, Validated):
            self.copy(f"unsaved-{step}")
        first = not (self.copies / f"validated-{step}").exists()
        if isinstance(event, Saved) and 0 < step == self.one.state.validated and first:
            self.copy(f"validated-{step}")

    def computing(self, module: nn.Module, *_: Any) -> None:
        if module.training:
            self.parts += 1
            self.saved(f"computing-{self.one.state.step + 1}-{self.parts}")

    def saved(self, moment: str) -> None:
        """As whoever watches for signals does it: save the last finished step, wherever the next one is."""
        self.one.saved_step = -1
        self.one.save()
        self.copy(moment)

    def copy(self, moment: str) -> None:
        shutil.copytree(self.one.paths.folder, self.copies / moment)


class StoppedError(Exception):
    """The training was stopped by a test."""


def until(step: int, folder: Path, how: Settings, photos: Photos | None = None) -> None:
    """Train, or go on, up to `step`, save, and stop."""

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            one.save()
            raise StoppedError

    one, photos = training(folder, how, stop), photos or Photos()
    one.resume()
    try:
        fit(one, photos, photos.validate)
    except StoppedError:
        return
    raise AssertionError(f"the run ended before step {step}")


def sha256(tensors: Mapping[str, Tensor]) -> str:
    return _sha(b"".join(name.encode() + tensors[name].contiguous().numpy().tobytes() for name in sorted(tensors)))


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Held(Photos):
    """Photos among which one step, or the validation after it, takes very long.

    `how`: "sleep" or "multiply" (one long call of PyTorch) inside the network, or "validate".
    """

    def __init__(self, step: int, how: str) -> None:
        super().__init__()
        self.step, self.how, self.at = step, how, -1

    def batch(self, step: int) -> Batch:
        self.at = step
        return super().batch(step)

    def hold(self, module: nn.Module, *_: Any) -> None:
        if self.at != self.step or not module.training or self.how == "validate":
            return
        print("holding", flush=True)
        if self.how == "sleep":
            time.sleep(20)
        else:
            torch.linalg.multi_dot([torch.ones(2500, 2500)] * 300)  # minutes on one core

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        if self.how == "validate" and self.at == self.step:
            print("holding", flush=True)
            time.sleep(20)
        return super().validate(model)


def main(folder: str, *words: str) -> int:
    """Train, or go on, and print a line per event; hold=STEP:HOW makes one step long, nap=S every step longer."""
    torch.set_num_threads(1)
    options = dict(word.split("=") for word in words)
    step, _, how = options.pop("hold", "-1:sleep").partition(":")
    nap = float(options.pop("nap", 0))
    photos = Held(int(step), how)

    def listen(event: Event) -> None:
        if isinstance(event, (StepDone, Saved)):
            print(type(event).__name__, event.step if isinstance(event, StepDone) else event.path.name, flush=True)
        time.sleep(nap if isinstance(event, StepDone) else 0)

    one = training(Path(folder), settings(**{name: int(value) for name, value in options.items()}), listen)
    one.state.model.bn1.register_forward_hook(photos.hold)
    one.resume()
    try:
        fit(one, photos, photos.validate)
    except errors.Error as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
