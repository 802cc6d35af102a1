"""Whether another process of the same training is alive, stopped or far behind: what it says, and how that is judged.

Each process says every half second who it is and how far it has come. Only the clock of the reader counts: a process
has been silent since the reader last saw its count of beats change, so clocks of machines are never compared.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

BETWEEN = 0.5  # seconds from one beat to the next
GAP = 6.0  # a reader that slept for longer itself cannot tell who was silent meanwhile

Phase = Literal["starting", "training", "alone", "left", "failed"]
Kind = Literal["gone", "stopped", "silent", "slow", "failed", "unheard", "broken"]


@dataclass(frozen=True)
class Process:
    """What tells a process from every other one.

    `place`: where its number means the same, that is one system and one space of process numbers; `born`: when it
    began, in the ticks of its system, 0 where that is not known.
    """

    machine: str
    place: str
    pid: int
    parent: int
    born: int


@dataclass(frozen=True)
class Beat:
    """What a process says of itself: `entered` counts the messages it has come to, which all send in the same order.

    `alone`: it does what only one does, and the others wait for it; `told`: why it failed.
    """

    rank: int
    process: Process
    phase: Phase = "starting"
    step: int = 0
    entered: int = 0
    count: int = 0
    told: str = ""

    def to_json(self) -> str:
        """As it lies in the store."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Beat:
        """The same, read back."""
        values = json.loads(text)
        return cls(**values | {"process": Process(**values["process"])})


@dataclass(frozen=True)
class Bounds:
    """Seconds after which a process is given up: stopped by a signal, silent, far behind, and ended with an error."""

    slow: float = 20.0
    stopped: float = 5.0
    silent: float = 10.0
    failed: float = 3.0  # most errors are everybody's, and each then ends by itself


@dataclass(frozen=True)
class Verdict:
    """That the process of a rank is given up, and why; `step`: the last it was known to have done; `by` which rank."""

    kind: Kind
    rank: int
    process: Process
    step: int
    seconds: float = 0.0
    told: str = ""
    by: int = 0

    def to_json(self) -> str:
        """As it lies in the store, so that all end with the same sentence."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Verdict:
        """The same, read back."""
        values = json.loads(text)
        return cls(**values | {"process": Process(**values["process"])})


@dataclass
class Sight:
    """What this process has seen of another one, by its own clock (monotonic seconds).

    `state`: the letter of its state in the system, "" where that cannot be seen from here, None where it is gone.
    """

    beat: Beat
    heard: float
    state: str | None = ""
    stopped: float | None = None  # since when
    behind: float | None = None
    failed: float | None = None

    def see(self, beat: Beat, state: str | None, entered: int, now: float) -> None:
        """Take note of the newest beat; this process itself has `entered` so many messages."""
        beats, moved = beat.count != self.beat.count, beat.entered != self.beat.entered
        self.heard = now if beats else self.heard
        self.stopped = _since(self.stopped, state == "T" and not beats, now)
        waited_for = beat.phase == "training" and beat.entered < entered
        self.behind = _since(None if moved else self.behind, waited_for, now)
        self.failed = _since(self.failed, beat.phase == "failed", now)
        self.beat, self.state = beat, state

    def beats(self, now: float) -> bool:
        """Whether it is alive and running, as far as was heard: a process that stands still is not slow."""
        return self.stopped is None and now - self.heard <= 4 * BETWEEN

    def forgive(self, now: float) -> None:
        """Count anew, since this process was not there to see."""
        self.heard, self.stopped, self.behind = now, None, None


def _since(before: float | None, holds: bool, now: float) -> float | None:
    return (now if before is None else before) if holds else None


def judged(seen: Sight, bounds: Bounds, now: float) -> Verdict | None:
    """Whether the process is given up. One that has left in order never is."""
    beat = seen.beat
    if beat.phase == "left":
        return None
    found: tuple[Kind, float] | None = None
    if beat.phase == "failed":
        found = _late("failed", seen.failed, bounds.failed, now)
    elif seen.state is None:
        found = "gone", 0.0
    else:
        found = (
            _late("stopped", seen.stopped, bounds.stopped, now)
            or _late("silent", seen.heard, bounds.silent, now)
            or _late("slow", seen.behind if seen.beats(now) else None, bounds.slow, now)
        )
    return Verdict(found[0], beat.rank, beat.process, beat.step, found[1], beat.told) if found else None


def _late(kind: Kind, since: float | None, bound: float, now: float) -> tuple[Kind, float] | None:
    return (kind, now - since) if since is not None and now - since > bound else None


def watched(rank: int, size: int, most: int = 8) -> list[int]:
    """The ranks that `rank` looks after: all others, or those that follow it.

    However many are lost at once, one of those that are left looks after one of them.
    """
    return [(rank + 1 + ahead) % size for ahead in range(min(most, size - 1))]


def this_process() -> Process:
    """Who this process is."""
    return _identity(os.getpid())


@cache
def _identity(pid: int) -> Process:
    return Process(socket.gethostname(), _place(), pid, os.getppid(), _born(pid))


def state_of(process: Process) -> str | None:
    """The letter of its state, "" where that cannot be seen from here; None where it is dead."""
    if process.place != this_process().place:
        return ""
    if not process.born:  # no Linux
        return "" if _exists(process.pid) else None
    found = _stat(process.pid)
    if found is None or int(found[19]) != process.born or found[0] in "ZX":
        return None
    return found[0]


def end(process: Process) -> bool:
    """Kill a process that this one was started beside, by the same parent; whether that was done.

    One that is stopped hears no other signal, and whoever waits for it (torchrun) would do so for half a minute.
    """
    ours = this_process()
    beside = (process.place, process.parent) == (ours.place, ours.parent) and process.pid != ours.pid
    if not beside or not process.born or state_of(process) is None:
        return False
    with suppress(OSError):
        os.kill(process.pid, signal.SIGKILL)
        return True
    return False


def _place() -> str:
    """The system since it was started, and its space of process numbers: containers have their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _born(pid: int) -> int:
    found = _stat(pid)
    return int(found[19]) if found else 0


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat that follow the name: state, parent, ..., and as the twentieth the start."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
