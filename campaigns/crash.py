"""SIGKILL at random times, and before, in the middle of and after every change of a file: rows T12 and T13.

    python campaigns/crash.py --kills 10000 --workers 2 --out FILE
    python campaigns/crash.py --seed 0 --run 17 --kills 1      # the kills of one run again, as far as times repeat
    python campaigns/crash.py --control torn                   # folders written in place: the promises must break

A run is killed at a random moment, resumed, killed again, until it ends; it must then be equal in every bit to a run
that nobody disturbed: weights, momentum, average, counters, best weights, history, model file. No resume may fail, lose
more steps than lie between two checkpoints, or forget a checkpoint that was written, and after a save no leftover of an
interrupted one may be there. Then a shorter run is killed at every place of every operation on its files, and resumed.
Broken promises end with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trials
from operations import Operation, nothing, watched
from trials import Notes, toy

INTERVAL = 2  # steps between two checkpoints
RANDOM = toy.settings(12, checkpoint_every=INTERVAL)
PLACES = toy.settings(
    5, checkpoint_every=INTERVAL, steps_per_epoch=2
)  # its first save is one that a validation follows
SLICE = 3.0  # a child lives for up to this part of an undisturbed run
MOST = 300  # kills of one run
MISSED = (
    0.1  # most of the places that may not be reached: of operations that fail by themselves, and are done otherwise
)


@dataclass
class Totals:
    """What was counted; `broken` names runs and places, and what was wrong."""

    runs: int = 0
    kills: int = 0
    resumed: int = 0
    saves: int = 0
    most_steps_lost: int = 0
    operations: int = 0
    places: int = 0
    not_reached: int = 0
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)

    def add(self, other: dict[str, Any]) -> None:
        """Count in what another process has counted."""
        self.most_steps_lost = max(self.most_steps_lost, other.pop("most_steps_lost"))
        self.broken += other.pop("broken")
        for name, value in other.items():
            setattr(self, name, getattr(self, name) + value)


def killed_at_random(folder: Path, number: int, seed: int, whole: tuple[str, float]) -> Totals:
    """One run, killed until it ends. `whole`: the digest of an undisturbed one, and its seconds."""
    chance, notes, totals = random.Random(f"{seed}/{number}"), Notes(), Totals(runs=1)
    code = None
    while code is None:
        child = trials.forked(lambda: trials.train(folder, RANDOM, notes), notes)
        patience = chance.uniform(0, whole[1] / SLICE) if totals.kills < MOST else None
        code = trials.ended(child, patience)
        if code is None and (code := trials.killed(child)) == -signal.SIGKILL:
            totals.kills, code = totals.kills + 1, None
    totals.resumed, totals.saves, totals.most_steps_lost = notes["begun"], notes["saves"], notes["worst"]
    totals.broken = [f"run {number}: {told}" for told in _wrong(code, notes, whole[0])]
    return totals


def _wrong(code: int, notes: Notes, expected: str) -> Iterator[str]:
    if code:
        yield f"it cannot be resumed, with exit code {code}: {notes.text}"
    elif notes.text != expected:
        yield "it ends with other bits than an undisturbed run"
    yield from trials.broken_promises(notes, INTERVAL)


def many_random(folder: Path, options: argparse.Namespace, whole: tuple[str, float], worker: int) -> Totals:
    """Runs with numbers of this worker, until its share of the kills is done."""
    totals, number = Totals(), worker if options.run is None else options.run
    share = options.kills / options.workers
    while totals.kills < share and len(totals.broken) < 10:
        totals.add(asdict(killed_at_random(folder / f"run-{number}", number, options.seed, whole)))
        shutil.rmtree(folder / f"run-{number}")
        number += options.workers
        if options.run is not None:
            break
    return totals


def undisturbed(folder: Path, how: Any, *, twice: bool = False) -> tuple[str, float, list[Operation]]:
    """The digest of a run, its seconds, and its operations on files."""
    notes, started = Notes(), time.monotonic()
    if code := trials.ended(trials.forked(lambda: trials.train(folder, how, notes, twice=twice), notes)):
        raise SystemExit(f"an undisturbed run ended with exit code {code}: {notes.text}")
    digest, seconds = notes.text, time.monotonic() - started
    listed = folder.with_suffix(".json")

    def count() -> None:
        with watched(folder, nothing) as seen:
            trials.train(folder, how, Notes(), twice=twice)
        listed.write_text(json.dumps([asdict(operation) for operation in seen]))

    shutil.rmtree(folder)
    trials.ended(trials.forked(count, notes))
    shutil.rmtree(folder)
    return digest, seconds, [Operation(**values) for values in json.loads(listed.read_text())]


def killed_at(folder: Path, place: tuple[Operation, str], expected: str) -> list[str] | None:
    """One run, killed at a place and resumed: what was wrong; None where it ended well before that place came."""
    notes = Notes()

    def die(operation: Operation, moment: str) -> None:
        if (operation.number, moment) == (place[0].number, place[1]):
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        with watched(folder, die):
            trials.train(folder, PLACES, notes, twice=True)

    code = trials.ended(trials.forked(work, notes))
    name = f"killed {place[1]} operation {place[0].number}, {place[0].name} of {place[0].path}"
    if code == 0 and notes.text == expected:
        shutil.rmtree(folder)
        return None
    if code != -signal.SIGKILL:
        return [f"{name}: was not reached ({code}: {notes.text})"]
    code = trials.ended(trials.forked(lambda: trials.train(folder, PLACES, notes, twice=True), notes))
    wrong = list(_wrong(code or 0, notes, expected))
    if trials.leftovers(folder):
        wrong.append("leftovers lie there in the end")
    shutil.rmtree(folder)
    return [f"{name}: {told}" for told in wrong]


def every_place(folder: Path, options: argparse.Namespace, worker: int) -> Totals:
    """A run killed at every place, or at every so many of them."""
    folder = folder / f"places-{worker}"
    digest, _, operations = undisturbed(folder, PLACES, twice=True)
    places = [(operation, moment) for operation in operations for moment in operation.moments]
    totals = Totals(operations=len(operations) if worker == 0 else 0)
    for place in places[worker * options.stride :: options.workers * options.stride]:
        wrong = killed_at(folder, place, digest)
        totals.broken += wrong or []
        totals.places += wrong is not None
        totals.not_reached += wrong is None
    return totals


def work(folder: Path, options: argparse.Namespace, worker: int) -> None:
    """What one of the workers does; its totals lie in the folder afterwards."""
    digest, seconds, _ = undisturbed(folder / f"whole-{worker}", RANDOM)
    with trials.torn_writes() if options.control == "torn" else nullcontext():
        totals = many_random(folder, options, (digest, seconds), worker)
        if options.stride and options.control is None:
            totals.add(asdict(every_place(folder, options, worker)))
    (folder / f"totals-{worker}.json").write_text(json.dumps(asdict(totals)))


def campaign(options: argparse.Namespace) -> Totals:
    """All workers beside each other, and what they counted."""
    trials.prepare()
    started, totals = time.monotonic(), Totals()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="plusx-crash-") as name:
        for counted in trials.beside(options.workers, Path(name), partial(work, Path(name), options)):
            totals.add(counted)
    if totals.not_reached > MISSED * (totals.places + totals.not_reached) + 1:
        totals.broken.append(f"{totals.not_reached} places were not reached")
    totals.seconds = round(time.monotonic() - started, 1)
    return totals


def arguments(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--stride", type=int, default=1, help="kill at every so many places; 0 for none")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=int, help="only the run of this number")
    parser.add_argument("--control", choices=["torn"], help="take a protection out")
    parser.add_argument("--folder", type=Path, default=trials.fast_folder(), help="where the runs lie")
    parser.add_argument("--out", type=Path, help="a line of JSON is added to this file")
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    """Run the campaign, tell its totals; 1 where a promise was broken."""
    options = arguments(words)
    totals = campaign(options)
    line = {"campaign": "crash", "seed": options.seed, "control": options.control} | asdict(totals)
    for name, value in line.items():
        print(f"{name:16} {value}" if name != "broken" else "\n".join(value[:20] or ["no promise was broken"]))
    if options.out is not None:
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
    return 1 if totals.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
