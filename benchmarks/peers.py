"""plusx beside what a user would pick instead: same photos, same cores, same minutes, nothing pretrained.

    python benchmarks/peers.py 'dogs-vs-cats/*.tar' WORK ENVS --minutes 10 --seeds 0

The hours that all of it takes are printed first. Every rival is a file in `rivals/`, installed from the package index
into an environment of its own in ENVS that borrows this interpreter's PyTorch and torchvision (`environments.py`). It
runs in a process of its own for the minutes given, with its documented defaults and with its best sensible settings.
The minutes begin with the process: imports and decoding count, validation and testing do not. plusx alone pays for
its validation, which happens inside its `--time`. Photos whose SHA-256 starts with 0 or 1 are locked away for testing
(`locked.py`); the accuracy is counted here, from the probabilities that a rival wrote for each of them. One line per
run goes to benchmarks/results/peers.jsonl (with --limit, to WORK/results.jsonl), so that a campaign that was stopped
goes on where it was; the table is printed at the end.
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import python_for
from locked import lock_away
from photo_folders import Folders, unpack
from table import row_of, spread

RIVALS = Path(__file__).parent / "rivals"
RESULTS = Path(__file__).parent / "results" / "peers.jsonl"
MARKS = (0.80, 0.90, 0.9323)  # the last is what the textbook script's author reports
KEY = ("peer", "setting", "size", "minutes", "seed", "limit")
Line = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """What a rival's file says of itself."""

    script: Path
    name: str
    packages: tuple[str, ...]
    needs: tuple[str, ...]
    settings: Mapping[str, str]
    testing_minutes: Mapping[str, float]
    environment: Mapping[str, str]
    tested: Mapping[str, int]  # photos to test a setting with that takes long over each; all where it has none


@dataclass(frozen=True)
class Run:
    """One training and its test."""

    peer: Peer
    setting: str
    size: int | None
    minutes: float
    seed: int
    limit: int | None

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from the others: a line with the same key is this run, done."""
        return (self.peer.name, self.setting, self.size, self.minutes, self.seed, self.limit)

    @property
    def all_minutes(self) -> float:
        """Its minutes with those of testing."""
        share = 1.0 if self.limit is None else 0.2
        return self.minutes + share * self.peer.testing_minutes[self.setting]


def read_peer(script: Path) -> Peer | None:
    """The `PEER` of a file, which is not run; None where it has none."""
    for statement in ast.parse(script.read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "PEER":
            said = ast.literal_eval(statement.value)
            lists = {name: tuple(said[name]) for name in ("packages", "needs")}
            return Peer(script, **{"environment": {}, "tested": {}, **said, **lists})
    return None


def all_peers() -> list[Peer]:
    """Every rival, plusx first."""
    found = [peer for script in sorted(RIVALS.glob("*.py")) if (peer := read_peer(script))]
    return sorted(found, key=lambda peer: peer.name != "plusx")


def plan(peers: Iterable[Peer], wanted: argparse.Namespace) -> list[Run]:
    """All runs that were asked for, the seeds one after the other."""
    return [
        Run(peer, setting, wanted.size, wanted.minutes, seed, wanted.limit)
        for seed in wanted.seeds
        for peer in peers
        for setting in peer.settings
        if setting in wanted.settings
    ]


def missing(runs: Iterable[Run], lines: Iterable[Line]) -> list[Run]:
    """Those without a line. A run that failed has left none."""
    done = {tuple(line[name] for name in KEY) for line in lines}
    return [run for run in runs if run.key not in done]


def hours(runs: Iterable[Run]) -> float:
    """Of training and testing."""
    return sum(run.all_minutes for run in runs) / 60


def score(predictions: Path, labels: Mapping[str, str]) -> dict[str, Any]:
    """Accuracy over all test photos; one without a prediction is wrong. `labels`: class by path."""
    with predictions.open(newline="") as file:
        header, *rows = csv.reader(file)
    answers = {path: header[1 + _largest([float(cell) for cell in cells])] for path, *cells in rows}
    right = sum(answers.get(path) == label for path, label in labels.items())
    return {"accuracy": right / len(labels), "n": len(labels), "unanswered": len(labels.keys() - answers.keys())}


def _largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def reached(history: Iterable[Line]) -> dict[str, float | None]:
    """Seconds of training at the first validation at or above each mark."""
    lines = list(history)
    first = {mark: next((line["seconds"] for line in lines if line["accuracy"] >= mark), None) for mark in MARKS}
    return {f"{mark:.2%}": seconds for mark, seconds in first.items()}


def run_one(run: Run, folders: Folders, work: Path, envs: Path) -> Line:
    """Train and test in a process of its own. Raises CalledProcessError or TimeoutExpired where that fails."""
    out = work / "runs" / "-".join(map(str, (run.peer.script.stem, *run.key[1:])))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    folders = folders.testing(run.peer.tested.get(run.setting))
    python = python_for(run.peer.script.stem, run.peer.packages, run.peer.needs, envs)
    quiet = {"CUDA_VISIBLE_DEVICES": "", "XDG_CACHE_HOME": str(out / "cache"), "XDG_CONFIG_HOME": str(out / "config")}
    with (out / "log.txt").open("w") as log:
        subprocess.run(
            [python, run.peer.script, *arguments(run, folders, out)],
            check=True,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **quiet, **run.peer.environment},
            timeout=60 * (3 * run.minutes + 5 * run.peer.testing_minutes[run.setting] + 5),
        )
    return line_of(run, out, folders)


def arguments(run: Run, folders: Folders, out: Path) -> list[str]:
    """The command line that all rivals share. The minutes begin now."""
    given = {"train": folders.train, "val": folders.val, "test": folders.test, "out": out, "minutes": run.minutes}
    given |= {"setting": run.setting, "seed": run.seed, "started": time.monotonic()}
    if run.size is not None:
        given["size"] = run.size
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


def line_of(run: Run, out: Path, folders: Folders) -> Line:
    """What is kept of a run."""
    figures = json.loads((out / "run.json").read_bytes())
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return {
        **dict(zip(KEY, run.key, strict=True)),
        **score(out / "predictions.csv", folders.test_labels()),
        "photos": folders.count("train"),
        "images": figures["images"],
        "seconds": figures["seconds"],
        "reached": reached(history),
        "history": history,
        "pixels": figures["size"],
        "versions": figures["versions"],
        "described": run.peer.settings[run.setting],
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """This machine, as plusx records it."""
    from plusx.training import environment

    return environment.record(environment.choose_device("cpu"), fast_math=False)


def table(lines: list[Line]) -> list[str]:
    """A Markdown table, one row per peer and setting, the most accurate first; then what the settings are."""
    marks = [f"s to {mark:.2%}" for mark in MARKS]
    columns = ("minutes", "what", "setting", "px", "runs", "accuracy", "photos tested", "images/s", "epochs", *marks)
    rows = [row_of(*columns), row_of(*["---"] * len(columns))]
    groups = [[line for line in lines if _group(line) == group] for group in dict.fromkeys(map(_group, lines))]
    groups.sort(key=lambda runs: (runs[0]["minutes"], -sum(run["accuracy"] for run in runs) / len(runs)))
    rows += [_row(runs) for runs in groups]
    said = dict.fromkeys((line["peer"], line["setting"], line["described"], _versions(line)) for line in lines)
    return [*rows, "", *(f"- {peer}, {setting}: {text} ({versions})" for peer, setting, text, versions in said)]


def _group(line: Line) -> tuple[Any, ...]:
    return tuple(line[name] for name in KEY if name != "seed")


def _row(runs: list[Line]) -> str:
    first = runs[0]
    accuracy = f"{spread([100 * run['accuracy'] for run in runs], '.2f')} %"
    rates = [run["images"] / run["seconds"] for run in runs]
    rate = spread(rates, ".0f" if min(rates) >= 10 else ".1f")
    epochs = spread([run["images"] / run["photos"] for run in runs], ".1f")
    times = [_time([run["reached"][mark] for run in runs]) for mark in first["reached"]]
    cells = (f"{first['minutes']:g}", first["peer"], first["setting"], first["pixels"], len(runs))
    return row_of(*cells, accuracy, f"{first['n']:,}", rate, epochs, *times)


def _time(seconds: Sequence[float | None]) -> str:
    """The mean over the runs that got there, and how many did where not all."""
    there = [value for value in seconds if value is not None]
    if not there:
        return "-"
    some = "" if len(there) == len(seconds) else f" ({len(there)} of {len(seconds)})"
    return f"{spread(there, '.0f')}{some}"


def _versions(line: Line) -> str:
    return ", ".join(f"{name} {number}" for name, number in line["versions"].items())


def read_lines(path: Path) -> list[Line]:
    """The lines of a file, none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def campaign(runs: Sequence[Run], folders: Folders, wanted: argparse.Namespace, results: Path) -> int:
    """Run all, each kept as it ends; how many failed."""
    failed = 0
    for run in runs:
        name = f"{run.peer.name}, {run.setting}, seed {run.seed}"
        try:
            line = run_one(run, folders, wanted.work, wanted.envs)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            failed += 1
            print(f"{name} failed and will be tried again by the next call: {error}", file=sys.stderr, flush=True)
            continue
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{name}: {100 * line['accuracy']:.2f} %, {line['images'] / line['seconds']:.1f} images/s", flush=True)
    return failed


def asked(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="labelled photos, as plusx reads them")
    parser.add_argument("work", type=Path, help="for unpacked photos and runs")
    parser.add_argument("envs", type=Path, help="for the rivals' environments")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--peers", nargs="+", help="names of files in rivals/, without .py; all of them by default")
    parser.add_argument("--settings", nargs="+", default=["default", "best"])
    parser.add_argument("--size", type=int, help="pixels for all, instead of each setting's own")
    parser.add_argument("--limit", type=int, help="so many photos only, to try it")
    return parser.parse_args(arguments)


def main() -> int:
    """Say the hours, run what is missing, print the table."""
    wanted = asked()
    wanted.work, wanted.envs = wanted.work.resolve(), wanted.envs.resolve()
    results = wanted.work / "results.jsonl" if wanted.limit else RESULTS
    peers = [peer for peer in all_peers() if wanted.peers is None or peer.script.stem in wanted.peers]
    runs = plan(peers, wanted)
    left = missing(runs, read_lines(results))
    print(f"{hours(left):.1f} hours: {len(left)} of {len(runs)} runs are left, testing included", flush=True)
    for peer in peers:
        python_for(peer.script.stem, peer.packages, peer.needs, wanted.envs)
    folders = unpack(lock_away(wanted.data, wanted.work), wanted.work, wanted.limit)
    results.parent.mkdir(parents=True, exist_ok=True)
    failed = campaign(left, folders, wanted, results)
    keys = {run.key for run in runs}
    print("\n".join(table([line for line in read_lines(results) if tuple(line[name] for name in KEY) in keys])))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
