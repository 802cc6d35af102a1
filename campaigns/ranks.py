"""A process of a training by several is killed, stopped or slowed down, again and again: rows T14 and T15.

    python campaigns/ranks.py --faults 100 --out FILE
    python campaigns/ranks.py --mode stop --faults 5
    python campaigns/ranks.py --mode stop --faults 1 --control     # nobody watches: the promises must break

`torchrun --max-restarts` trains on drawn pictures. Whenever a new checkpoint is there, one process (by a keyed choice,
at a keyed moment) gets SIGKILL or SIGSTOP, or sleeps for a minute. All processes must have ended within 30 seconds, the
output must name the rank and its process, torchrun must bring the training back, and its model file must be equal in
every bit to that of a training that nobody disturbed. Broken promises end with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rank import UNWATCHED

from plusx.data.drawn import write_set
from plusx.durable import sha256_file
from plusx.training import checkpoint

ROOT = Path(__file__).resolve().parents[1]
MODES = {"kill": "was killed or crashed", "stop": "was stopped by a signal", "slow": "is alive, but the others have"}
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "slow": signal.SIGUSR1}
PROMISED = 30.0  # seconds from the fault to the end of every process
BACK = 180.0  # seconds until a training that was started has a new checkpoint
EVERY = 5  # steps between two checkpoints
LAST = 4 * EVERY  # steps before the end in which nothing is done any more
MOMENT = 0.5  # most seconds from a new checkpoint to the fault
PHOTOS = {"train": 20, "val": 6, "test": 2}  # of each of two classes
BATCH = 8
FLAGS = {"--model": "resnet8", "--size": "32", "--batch-size": str(BATCH), "--device": "cpu", "--seed": "1"}
SETS = (f"checkpoint_every={EVERY}", "width=0.25", "workers=1", "sizes=[]", "log_every=1", "patience=100000")
PATIENT = "rank_seconds=5"  # where one is slow


@dataclass(frozen=True)
class Generation:
    """The processes of one start of the training, by rank."""

    pids: dict[int, int]

    def left(self) -> list[int]:
        """The ranks that have not ended."""
        return [rank for rank, pid in self.pids.items() if _state(pid) not in ("", "Z")]


@dataclass
class Totals:
    """What was counted; `seconds` are from each fault to the end of the last process, `broken` what was wrong."""

    faults: int = 0
    trainings: int = 0
    named: int = 0
    seconds: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    took: float = 0.0
    broken: list[str] = field(default_factory=list)


class Job:
    """`torchrun` with a training, its output in a file."""

    def __init__(self, folder: Path, options: argparse.Namespace, name: str, steps: int) -> None:
        self.run, self.log, self.options, self.steps = folder / name, folder / f"{name}.txt", options, steps
        words = [*self._torchrun(), "train", str(folder / "photos"), "--out", str(self.run)]
        words += ["--epochs", str(-(-steps * BATCH // (2 * PHOTOS["train"])))]
        words += [word for pair in FLAGS.items() for word in pair]
        words += [word for value in self._sets() for word in ("--set", value)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment |= {UNWATCHED: "1"} if options.control else {}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(words, stdout=out, stderr=out, env=environment, cwd=folder)

    def _sets(self) -> tuple[str, ...]:
        return (*SETS, PATIENT) if self.options.mode == "slow" else SETS

    def _torchrun(self) -> list[str]:
        ours = [str(Path(__file__).with_name("rank.py"))]
        what = ours if self.options.mode == "slow" or self.options.control else ["-m", "plusx"]
        several = ["--standalone", "--nproc-per-node", str(self.options.ranks)]
        restarts = ["--max-restarts", str(self.options.faults + 3)]
        return [sys.executable, "-m", "torch.distributed.run", *several, *restarts, *what]

    @property
    def step(self) -> int:
        """The step of the newest checkpoint; 0 where there is none."""
        return max((checkpoint.step_of(path) for path in checkpoint.found(self.run / "checkpoints")), default=0)

    @property
    def ended(self) -> bool:
        """Whether torchrun has ended."""
        return self.process.poll() is not None

    def said(self, since: int = 0) -> str:
        """What the processes printed after so many bytes."""
        return self.log.read_bytes()[since:].decode(errors="replace")

    def generation(self) -> Generation:
        """The processes that are there now."""
        children = [pid for pid in _processes() if _parent(pid) == self.process.pid]
        ranks = {int(rank): pid for pid in children if (rank := _environment(pid).get("RANK"))}
        return Generation(ranks)

    def stop(self) -> None:
        """End torchrun and every process that it has started."""
        for pid in (*self.generation().pids.values(), self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _fields(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _state(pid: int) -> str:
    return (_fields(pid) or [""])[0]


def _parent(pid: int) -> int:
    found = _fields(pid)
    return int(found[1]) if found else 0


def _environment(pid: int) -> dict[str, str]:
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        return dict(line.split("=", 1) for line in lines if "=" in line)
    return {}


def _wait(until: float, reached: Any) -> bool:
    """Whether `reached()` came true before the clock says `until`."""
    while not reached():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def disturb(job: Job, number: int, totals: Totals) -> bool:
    """One fault, once there is a new checkpoint, and what comes of it; False where there will be no further one."""
    chance = random.Random(f"{job.options.seed}/{number}")
    before, since = job.step, time.monotonic()
    there = _wait(since + BACK, lambda: job.ended or (job.step > before and len(job.generation().pids) > 1))
    if job.ended:
        return False
    if not there:
        totals.broken.append(f"fault {number}: after {BACK:.0f} s there was no new checkpoint")
        return False
    totals.back.append(time.monotonic() - since)
    time.sleep(chance.uniform(0, MOMENT))
    rank, generation, printed = chance.randrange(job.options.ranks), job.generation(), len(job.log.read_bytes())
    if job.ended or rank not in generation.pids or job.step > job.steps - LAST:
        return False
    os.kill(generation.pids[rank], SIGNALS[job.options.mode])
    _judge(job, Fault(number, rank, generation, printed, time.monotonic()), totals)
    return not job.options.control


@dataclass(frozen=True)
class Fault:
    """What was done: to which rank, among which processes, when, and how much had been printed before."""

    number: int
    rank: int
    generation: Generation
    printed: int
    at: float


def _judge(job: Job, fault: Fault, totals: Totals) -> None:
    ended = _wait(fault.at + 2 * PROMISED, lambda: not fault.generation.left())
    took = time.monotonic() - fault.at
    totals.faults += 1
    totals.seconds.append(took)
    if not ended or took > PROMISED:
        left = f"ranks {fault.generation.left()} were there" if not ended else "some were there"
        totals.broken.append(f"fault {fault.number} (rank {fault.rank}): after {took:.0f} s {left}")
    pid, size = fault.generation.pids[fault.rank], job.options.ranks
    name = f"Rank {fault.rank} of {size} (process {pid} on "
    told = [line for line in job.said(fault.printed).splitlines() if name in line and MODES[job.options.mode] in line]
    totals.named += bool(told)
    if not told:
        said = job.said(fault.printed)[-600:]
        totals.broken.append(f"fault {fault.number}: rank {fault.rank} (process {pid}) was not named: {said}")


def unbroken(folder: Path, options: argparse.Namespace, steps: int) -> str:
    """The hash of the model of a training that nobody disturbs."""
    job = Job(folder, options, "whole", steps)
    if job.process.wait(3600):
        raise SystemExit(f"the training fails by itself: {job.said()[-2000:]}")
    return sha256_file(job.run / "model.safetensors")


def campaign(folder: Path, options: argparse.Namespace) -> Totals:
    """All faults, in as many trainings as that takes (one, if its length was guessed well)."""
    totals, began = Totals(), time.monotonic()
    until = began + 60 * options.minutes
    write_set(folder / "photos", PHOTOS, size=40)
    steps = max(options.steps, 4 * EVERY)
    expected = "" if options.control else unbroken(folder, options, steps)
    while totals.faults < options.faults and not totals.broken and time.monotonic() < until:
        _trained(_started(folder, options, f"training-{totals.trainings}", steps), until, expected, totals)
    totals.took = time.monotonic() - began
    return totals


def _trained(starting: AbstractContextManager[Job], until: float, expected: str, totals: Totals) -> None:
    """One training that is disturbed until it ends, or there were faults enough, or the time is over."""
    with starting as job:
        totals.trainings += 1
        options, name = job.options, job.run.name
        while totals.faults < options.faults and time.monotonic() < until and disturb(job, totals.faults, totals):
            if options.verbose:
                print(f"{totals.faults} faults, {totals.seconds[-1]:.1f} s, step {job.step}", flush=True)
        if options.control:
            return
        if not _wait(time.monotonic() + 600, lambda: job.ended):
            totals.broken.append(f"{name} had not ended 10 minutes after the last fault")
        elif job.process.returncode:
            totals.broken.append(f"{name} ended with {job.process.returncode}: {job.said()[-1500:]}")
        elif sha256_file(job.run / "model.safetensors") != expected:
            totals.broken.append(f"{name} gave another model than a training that nobody disturbed")


@contextmanager
def _started(folder: Path, options: argparse.Namespace, name: str, steps: int) -> Iterator[Job]:
    job = Job(folder, options, name, steps)
    try:
        yield job
    finally:
        job.stop()
        if options.keep:
            shutil.copy(job.log, options.keep)


def told(totals: Totals, options: argparse.Namespace) -> dict[str, Any]:
    """The totals as one line."""
    line = {"campaign": "ranks", "mode": options.mode, "ranks": options.ranks, "seed": options.seed} | asdict(totals)
    for name in ("seconds", "back"):
        values = sorted(line[name]) or [0.0]
        line[name] = {"median": statistics.median(values), "most": values[-1]}
    return line


def main(words: list[str]) -> int:
    """Run the campaign, tell its totals; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--mode", choices=list(MODES), default="kill")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1200, help="of one training")
    parser.add_argument("--minutes", type=float, default=60.0, help="after these no further fault is made")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--control", action="store_true", help="without the watch: one fault, and promises break")
    parser.add_argument("--verbose", action="store_true", help="a line per fault")
    parser.add_argument("--keep", type=Path, help="what the processes printed is copied to this file")
    parser.add_argument("--out", type=Path, help="a line of JSON is added to this file")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="plusx-ranks-") as name:
        line = told(campaign(Path(name), options), options)
    for name, value in line.items():
        print(f"{name:10} {value}" if name != "broken" else "\n".join(value or ["no promise was broken"]))
    if options.out is not None:
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
    return 1 if line["broken"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
