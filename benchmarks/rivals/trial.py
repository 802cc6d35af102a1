"""What every rival's script has in common: its command line, its clock, and the files it leaves for `peers.py`.

A rival is one file here. Its `PEER` (a literal, read without running the file) says what to install and what its
settings are; run as a script, it trains on one folder, validates on another, and leaves in --out

    history.jsonl      seconds, photos trained and validation accuracy, each time it validated
    predictions.csv    for every test photo its path in the test folder and the probability of each class
    run.json           seconds and photos trained, versions, and the size of the photos
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Trial:
    """What to train on, for how long, how, and where to leave the results. `started` is on the monotonic clock."""

    train: Path
    val: Path
    test: Path
    minutes: float
    setting: str
    size: int | None
    seed: int
    out: Path
    started: float

    @classmethod
    def asked(cls) -> Trial:
        """The one on the command line."""
        parser = argparse.ArgumentParser()
        for name in ("train", "val", "test", "out"):
            parser.add_argument(f"--{name}", type=Path, required=True)
        parser.add_argument("--minutes", type=float, required=True)
        parser.add_argument("--setting", choices=("default", "best"), required=True)
        parser.add_argument("--size", type=int, help="of the photos in pixels, where it is not the setting's own")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--started", type=float, default=time.monotonic(), help="when the minutes began")
        trial = cls(**vars(parser.parse_args()))
        trial.out.mkdir(parents=True, exist_ok=True)
        return trial

    @property
    def best(self) -> bool:
        """Whether the best sensible settings are asked for, not the documented defaults."""
        return self.setting == "best"

    def seed_everything(self) -> None:
        """Seed the generators of Python, NumPy and PyTorch."""
        import numpy
        import torch

        random.seed(self.seed)
        numpy.random.seed(self.seed)
        torch.manual_seed(self.seed)


class Journal:
    """The clock of a trial, which stands still while a rival validates, and what is written down by it."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.images = trial, 0
        self._uncounted, self._paused_at = 0.0, 0.0
        self._history = trial.out / "history.jsonl"
        self._history.write_text("")

    @property
    def seconds(self) -> float:
        """Seconds of training since the process was started, imports and decoding included."""
        return (self._paused_at or time.monotonic()) - self.trial.started - self._uncounted

    @property
    def progress(self) -> float:
        """The share of the minutes that is over: at 1 the trial ends."""
        return self.seconds / (60 * self.trial.minutes)

    def pause(self) -> None:
        """Stop the clock."""
        self._paused_at = self._paused_at or time.monotonic()

    def go_on(self) -> None:
        """Start the clock again."""
        if self._paused_at:
            self._uncounted += time.monotonic() - self._paused_at
            self._paused_at = 0.0

    @contextlib.contextmanager
    def uncounted(self) -> Iterator[None]:
        """A time that does not count."""
        self.pause()
        try:
            yield
        finally:
            self.go_on()

    def validated(self, accuracy: float) -> None:
        """Write down what a validation found."""
        line = {"seconds": self.seconds, "images": self.images, "accuracy": accuracy}
        with self._history.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{line['seconds']:7.1f} s  {self.images:7} photos  validation {100 * accuracy:.2f} %", flush=True)

    def trained(self, packages: Sequence[str] = (), **figures: Any) -> None:
        """Stop the clock for good; write down what training took, the versions of `packages`, and `figures`."""
        self.pause()
        versions = {name: version(name) for name in ("torch", "torchvision", *packages)}
        run = {"seconds": self.seconds, "images": self.images, "versions": versions, **figures}
        (self.trial.out / "run.json").write_text(json.dumps(run) + "\n")

    def predicted(self, classes: Sequence[str], rows: Iterator[tuple[str, Sequence[float]]]) -> None:
        """Write the probability of every class for photos of the test folder."""
        with (self.trial.out / "predictions.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", *classes])
            for path, probabilities in rows:
                writer.writerow([os.path.relpath(path, self.trial.test), *probabilities])
