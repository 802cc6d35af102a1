"""plusx itself: `plusx train DATA --time M`, then `predict` on the test photos."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from trial import Journal, Trial

import plusx
from plusx.training.events import Event, StepDone, Validated
from plusx.verbs.train import train
from plusx.verbs.wish import Wish

PEER = {
    "name": "plusx",
    "packages": [],
    "needs": [],
    "settings": {
        "default": "`plusx train DATA --time`: sizes, network and schedule chosen by it; decoding, validating and the "
        "model file are inside its minutes",
    },
    "testing_minutes": {"default": 1},
}


def listed(trial: Trial) -> Path:
    """A CSV of the photos for training and validation: plusx splits them itself, in the same proportion."""
    path = trial.out / "photos.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        for folder in (trial.train, trial.val):
            writer.writerows((photo.resolve(), photo.parent.name) for photo in sorted(folder.glob("*/*")))
    return path


def answers(model: Path, trial: Trial, classes: list[str]) -> Iterator[tuple[str, list[float]]]:
    """Rows of `plusx predict`; a photo without an answer has no row."""
    for row in plusx.predict(model, [trial.test]):
        if row.probabilities is not None:
            yield row.path, [row.probabilities[name] for name in classes]


def main() -> None:
    """Train and test."""
    trial = Trial.asked()
    journal = Journal(trial)

    def note(event: Event) -> None:
        if isinstance(event, StepDone):
            journal.images += event.photos
        elif isinstance(event, Validated):
            journal.validated(event.metrics["accuracy"])

    flags = {"time": 60 * trial.minutes, "seed": trial.seed, "split": "95/5/0"}
    wish = Wish(flags=flags | ({"size": trial.size} if trial.size else {}), out=trial.out / "run")
    trained = train([str(listed(trial))], wish, on_event=note, started=trial.started)
    plan = json.loads((trained.run / "plan.json").read_bytes())
    journal.trained(size=max(size for _, size in plan["sizes"]) if plan["sizes"] else trial.size)
    classes = sorted(folder.name for folder in trial.train.iterdir())
    journal.predicted(classes, answers(trained.model, trial, classes))


if __name__ == "__main__":
    main()
