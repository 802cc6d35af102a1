"""`demo`: drawn pictures, a training, a test and a few predictions, all offline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from plusx.data.drawn import write_set
from plusx.verbs.evaluate import Evaluation, evaluate
from plusx.verbs.labelled import Progress
from plusx.verbs.predict import Row, predict
from plusx.verbs.reports import TrainEvent
from plusx.verbs.train import train
from plusx.verbs.wish import Wish

SIZE = 48  # pixels throughout: the drawings hold no finer detail, and a busy machine still gets enough steps
SHOWN = 3  # pictures of each class that are predicted for everybody to see


@dataclass(frozen=True)
class Demo:
    """What the demo did: its model file, some answers, and the test on pictures it never saw."""

    model: Path
    rows: tuple[Row, ...]
    evaluation: Evaluation


def demo_set(out: Path, seed: int, *, on_progress: Progress | None = None) -> Path:
    """The folder of drawn pictures for `seed` below `out`, drawn unless it is there."""
    folder = out / f"pictures-{seed}"
    write_set(folder, seed=seed, on_progress=on_progress)
    return folder


def demo_run(
    data: Path, out: Path, time: str, seed: int, *, on_event: Callable[[TrainEvent], None] | None = None
) -> Demo:
    """Train on the drawn pictures, test, and predict a few of the test pictures."""
    number = 1
    while (run := out / f"run-{number}").exists():
        number += 1
    wish = Wish(flags={"time": time, "seed": seed, "size": SIZE}, sets=("sizes=[]",), out=run)
    trained = train([str(data)], wish, on_event=on_event)
    folders = sorted((data / "test").iterdir())
    pictures = [picture for folder in folders for picture in sorted(folder.iterdir())[:SHOWN]]
    return Demo(trained.model, tuple(predict(trained.model, pictures)), evaluate(trained.run))
