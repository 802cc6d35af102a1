"""A run folder made by hand, which grows a line at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from plusx.data.split import Row, write_split_csv
from plusx.durable import locked
from plusx.verbs.answers import Answered, write_answers

PLAN = {
    "total_steps": 1000,
    "steps_per_epoch": 100,
    "sizes": [[0.5, 32], [0.5, 48]],
    "revisions": [],
    "budget_seconds": 60.0,
    "most_steps": 2000,
    "seconds_per_step": [[32, 0.1], [48, 0.2]],
    "ending": 4.0,
}
CONFIG = {"model": "resnet10", "batch_size": 16, "log_every": 10, "seed": 0, "mixup": 0.0, "time": 60.0, "scale": None}


class Growing:
    """A run in `path`; what is written is what a training writes."""

    def __init__(self, path: Path, data: Path | None = None) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
        self.write("plan", PLAN)
        self.write("environment", {"device": "cpu", "threads": 2, "plusx": "0.1.0"})
        self.write("run", {"data": [str(data or path.parent / "data")]})
        (path / "run.lock").touch()

    def write(self, name: str, value: Any) -> None:
        """One of the JSON files."""
        (self.path / f"{name}.json").write_text(json.dumps(value))

    def raw(self, log: str, text: str) -> None:
        """Text at the end of a log."""
        with (self.path / f"{log}.jsonl").open("a") as file:
            file.write(text)

    def step(self, step: int, loss: float = 0.5, seconds: float = 0.1) -> None:
        """A logged step."""
        place = {"step": step, "epoch": (step - 1) // 100}
        self.raw("history", json.dumps(place | {"loss": loss, "accuracy": 0.75, "rate": 0.1}) + "\n")
        self.raw("timing", json.dumps({"step": step, "seconds": seconds, "images_per_second": 16 / seconds}) + "\n")

    def validation(self, step: int, accuracy: float, loss: float = 0.4) -> None:
        """A logged validation."""
        figures = {"n": 50, "accuracy": accuracy, "log_loss": loss}
        self.raw("history", json.dumps({"step": step, "epoch": step // 100 - 1, "validation": figures}) + "\n")

    def checkpoint(self, step: int) -> None:
        """A folder called like a checkpoint."""
        (self.path / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)

    def finish(self) -> None:
        """What is written last."""
        figures = {"n": 100, "accuracy": 0.9, "accuracy_ci95": [0.82, 0.95], "log_loss": 0.3}
        self.write("metrics", {"validation": figures})
        (self.path / "model.safetensors").write_bytes(b"")

    @contextlib.contextmanager
    def trained(self) -> Iterator[None]:
        """While somebody trains it."""
        with locked(self.path / "run.lock"):
            yield


def photos_of(run: Growing, data: Path, count: int = 6, labels: tuple[str, str] = ("cat", "dog")) -> list[Row]:
    """Plain photos of two classes in folders, and the split.csv that names them; the first third validates."""
    rows = []
    for label in labels:
        (data / label).mkdir(parents=True)
        for i in range(count):
            path = data / label / f"{i}.png"
            Image.new("RGB", (60, 50), (40 * i, 90 if label == labels[0] else 200, 120)).save(path)
            where = "val" if i < count // 3 else "train"
            rows.append(Row(f"{label}/{i}.png", label, where, hashlib.sha256(path.read_bytes()).hexdigest()))
    write_split_csv(run.path / "split.csv", rows)
    return rows


def answers_of(run: Growing, rows: list[Row], wrong: int, classes: tuple[str, str] = ("cat", "dog")) -> None:
    """validation.csv: the first `wrong` of the validation photos are answered wrong, the first of them the surest."""
    rows = [row for row in rows if row.split == "val"]
    labels = [classes.index(row.label) for row in rows]
    sure = [0.9 - 0.05 * i for i in range(len(rows))]
    answers = [1 - label if i < wrong else label for i, label in enumerate(labels)]
    p = np.array([[s if a == k else 1 - s for k in (0, 1)] for a, s in zip(answers, sure, strict=True)], np.float32)
    answered = Answered.of(classes, [(row.path, row.sha256) for row in rows], labels, p)
    write_answers(run.path / "validation.csv", answered)


def tree(path: Path) -> dict[str, tuple[int, str]]:
    """Time of change and content of everything in a folder."""
    files = [p for p in sorted(path.rglob("*")) if p.is_file()]
    found = {str(p): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files}
    return found | {str(p): (p.stat().st_mtime_ns, "") for p in [path, *path.rglob("*")] if p.is_dir()}
