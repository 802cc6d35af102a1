"""Everything that waits for a machine with a GPU, in calls of at most ten minutes; most telling first.

    python benchmarks/gpu.py 'shards/*.tar' OUT --minutes 9
    python benchmarks/gpu.py 'shards/*.tar' OUT --minutes 9 --done FILE   # the next call: without the lines in FILE
    python benchmarks/gpu.py photos OUT --minutes 2 --tiny     # the same lines on a CPU, to try the script

Writes OUT/results.jsonl, one line per figure as it is measured, and prints them as a table at the end; a copy of it
given as --done tells the next call what is left. A line that fails is recorded with its error, and the next one runs;
one that would not end in time is left for the next call. Photos whose SHA-256 starts with 0 or 1 are locked away
for testing (`locked.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from locked import lock_away

import plusx
from plusx.models import minimum_size
from plusx.training.checkpoint import found
from plusx.training.environment import choose_device, record
from plusx.training.events import StepDone
from plusx.verbs.bench import bench
from plusx.verbs.train import train as train_as_wished
from plusx.verbs.wish import Wish

TINY = ("sizes=[]", "width=0.25")
BOTH = ("twice-1", "resumed")
WARM_RUNS = 20


@dataclass(frozen=True)
class Photos:
    """What is trained on, and what was locked away."""

    train: str
    test: str

    @classmethod
    def of(cls, folder: Path) -> Photos:
        """Those that `lock_away` made."""
        return cls(str(folder / "train.tar"), str(folder / "test.tar"))


def run(
    photos: Photos, out: Path, tiny: bool, sets: tuple[str, ...] = (), on_event: Any = None, **flags: Any
) -> dict[str, Any]:
    """Train and test; returns accuracy, its interval, n, steps and seconds."""
    started = time.perf_counter()
    flags.setdefault("split", "95/5/0")
    least = minimum_size(flags.get("model", "resnet18"))
    small = {"size": least, "batch_size": 32, "time": None, "epochs": 1} if tiny else {}
    wish = Wish(flags=flags | small, sets=(TINY if tiny else ()) + sets, out=out)
    trained = train_as_wished([photos.train], wish, on_event=on_event)
    seconds = time.perf_counter() - started
    figures = plusx.evaluate(trained.model, [photos.test]).figures
    kept = {name: figures[name] for name in ("accuracy", "accuracy_ci95", "n", "log_loss")}
    return kept | {"steps": trained.metrics["steps"], "train_seconds": seconds}


def exact_twice(photos: Photos, out: Path, tiny: bool) -> dict[str, Any]:
    """Whether two runs of a hundred steps on this device give equal bytes."""
    digests = []
    for number in (1, 2):
        folder = out / f"twice-{number}"
        run(photos, folder, tiny, ("validation=false",), epochs=1, split="10/0/90")
        digests.append(hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest())
    return {"equal": digests[0] == digests[1], "sha256": digests}


def exact_resume(photos: Photos, out: Path, tiny: bool) -> dict[str, Any]:
    """Whether a run that fails in the middle of its hundred steps, and is resumed, ends like `two runs equal`."""
    folder = out / "resumed"

    def fail(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == event.total // 2:
            raise MemoryError("meant")

    with contextlib.suppress(MemoryError):
        run(photos, folder, tiny, ("validation=false", "checkpoint_every=7"), on_event=fail, epochs=1, split="10/0/90")
    train_as_wished([], Wish(out=folder, resume=True))
    digests = [hashlib.sha256((out / n / "checkpoints" / last(out / n)).read_bytes()).hexdigest() for n in BOTH]
    return {"equal": digests[0] == digests[1], "sha256": digests}


def last(folder: Path) -> str:
    """The newest checkpoint's file of tensors, below checkpoints/."""
    return f"{found(folder / 'checkpoints')[0].name}/state.safetensors"


def warm(photos: Photos, out: Path, tiny: bool, sets: tuple[str, ...], epochs: int) -> dict[str, Any]:
    """Twenty trainings in one warm process from decoded photos: seconds to the model file, accuracy, their spread."""
    accuracies, seconds = [], []
    for seed in range(-1, 2 if tiny else WARM_RUNS):  # the first decodes, loads kernels, and does not count
        folder = out / f"warm-{seed + 1}"
        figures = run(photos, folder, tiny, ("validation=false", *sets), epochs=epochs, seed=seed + 1)
        if seed >= 0:
            accuracies.append(figures["accuracy"])
            seconds.append(figures["train_seconds"])
        shutil.rmtree(folder)
    spreads = {"accuracy_sd": stdev(accuracies), "seconds_sd": stdev(seconds)}
    return {"n": len(accuracies), "accuracy": mean(accuracies), "seconds": mean(seconds), **spreads, "each": accuracies}


def lines(photos: Photos, out: Path, tiny: bool) -> dict[str, tuple[float, Callable[[], dict[str, Any]]]]:
    """Every open line by name, most telling first: the minutes it may take, and the work."""
    big = ("batch_size=256", "learning_rate=0.4")

    def line(name: str, *sets: str, **flags: Any) -> Callable[[], dict[str, Any]]:
        return lambda: run(photos, out / name.replace(" ", "-"), tiny, sets, **flags)

    found: dict[str, tuple[float, Callable[[], dict[str, Any]]]] = {
        "fast 2m": (2.5, line("fast 2m", time=120)),
        "fast 2m fp32": (2.5, line("fast 2m fp32", "precision=fp32", time=120)),
    }
    for epochs in (6, 8, 12):
        sets = (*big, "scale=medium")
        found[f"warm, {epochs} epochs"] = (4.0, lambda e=epochs, s=sets: warm(photos, out, tiny, s, e))  # type: ignore[misc]
    found |= {
        "two runs equal": (1.0, lambda: exact_twice(photos, out, tiny)),
        "killed and resumed": (1.0, lambda: exact_resume(photos, out, tiny)),
        "bench": (0.5, lambda: bench({"batch_size": 32 if tiny else 256}, rounds=5).to_json()),
    }
    for seed in range(3):
        found[f"textbook, seed {seed}"] = (8.5, line(f"textbook {seed}", recipe="textbook", seed=seed))
        found[f"best 10m, seed {seed}"] = (8.5, line(f"best {seed}", recipe="best", time=480, seed=seed))
    small = ("size=64",) if tiny else ()
    found |= {
        "fp16 with scaler, 1m": (1.5, line("fp16", "precision=fp16", time=60)),
        "alexnet 1m": (1.5, line("alexnet", *small, model="alexnet", time=60)),
    }
    return found


def main() -> None:
    """Run the lines until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--done", type=Path, help="results.jsonl of the calls before")
    options = parser.parse_args()
    started, device = time.monotonic(), choose_device("auto")
    photos = Photos.of(lock_away([options.data], options.out))
    before = options.done.read_text().splitlines() if options.done else []
    done = {row["line"] for row in map(json.loads, before) if "error" not in row}
    rows = [{"line": "machine", **record(device, fast_math=False), "cuda": torch.version.cuda}]
    for name, (minutes, measure) in lines(photos, options.out, options.tiny).items():
        if name not in done and (options.tiny or time.monotonic() - started < 60 * (options.minutes - minutes)):
            rows.append({"line": name, **attempt(measure)})
            (options.out / "results.jsonl").write_text("\n".join([*before, *map(json.dumps, rows)]) + "\n")
            print(json.dumps(rows[-1]), flush=True)


def attempt(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The figures, or the error that came in their place."""
    try:
        return measure()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
