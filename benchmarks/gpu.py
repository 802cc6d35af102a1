"""Everything that waits for a machine with a GPU, in calls of at most ten minutes; most telling first.

    python benchmarks/gpu.py 'shards/*.tar' OUT --minutes 9
    python benchmarks/gpu.py 'shards/*.tar' OUT --minutes 9 --done FILE   # on another machine: without those in FILE
    python benchmarks/gpu.py photos OUT --minutes 2 --tiny     # the same lines on a CPU, to try the script

Writes OUT/results.jsonl, one line per figure as it is measured; the next call goes on from its copy in --work, or from
one given as --done. A line that fails is recorded with its error, and the next one runs; one that would not end in time
is left for the next call. The textbook recipe and the twenty warm trainings take longer than a call: they end in time,
and go on in the next call on the same machine from what lies in --work. Photos whose SHA-256 starts with 0 or 1 are
locked away for testing (`locked.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from locked import lock_away
from table import row_of, spread

import plusx
from plusx.errors import Interrupted
from plusx.models import minimum_size
from plusx.training.checkpoint import found
from plusx.training.environment import choose_device, record
from plusx.training.events import StepDone
from plusx.verbs.bench import bench
from plusx.verbs.train import train as train_as_wished
from plusx.verbs.wish import Wish

LEAST_TURN = 2.0  # minutes of a run that is continued from call to call
ENDING = 0.5  # minutes in which one is saved or tested
TINY = ("sizes=[]", "width=0.25")
TESTED = ("accuracy", "accuracy_ci95", "n", "log_loss")
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
    shutil.rmtree(out, ignore_errors=True)  # of a line that failed
    flags.setdefault("split", "95/5/0")
    least = minimum_size(flags.get("model", "resnet18"))
    small = {"size": least, "batch_size": 32, "time": None, "epochs": 1} if tiny else {}
    wish = Wish(flags=flags | small, sets=(TINY if tiny else ()) + sets, out=out)
    trained = train_as_wished([photos.train], wish, on_event=on_event)
    seconds = time.perf_counter() - started
    figures = plusx.evaluate(trained.model, [photos.test]).figures
    kept = {name: figures[name] for name in TESTED}
    return kept | {"steps": trained.metrics["steps"], "train_seconds": seconds}


def in_turns(photos: Photos, run: Path, tiny: bool, minutes: float, **flags: str) -> dict[str, Any]:
    """A run by the command, interrupted after `minutes` and gone on with in the next call; tested once it is finished.

    How far it has come is told as {"unfinished": checkpoint}.
    """
    small = ["--epochs=1", "--size=32", "--batch-size=32", *(f"--set={each}" for each in TINY)] if tiny else []
    asked = [f"--{name}={value}" for name, value in flags.items()]
    new = [photos.train, "--split=95/5/0", "--set=checkpoint_every=1000000", *asked, *small]
    started = (run / "config.yaml").exists()
    command = [sys.executable, "-m", "plusx", "train", *(["--resume"] if started else new), f"--out={run}", "-q"]
    with subprocess.Popen(command) as training:
        try:
            status = training.wait(60 * minutes)
        except subprocess.TimeoutExpired:
            training.terminate()
            status = training.wait()
    if status == Interrupted.exit_code:
        return {"unfinished": found(run / "checkpoints")[0].name}
    if status:
        raise RuntimeError(f"`plusx train` ended with {status}")
    figures = plusx.evaluate(run / "model.safetensors", [photos.test]).figures
    steps = json.loads((run / "metrics.json").read_bytes())["steps"]
    return {name: figures[name] for name in TESTED} | {"steps": steps}


def exact_twice(photos: Photos, out: Path, tiny: bool) -> dict[str, Any]:
    """Whether two runs of a hundred steps on this device give equal bytes."""
    digests = []
    for number in (1, 2):
        folder = out / f"twice-{number}"
        run(photos, folder, tiny, ("validation=false",), epochs=1, split="10/0/90")
        digests.append(hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest())
    return {"equal": digests[0] == digests[1], "sha256": digests}


def exact_resume(photos: Photos, out: Path, tiny: bool) -> dict[str, Any]:
    """Whether a run that fails in the middle of its hundred steps, and is resumed, ends like one that does not."""
    folder, sets = out / "resumed", ("validation=false", "checkpoint_every=7")
    run(photos, out / "whole", tiny, sets, epochs=1, split="10/0/90")

    def fail(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == event.total // 2:
            raise MemoryError("meant")

    with contextlib.suppress(MemoryError):
        run(photos, folder, tiny, sets, on_event=fail, epochs=1, split="10/0/90")
    train_as_wished([], Wish(out=folder, resume=True))
    models = [out / name / "model.safetensors" for name in ("whole", "resumed")]
    digests = [hashlib.sha256(model.read_bytes()).hexdigest() for model in models]
    return {"equal": digests[0] == digests[1], "sha256": digests}


def warm(photos: Photos, out: Path, tiny: bool, sets: tuple[str, ...], epochs: int, end: float) -> dict[str, Any]:
    """Twenty trainings in one warm process from decoded photos: seconds to the model file, accuracy, their spread.

    Each is kept in `out` as it ends, so that the next call on the same machine goes on; none begins that would not end
    before `end`.
    """
    kept, wanted = out / f"warm-{epochs}.jsonl", 2 if tiny else WARM_RUNS
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    seconds = 0.0
    for seed in range(len(done) - 1, wanted):  # the first of a process decodes, loads kernels, and does not count
        started = time.monotonic()
        if started + 1.5 * seconds > end:
            return {"unfinished": f"{len(done)} of {wanted}"}
        figures = run(photos, out / "warm", tiny, ("validation=false", *sets), epochs=epochs, seed=max(seed, 0))
        if seed >= len(done):
            done.append({"accuracy": figures["accuracy"], "seconds": figures["train_seconds"]})
            with kept.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
        seconds = time.monotonic() - started
    columns = {name: [line[name] for line in done] for name in ("accuracy", "seconds")}
    spreads = {f"{name}_sd": stdev(values) for name, values in columns.items()}
    means = {name: mean(values) for name, values in columns.items()}
    return {"n": len(done), **means, **spreads, "each": columns}


def lines(photos: Photos, out: Path, tiny: bool, end: float) -> dict[str, tuple[float, Callable[[], dict[str, Any]]]]:
    """Every open line by name, most telling first: the minutes it may take, and the work. The call is over at `end`."""
    big = ("batch_size=256", "learning_rate=0.4")

    def line(name: str, *sets: str, **flags: Any) -> Callable[[], dict[str, Any]]:
        return lambda: run(photos, out / name.replace(" ", "-"), tiny, sets, **flags)

    def textbook(seed: int) -> dict[str, Any]:
        left = (end - time.monotonic()) / 60 - ENDING
        return in_turns(photos, out / f"textbook-{seed}", tiny, left, recipe="textbook", seed=str(seed))

    found: dict[str, tuple[float, Callable[[], dict[str, Any]]]] = {"fast 2m": (2.5, line("fast 2m", time=120))}
    for epochs in (6, 8, 12):
        sets = (*big, "scale=medium")
        found[f"warm, {epochs} epochs"] = (1.0, lambda e=epochs, s=sets: warm(photos, out, tiny, s, e, end))  # type: ignore[misc]
    found |= {
        "two runs equal": (1.0, lambda: exact_twice(photos, out, tiny)),
        "killed and resumed": (1.0, lambda: exact_resume(photos, out, tiny)),
        "bench": (0.5, lambda: bench({"batch_size": 32 if tiny else 256}, rounds=5).to_json()),
    }
    for seed in range(3):
        found[f"best 10m, seed {seed}"] = (8.5, line(f"best {seed}", recipe="best", time=480, seed=seed))
        found[f"textbook, seed {seed}"] = (LEAST_TURN, lambda s=seed: textbook(s))  # type: ignore[misc]
    small = ("size=64",) if tiny else ()
    found |= {
        "fast 2m fp32": (2.5, line("fast 2m fp32", "precision=fp32", time=120)),
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
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "plusx-gpu", help="photos and runs")
    options = parser.parse_args()
    end, device = time.monotonic() + 60 * options.minutes, choose_device("auto")
    options.out.mkdir(parents=True, exist_ok=True)
    photos = Photos.of(lock_away([options.data], options.work))
    done = options.done or options.work / "results.jsonl"
    before = done.read_text().splitlines() if done.exists() else []
    known = {row["line"] for row in map(json.loads, before) if not {"error", "unfinished"} & row.keys()}
    machine, rows = record(device, fast_math=False) | {"cuda": torch.version.cuda}, list[dict[str, Any]]()
    for name, (minutes, measure) in lines(photos, options.work, options.tiny, end).items():
        if name not in known and (options.tiny or time.monotonic() + 60 * minutes < end):
            rows.append({"line": name, **attempt(measure), "machine": machine})
            for folder in (options.out, options.work):
                (folder / "results.jsonl").write_text("\n".join([*before, *map(json.dumps, rows)]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
    print("\n".join(table([*map(json.loads, before), *rows])))


def table(found: list[dict[str, Any]]) -> list[str]:
    """A Markdown table: one row per figure, seeds together; what failed or is not finished is left out."""
    good = [row for row in found if not {"error", "unfinished"} & row.keys()]
    names = dict.fromkeys(row["line"].partition(", seed")[0] for row in good)
    rows = [row_of("what", "runs", "accuracy", "seconds to the model file", "else"), row_of(*["---"] * 5)]
    return rows + [_row(name, [row for row in good if row["line"].partition(", seed")[0] == name]) for name in names]


def _row(name: str, runs: list[dict[str, Any]]) -> str:
    each: dict[str, list[float]] = {"accuracy": [], "seconds": []}
    for run in runs:
        several = run.get("each") or {"accuracy": [run.get("accuracy")], "seconds": [run.get("train_seconds")]}
        for column, values in each.items():
            values += [value for value in several[column] if value is not None]
    accuracy = f"{spread([100 * value for value in each['accuracy']], '.2f')} %" if each["accuracy"] else ""
    seconds = spread(each["seconds"], ".1f") if each["seconds"] else ""
    equal = {True: "equal bytes", False: "other bytes"}.get(runs[0].get("equal"), "")
    rate = f"{runs[0]['images_per_second']:.0f} images/s" if "images_per_second" in runs[0] else ""
    return row_of(name, max(len(each["accuracy"]), len(runs)), accuracy, seconds, equal or rate)


def attempt(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The figures, or the error that came in their place."""
    try:
        return measure()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
