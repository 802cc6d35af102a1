"""SIGTERM and Ctrl-C at random moments: rows T16, T17 and T18, and Ctrl-C while `plusx` itself is loading.

    python campaigns/signals.py --trials 200 --workers 4 --startup 40 --out FILE
    python campaigns/signals.py --kind save --trials 20

A small training gets SIGTERM or Ctrl-C between its steps, in the middle of one of 20 seconds (asleep, or in one long
call of PyTorch), during a validation that takes as long, and during saves on a slow disk. It must end with exit code 75
within 5 seconds at the 99th percentile, with a checkpoint of the last finished step, and end equal in every bit once it
is resumed. A second Ctrl-C must end it within a second, with exit code 130, the last checkpoint whole. `plusx models`
that is interrupted anywhere must end with one sentence and no trace. Broken promises end with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import trials  # first: it sets the number of threads, which PyTorch reads when it is imported
from trials import Notes, toy

# isort: split
import torch

from plusx.errors.training import interrupted_run
from plusx.training import checkpoint
from plusx.training.interrupt import leaving

KINDS = {"steps": 0.6, "save": 1.5, "sleep": 0.5, "multiply": 0.5, "validate": 0.5, "twice": 0.5}  # most seconds before
HOW = toy.settings(12, checkpoint_every=3)
LONG = 20.0  # seconds of a long step
NAP = 0.05  # seconds between short ones
SLOW = 0.03  # seconds that a slow disk takes to sync
AT = 5  # the long step; of a long validation the epoch's last
MOST, AT_ONCE = 5.0, 1.0  # seconds from a signal to the end, and from a second Ctrl-C


class Long(toy.Photos):  # type: ignore[misc]
    """Photos among which a step, a validation or every save takes long, as `kind` says."""

    def __init__(self, kind: str, notes: Notes) -> None:
        super().__init__()
        self.kind, self.notes, self.at = kind, notes, -1

    def batch(self, step: int) -> Any:
        """The batch of a step, after a short rest."""
        self.at = step
        time.sleep(NAP if self.kind == "steps" else 0.0)
        return super().batch(step)

    def hold(self, module: torch.nn.Module, *_: Any) -> None:
        """In the network's first layer."""
        if self.at != AT or not module.training or self.kind in ("steps", "save", "validate"):
            return
        self.notes["holding"] = 1
        if self.kind == "multiply":
            torch.linalg.multi_dot([torch.ones(2500, 2500)] * 300)  # minutes on one core
        else:
            time.sleep(LONG)

    def validate(self, model: torch.nn.Module) -> Any:
        """The validation, which takes long at the end of the second epoch."""
        if self.kind == "validate" and self.at == 7:
            self.notes["holding"] = 1
            time.sleep(LONG)
        return super().validate(model)


@dataclass
class Totals:
    """What was counted; `seconds_to_stop` by kind, `broken` names trials and what was wrong."""

    trials: int = 0
    ended_first: int = 0
    seconds_to_stop: dict[str, list[float]] = field(default_factory=dict)
    startup: int = 0
    startup_codes: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def trained(folder: Path, kind: str, notes: Notes) -> None:
    """The work of a child that is to be stopped."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    slow = mock.patch.object(os, "fsync", partial(_slowly, os.fsync)) if kind == "save" else nullcontext()
    with slow, leaving(lambda: interrupted_run(folder, "plusx train --resume")):
        trials.train(folder, HOW, notes, Long(kind, notes))


def _slowly(sync: Callable[[int], None], descriptor: int) -> None:
    time.sleep(SLOW)
    sync(descriptor)


def stopped(folder: Path, kind: str, chance: random.Random, notes: Notes) -> tuple[int, float]:
    """One training that is asked to stop; its exit code, and the seconds it took since it was asked."""
    child = trials.forked(lambda: trained(folder, kind, notes), notes)
    awaited = "begun" if kind in ("steps", "save") else "holding"
    while not notes[awaited]:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, KINDS[kind]))
    os.kill(child, signal.SIGINT if kind == "twice" else chance.choice((signal.SIGTERM, signal.SIGINT)))
    if kind == "twice":
        time.sleep(chance.uniform(0.1, 0.5))  # two of the same kind that nobody has taken yet are one to the system
        os.kill(child, signal.SIGINT)
    asked = time.monotonic()
    code = trials.ended(child, 30.0)
    taken = time.monotonic() - asked
    return trials.killed(child) if code is None else code, taken


def one(folder: Path, number: int, options: argparse.Namespace, expected: str) -> Totals:
    """One trial: stopped, looked at, resumed."""
    chance, notes = random.Random(f"{options.seed}/{number}"), Notes()
    kind = options.kind or list(KINDS)[number % len(KINDS)]
    code, taken = stopped(folder, kind, chance, notes)
    totals = Totals(trials=1, ended_first=int(code == 0), seconds_to_stop={} if code == 0 else {kind: [taken]})
    wrong = list(_wrong(folder, kind, code, taken, notes))
    code_again = trials.ended(trials.forked(lambda: trials.train(folder, HOW, notes), notes))
    if code_again:
        wrong.append(f"it cannot be resumed: {notes.text}")
    elif notes.text != expected:
        wrong.append("it ends with other bits than an undisturbed run")
    wrong += trials.broken_promises(notes, 0 if kind != "twice" else HOW.checkpoint_every)
    totals.broken = [f"trial {number} ({kind}): {told}" for told in wrong]
    return totals


def _wrong(folder: Path, kind: str, code: int, taken: float, notes: Notes) -> Iterator[str]:
    allowed = {"twice": (130,), "steps": (75, 0), "save": (75, 0)}.get(kind, (75,))
    if code not in allowed:
        yield f"exit code {code}: {notes.text}"
    if taken > (AT_ONCE if kind == "twice" else 2 * MOST):
        yield f"it took {taken:.1f} s to end"
    path, skipped = checkpoint.newest_valid(folder / "checkpoints")
    if skipped:
        yield f"damaged checkpoints: {skipped}"
    if code == 75 and (checkpoint.step_of(path) if path else 0) != notes["done"]:
        yield f"step {notes['done']} was finished, and the checkpoint is {path and path.name}"


def started(number: int, seed: int, totals: Totals) -> None:
    """`plusx models`, interrupted at a random moment of its first second and a half."""
    chance = random.Random(f"startup/{seed}/{number}")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "plusx", "models"]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        waited = chance.uniform(0.02, 1.5)
        time.sleep(waited)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=30)[1]
    totals.startup += 1
    kind = judged(process.returncode, told)
    name = kind or f"broken with {process.returncode}"
    totals.startup_codes[name] = totals.startup_codes.get(name, 0) + 1
    if kind is None:
        totals.broken.append(f"start {number}, interrupted after {waited:.2f} s, {process.returncode}: {told[-500:]}")


def judged(code: int, told: str) -> str | None:
    """How a start that was interrupted ended; None where it broke the promise.

    Right is the end with nothing to say, or 130 with exactly one sentence. Before a line of plusx has run, Python ends
    by itself: with its own trace, or by the signal; that is counted apart.
    """
    lines = [line for line in told.splitlines() if line.strip()]
    if code == 0 and not lines:
        return "0"
    if code == 130 and len(lines) == 1 and lines[0].startswith("plusx: Stopped"):
        return "130"
    ours = str(Path(__file__).parents[1] / "plusx")
    interrupted = not lines or "KeyboardInterrupt" in lines[-1]
    if code in (1, 130, -signal.SIGINT) and interrupted and ours not in told:
        return f"{code}, by Python itself"
    return None


def work(folder: Path, options: argparse.Namespace, worker: int) -> None:
    """What one of the workers does; its totals lie in the folder afterwards."""
    notes, totals = Notes(), Totals()
    if trials.ended(trials.forked(lambda: trials.train(folder / f"whole-{worker}", HOW, notes), notes)):
        raise RuntimeError(notes.text)
    for number in range(worker, options.trials, options.workers):
        done = one(folder / f"trial-{number}", number, options, notes.text)
        shutil.rmtree(folder / f"trial-{number}")
        _add(totals, done)
    for number in range(worker, options.startup, options.workers):
        started(number, options.seed, totals)
    (folder / f"totals-{worker}.json").write_text(json.dumps(asdict(totals)))


def _add(totals: Totals, other: Totals) -> None:
    totals.trials, totals.ended_first = totals.trials + other.trials, totals.ended_first + other.ended_first
    totals.startup += other.startup
    totals.broken += other.broken
    for kind, seconds in other.seconds_to_stop.items():
        totals.seconds_to_stop.setdefault(kind, []).extend(seconds)
    for code, count in other.startup_codes.items():
        totals.startup_codes[code] = totals.startup_codes.get(code, 0) + count


def campaign(options: argparse.Namespace) -> Totals:
    """All workers beside each other, and what they counted."""
    trials.prepare()
    totals = Totals()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="plusx-signals-") as name:
        for counted in trials.beside(options.workers, Path(name), partial(work, Path(name), options)):
            _add(totals, Totals(**counted))
    late = percentile(all_but(totals.seconds_to_stop, "twice"), 0.99)
    if late > MOST:
        totals.broken.append(f"the 99th percentile is {late:.2f} s")
    return totals


def all_but(seconds: dict[str, list[float]], kind: str) -> list[float]:
    """The seconds of all kinds but one."""
    return [value for name, values in seconds.items() if name != kind for value in values]


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed; 0 where there are none."""
    return sorted(values)[max(0, -int(-share * len(values) // 1) - 1)] if values else 0.0


def told(totals: Totals) -> dict[str, Any]:
    """The totals as one line: of each kind how many, the median, the 99th percentile and the longest."""
    line = asdict(totals)
    kinds = totals.seconds_to_stop | {"all but twice": all_but(totals.seconds_to_stop, "twice")}
    line["seconds_to_stop"] = {
        kind: {"n": len(v), "median": percentile(v, 0.5), "p99": percentile(v, 0.99), "most": max(v, default=0.0)}
        for kind, v in sorted(kinds.items())
    }
    return line


def main(words: list[str]) -> int:
    """Run the campaign, tell its totals; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--startup", type=int, default=40, help="how often `plusx models` is interrupted")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kind", choices=list(KINDS), help="only trials of this kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=trials.fast_folder(), help="where the runs lie")
    parser.add_argument("--out", type=Path, help="a line of JSON is added to this file")
    options = parser.parse_args(words)
    line = {"campaign": "signals", "seed": options.seed, "workers": options.workers} | told(campaign(options))
    for name, value in line.items():
        if name == "seconds_to_stop":
            for kind, figures in value.items():
                shown = ", ".join(f"{key} {n:.2f}" if key != "n" else f"{n} times" for key, n in figures.items())
                print(f"  {kind:14} {shown}")
        else:
            print(f"{name:16} {value}" if name != "broken" else "\n".join(value[:20] or ["no promise was broken"]))
    if options.out is not None:
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
    return 1 if line["broken"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
