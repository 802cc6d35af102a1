"""How accurate a network is after so many minutes from nothing, decoding included, on photos it never saw.

    python benchmarks/time_to_accuracy.py 'dogs-vs-cats/*.tar' WORK --times 3m 5m 10m --seeds 0 1 2

Photos whose SHA-256 starts with 0 or 1 are locked away first and nothing is chosen on them. Each run is
`plusx train TRAIN --time T --seed S` in a process of its own with an empty cache, its seconds those of the whole
command; then `plusx evaluate` on the locked photos. WORK/results.jsonl gets one line per run, so that a campaign
that was stopped goes on where it was; the table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from locked import lock_away
from table import row_of, spread

from plusx.recipes.resolve import seconds as seconds_of

PLUSX = (sys.executable, "-m", "plusx")


def train_and_test(photos: Path, run: Path, duration: str, seed: int, more: list[str]) -> dict[str, Any]:
    """One cold run; its wall clock in seconds, and the figures of `plusx evaluate` on the locked photos."""
    cache = run.with_name("cache")
    for leftover in (cache, run):
        shutil.rmtree(leftover, ignore_errors=True)
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    command = [*PLUSX, "train", str(photos / "train.tar"), "--time", duration, "--seed", str(seed)]
    started = time.monotonic()
    subprocess.run([*command, "--split", "95/5/0", "--out", str(run), "-q", *more], check=True, env=environment)
    seconds = time.monotonic() - started
    tested = [*PLUSX, "evaluate", str(run / "model.safetensors"), str(photos / "test.tar"), "--json", "-q"]
    figures = json.loads(subprocess.run(tested, check=True, env=environment, stdout=subprocess.PIPE).stdout)
    metrics = json.loads((run / "metrics.json").read_bytes())
    return {
        "time": duration,
        "seed": seed,
        "seconds": seconds,
        "steps": metrics["steps"],
        "settings": more,
        "machine": json.loads((run / "environment.json").read_bytes()),
        **{name: figures[name] for name in ("accuracy", "n", "log_loss")},
    }


def table(lines: list[dict[str, Any]]) -> list[str]:
    """A Markdown table: one row per duration, mean and spread over seeds."""
    rows = [
        row_of(
            "`--time`", "runs", "accuracy, mean", "each", "log loss", "seconds of the whole command", "photos tested"
        )
    ]
    rows.append(row_of(*["---"] * 7))
    for duration in sorted({line["time"] for line in lines}, key=seconds_of):
        runs = [line for line in lines if line["time"] == duration]
        accuracies = [100 * line["accuracy"] for line in runs]
        each = ", ".join(f"{a:.2f}" for a in accuracies)
        loss, seconds = ([line[name] for line in runs] for name in ("log_loss", "seconds"))
        worst = f"{spread(seconds, '.0f')}, at most {max(seconds):.0f}"
        rows.append(
            row_of(
                duration, len(runs), f"{spread(accuracies, '.2f')} %", each, spread(loss, ".3f"), worst, runs[0]["n"]
            )
        )
    return rows


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("work", type=Path)
    parser.add_argument("--times", nargs="+", default=["3m", "5m", "10m"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], help="more flags for `plusx train`, such as --model=resnet18")
    wanted = parser.parse_args()
    photos, results = lock_away(wanted.data, wanted.work), wanted.work / "results.jsonl"
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for seed in wanted.seeds:
        for duration in wanted.times:
            if any((line["time"], line["seed"], line["settings"]) == (duration, seed, wanted.set) for line in done):
                continue
            done.append(train_and_test(photos, wanted.work / f"run-{duration}-{seed}", duration, seed, wanted.set))
            with results.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
            print(json.dumps(done[-1]), flush=True)
    print("\n".join(table([line for line in done if line["settings"] == wanted.set])))


if __name__ == "__main__":
    main()
