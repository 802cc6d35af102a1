"""Everything that waits for a machine with a GPU, in one call of at most ten minutes; most telling first.

    python benchmarks/gpu.py 'shards/*.tar' OUT --minutes 9
    python benchmarks/gpu.py photos OUT --minutes 2 --tiny     # the same lines on a CPU, to try the script

Writes OUT/results.jsonl, one line per figure as it is measured, and prints them as a table at the end.
A line that fails is recorded with its error, and the next one runs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import plusx
from plusx.models import minimum_size
from plusx.training.checkpoint import found
from plusx.training.environment import choose_device, record
from plusx.training.events import StepDone
from plusx.verbs.train import train as train_as_wished
from plusx.verbs.wish import Wish

TINY = ("sizes=[]", "width=0.25")
BOTH = ("twice-1", "resumed")


def run(
    data: str, out: Path, tiny: bool, sets: tuple[str, ...] = (), on_event: Any = None, **flags: Any
) -> dict[str, Any]:
    """Train and test; returns accuracy, its interval, n, steps and seconds."""
    started = time.perf_counter()
    least = minimum_size(flags.get("model", "resnet18"))
    small = {"size": least, "batch_size": 32, "time": None, "epochs": 1} if tiny else {}
    wish = Wish(flags=flags | small, sets=(TINY if tiny else ()) + sets, out=out)
    trained = train_as_wished([data], wish, on_event=on_event)
    figures = plusx.evaluate(trained.run).figures
    kept = {name: figures[name] for name in ("accuracy", "accuracy_ci95", "n", "log_loss")}
    return kept | {"steps": trained.metrics["steps"], "seconds": time.perf_counter() - started}


def exact_twice(data: str, out: Path, tiny: bool) -> dict[str, Any]:
    """Whether two runs of a hundred steps on this device give equal bytes."""
    digests = []
    for number in (1, 2):
        folder = out / f"twice-{number}"
        run(data, folder, tiny, ("validation=false",), epochs=1, split="10/0/90")
        digests.append(hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest())
    return {"equal": digests[0] == digests[1], "sha256": digests}


def exact_resume(data: str, out: Path, tiny: bool) -> dict[str, Any]:
    """Whether a run that fails in the middle of its hundred steps, and is resumed, ends like `two runs equal`."""
    folder = out / "resumed"

    def fail(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == event.total // 2:
            raise MemoryError("meant")

    with contextlib.suppress(MemoryError):
        run(data, folder, tiny, ("validation=false", "checkpoint_every=7"), on_event=fail, epochs=1, split="10/0/90")
    train_as_wished([], Wish(out=folder, resume=True))
    digests = [hashlib.sha256((out / n / "checkpoints" / last(out / n)).read_bytes()).hexdigest() for n in BOTH]
    return {"equal": digests[0] == digests[1], "sha256": digests}


def last(folder: Path) -> str:
    """The newest checkpoint's file of tensors, below checkpoints/."""
    return f"{found(folder / 'checkpoints')[0].name}/state.safetensors"


def textbook(data: str, out: Path, tiny: bool, seconds: float) -> dict[str, Any]:
    """The textbook recipe for as many steps as `seconds` hold; the rate tells how long all ten epochs take."""
    return run(data, out, tiny, recipe="textbook", time=seconds)


def lines(data: str, out: Path, tiny: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every open line by name, most telling first."""
    return {
        "fast 2m": lambda: run(data, out / "fast", tiny, time=120),
        "fast 2m bf16": lambda: run(data, out / "bf16", tiny, ("precision=bf16",), time=120),
        "two runs equal": lambda: exact_twice(data, out, tiny),
        "killed and resumed": lambda: exact_resume(data, out, tiny),
        "fp16 with scaler, 1m": lambda: run(data, out / "fp16", tiny, ("precision=fp16",), time=60),
        "alexnet 1m": lambda: run(data, out / "alexnet", tiny, ("size=64",) if tiny else (), model="alexnet", time=60),
        "textbook 2m": lambda: textbook(data, out / "textbook", tiny, 120.0),
    }


def main() -> None:
    """Run the lines until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    started, device = time.monotonic(), choose_device("auto")
    rows = [{"line": "machine", **record(device, fast_math=False), "cuda": torch.version.cuda}]
    for name, measure in lines(options.data, options.out, options.tiny).items():
        if time.monotonic() - started > 60 * options.minutes - 150 and not options.tiny:
            rows.append({"line": name, "skipped": "no time left"})
            continue
        try:
            rows.append({"line": name, **measure()})
        except Exception as error:
            rows.append({"line": name, "error": f"{type(error).__name__}: {error}"})
        (options.out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
