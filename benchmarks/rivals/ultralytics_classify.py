"""Ultralytics' classification trainer, from a model's YAML: nothing pretrained."""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from trial import Journal, Trial
from ultralytics import YOLO, settings
from ultralytics.models.yolo.classify import ClassificationTrainer

PEER = {
    "name": "Ultralytics",
    "packages": ["ultralytics==8.4.190", "ultralytics-thop"],
    "needs": ["opencv-python-headless", "requests", "psutil", "polars", "matplotlib", "pyyaml", "scipy"],
    "environment": {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"},
    "settings": {
        "default": "yolo26n-cls, imgsz=128, time=, everything else as it comes: batches of 16, optimizer=auto, "
        "RandAugment, erasing",
        "best": "yolo26n-cls, imgsz=96, batches of 64, SGD from 0.05, cosine, half an epoch of warm-up, crops of 50 % "
        "to all, flips, no RandAugment, no erasing, photos kept decoded, epochs from its own measured rate",
    },
    "testing_minutes": {"default": 2, "best": 2},
}
MODEL = "yolo26n-cls.yaml"
BEST = {
    "batch": 64,
    "optimizer": "SGD",
    "lr0": 0.05,
    "momentum": 0.9,
    "warmup_epochs": 0.5,
    "cos_lr": True,
    "auto_augment": None,
    "erasing": 0.0,
    "hsv_h": 0.0,
    "hsv_s": 0.0,
    "hsv_v": 0.0,
    "cache": "ram",
    "deterministic": False,
}
WARM_UP, MEASURED = 2, 6  # batches


class Clocked(ClassificationTrainer):  # type: ignore[misc]
    """Ultralytics' trainer by the trial's clock: validation and measuring its own rate do not count."""

    def __init__(self, journal: Journal, **overrides: Any) -> None:
        self.journal = journal
        super().__init__(overrides=overrides)

    @property
    def _seconds_left(self) -> float:
        return 60 * self.journal.trial.minutes - self.journal.seconds

    def _setup_train(self) -> None:
        super()._setup_train()
        if self.journal.trial.best:  # as it comes, the first epoch is one of a schedule of a hundred
            with self.journal.uncounted():
                self.epochs = self.args.epochs = max(1, round(self._affordable_epochs()))
                self.train_loader.reset()
            self._setup_scheduler()
            self.scheduler.last_epoch = self.start_epoch - 1
        self.args.time = self._seconds_left / 3600

    def _affordable_epochs(self) -> float:
        """What the rest of the minutes has room for, from a few batches through a copy of the network."""
        network, seconds, photos = deepcopy(self.model).train(), 0.0, 0
        started = time.monotonic()
        for number, batch in enumerate(self.train_loader):
            network(super().preprocess_batch(batch))[0].sum().backward()
            now = time.monotonic()
            if number >= WARM_UP:
                seconds, photos = seconds + now - started, photos + len(batch["cls"])
            if number >= WARM_UP + MEASURED:
                break
            started = now
        return self._seconds_left * photos / max(seconds, 1e-9) / len(self.train_loader.dataset)

    def preprocess_batch(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Count the photos of a training batch."""
        self.journal.images += len(batch["cls"])
        return super().preprocess_batch(batch)  # type: ignore[no-any-return]

    def validate(self) -> Any:
        """Validate while both clocks stand still."""
        started = time.time()
        with self.journal.uncounted():
            found = super().validate()
            self.journal.validated(float(found[0]["metrics/accuracy_top1"]))
        self.train_time_start += time.time() - started
        return found

    def final_eval(self) -> None:
        """Training is over."""
        self.journal.trained(("ultralytics",), size=self.args.imgsz, optimizer=type(self.optimizer).__name__)
        super().final_eval()


def probabilities(weights: Path, trial: Trial, size: int) -> Iterator[tuple[str, list[float]]]:
    """Of every test photo, by Ultralytics' own predictor."""
    model = YOLO(weights)
    for folder in sorted(trial.test.iterdir()):
        for found in model.predict(str(folder), imgsz=size, batch=64, stream=True, verbose=False):
            yield found.path, found.probs.data.tolist()


def main() -> None:
    """Train and test."""
    trial = Trial.asked()
    settings.update(sync=False)
    size = trial.size or (96 if trial.best else 128)
    flags = {"project": str(trial.out), "name": "run", "exist_ok": True, "plots": False, "device": "cpu"}
    asked = flags | (BEST if trial.best else {}) | {"imgsz": size, "seed": trial.seed, "pretrained": False}
    journal = Journal(trial)
    trainer = Clocked(journal, model=MODEL, data=str(trial.train.parent), time=trial.minutes / 60, **asked)
    trainer.train()
    classes = [trainer.data["names"][i] for i in range(trainer.data["nc"])]
    journal.predicted(classes, probabilities(trainer.best, trial, size))


if __name__ == "__main__":
    main()
