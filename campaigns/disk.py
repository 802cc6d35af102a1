"""A disk that is full, broken, over its quota or read-only at every single change of a file: rows T19 and T20.

    python campaigns/disk.py --out FILE
    python campaigns/disk.py --only 'once ENOSPC half operation 12'

The small training of the tests has one fault at one operation on its files (once), or the disk refuses everything from
there on (for good). Where it comes once the run must end equal in every bit to an undisturbed one, its history too;
only best weights that could not be written may be missing, and are told. Where it stays the run must go on to its last
step without an error, leave the checkpoints written before whole, and end equal once it is resumed on a sound disk. In
both a sentence names the path and the cause, and no leftover stays. Broken promises end with exit code 1.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import trials
from operations import AFTER, Act, Operation, nothing, watched
from trials import toy

from plusx import durable
from plusx.training import checkpoint
from plusx.training.events import Event, Notice, StepDone
from plusx.training.loop import fit

ERRORS = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EDQUOT", "EROFS")}
HOW = toy.settings(5, checkpoint_every=2, steps_per_epoch=2)
REMOVING = ("unlink", "rmdir", "truncate")  # what a full disk still does


@dataclass(frozen=True)
class Fault:
    """One way in which a disk fails: for good from an operation on, or once, at a moment of it."""

    lasting: bool
    error: str
    operation: Operation
    moment: str

    def __str__(self) -> str:
        where = f"operation {self.operation.number}, {self.operation.name} of {self.operation.path}"
        return f"{'for good' if self.lasting else 'once'} {self.error} {self.moment} {where}"

    def act(self, raised: list[Operation]) -> Act:
        """What raises it, and notes where."""

        def fail(operation: Operation, moment: str) -> None:
            first = (operation.number, moment) == (self.operation.number, self.moment)
            later = self.lasting and operation.number > self.operation.number and moment != AFTER
            if first or (later and not (self.error in ("ENOSPC", "EDQUOT") and operation.name in REMOVING)):
                raised.append(operation)
                raise OSError(ERRORS[self.error], os.strerror(ERRORS[self.error]))

        return fail


@dataclass
class Totals:
    """What was counted; `broken` names faults, and what was wrong."""

    operations: int = 0
    once: int = 0
    for_good: int = 0
    notices: int = 0
    best_not_kept: int = 0
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)


@dataclass
class Trial:
    """A training under a fault: what it told, how far it came, and its digest."""

    told: list[str] = field(default_factory=list)
    steps: int = 0
    digest: Any = None

    def listen(self, event: Event) -> None:
        """Take note of what the run tells."""
        if isinstance(event, Notice):
            self.told.append(event.text)
        if isinstance(event, StepDone):
            self.steps = event.step

    def run(self, folder: Path, act: Act, *, resume: bool = False) -> list[Operation]:
        """Train under an act; returns the operations on files that it took."""
        photos, one = toy.Photos(), toy.training(folder, HOW, self.listen)
        if resume:
            durable.sweep_temporary(one.paths.checkpoints)
            durable.sweep_temporary(one.paths.best)
            one.resume()
        with watched(folder, act) as seen:
            outcome = fit(one, photos, photos.validate)
        self.digest = toy.digest(one, outcome) if one.paths.logs["history"].path.exists() else None
        return seen


def faults(operations: list[Operation]) -> Iterator[Fault]:
    """Every fault of every operation."""
    for error in ERRORS:
        for operation in operations:
            for moment in operation.moments:
                yield Fault(False, error, operation, moment)
            yield Fault(True, error, operation, operation.moments[0])


def wrong_with(folder: Path, fault: Fault, whole: Any, totals: Totals) -> Iterator[str]:
    """What a run under this fault does that it should not."""
    trial, raised = Trial(), list[Operation]()
    try:
        trial.run(folder, fault.act(raised))
    except Exception as error:
        yield f"the run ended with {type(error).__name__}: {error}"
        return
    if not raised:
        return  # an operation that fails by itself, and is done otherwise: nothing comes after it
    totals.notices += len(trial.told)
    cause = os.strerror(ERRORS[fault.error])
    harmless = fault.operation.name in ("unlink", "rmdir") or (fault.operation.name == "mkdir" and not fault.lasting)
    if not harmless and not any(cause in told and str(folder) in told for told in trial.told):
        yield f"no sentence names the path and the cause: {trial.told}"
    if trial.steps != HOW.total_steps:
        yield f"the run ended after step {trial.steps}"
    yield from _wrong_on_disk(folder, fault)
    if any("not kept as the best" in told for told in trial.told) and not fault.lasting:
        totals.best_not_kept += 1
    elif not fault.lasting and trial.digest != whole:
        yield "the run ends with other bits than an undisturbed one"
    if fault.lasting:
        again = Trial()
        again.run(folder, nothing, resume=True)
        if again.digest != whole:
            yield "the run, resumed on a sound disk, ends with other bits than an undisturbed one"


def _wrong_on_disk(folder: Path, fault: Fault) -> Iterator[str]:
    for path in checkpoint.found(folder / "checkpoints")[: checkpoint.KEPT]:  # an older one may be half removed
        if told := durable.folder_fault(path):
            yield f"{path.name} is damaged: {told}"
    stays = fault.lasting and fault.error in ("EIO", "EROFS")  # nothing can be removed then
    if not stays and fault.operation.name not in ("unlink", "rmdir") and trials.leftovers(folder):
        yield f"leftovers: {sorted(path.name for path in folder.rglob('tmp-*'))}"


def campaign(options: argparse.Namespace) -> Totals:
    """Every fault, or every so many of them."""
    started, totals, whole = time.monotonic(), Totals(), Trial()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="plusx-disk-") as name:
        operations = whole.run(Path(name) / "whole", nothing)
        totals.operations = len(operations)
        for number, fault in enumerate(faults(operations)):
            if (number % options.stride and not options.only) or options.only not in str(fault):
                continue
            folder = Path(name) / f"fault-{number}"
            totals.broken += [f"{fault}: {told}" for told in wrong_with(folder, fault, whole.digest, totals)]
            totals.for_good, totals.once = totals.for_good + fault.lasting, totals.once + (not fault.lasting)
            shutil.rmtree(folder)
    totals.seconds = round(time.monotonic() - started, 1)
    return totals


def main(words: list[str]) -> int:
    """Run the campaign, tell its totals; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stride", type=int, default=1, help="try every so many faults")
    parser.add_argument("--only", default="", help="only faults whose name holds this")
    parser.add_argument("--folder", type=Path, default=trials.fast_folder(), help="where the runs lie")
    parser.add_argument("--out", type=Path, help="a line of JSON is added to this file")
    options = parser.parse_args(words)
    trials.prepare()
    line = {"campaign": "disk"} | asdict(campaign(options))
    for name, value in line.items():
        print(f"{name:16} {value}" if name != "broken" else "\n".join(value[:20] or ["no promise was broken"]))
    if options.out is not None:
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
    return 1 if line["broken"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
