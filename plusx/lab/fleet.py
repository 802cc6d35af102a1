"""Several networks trained side by side, each by a process of its own.

Small networks leave most of a machine idle: two of them on one thread each are half again as fast as one after the
other on two threads (docs/decisions/0017-the-lab.md), and a GPU has room for several.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from plusx.durable import disk_errors, make_folder
from plusx.errors import Error
from plusx.errors import lab as sentences
from plusx.images.pool import usable_cpus
from plusx.lab.job import Job, Setup

CPU_MOST, GPU_USUAL = 8, 4  # processes
ENDS = ("done", "diverged", "failed", "lost")
GRACE = 5.0  # seconds a process that no longer makes sense has to end by itself

Heard = Callable[[Job, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Fleet:
    """How many processes train, of so many threads each, and where they write what they print."""

    processes: int
    threads: int
    folder: Path


def fleet_of(wanted: int | None, jobs: int, on_cpu: bool, folder: Path) -> Fleet:
    """As many processes as wanted, or as the machine has room for; they share its CPUs."""
    usual = min(CPU_MOST, usable_cpus()) if on_cpu else GPU_USUAL
    processes = max(1, min(wanted or usual, jobs))
    return Fleet(processes, max(1, usable_cpus() // processes), folder)


def train_all(setup: Setup, jobs: Sequence[Job], fleet: Fleet, heard: Heard) -> None:
    """Train every job, in their order as far as processes are free. `heard` is told every event of every job.

    Raises RunError where a training fails; the others are stopped with a checkpoint first, as they are on
    KeyboardInterrupt, which goes on.
    """
    make_folder(fleet.folder)
    _Voyage(setup, jobs, fleet, heard).sail()


class _Voyage:
    """The processes at work, and what they say."""

    def __init__(self, setup: Setup, jobs: Sequence[Job], fleet: Fleet, heard: Heard) -> None:
        self._todo, self._heard = deque(jobs), heard
        self._said: queue.SimpleQueue[tuple[Job, dict[str, Any]] | None] = queue.SimpleQueue()
        self._stopping = False
        self._processes = [_started(setup, fleet, number) for number in range(1, fleet.processes + 1)]
        self._logs = [_log(fleet, number) for number in range(1, fleet.processes + 1)]
        self._drivers = [threading.Thread(target=self._drive, args=(i,), daemon=True) for i in range(fleet.processes)]

    def sail(self) -> None:
        """Until every job has ended. However it ends, no process is left."""
        for driver in self._drivers:
            driver.start()
        try:
            self._listen()
        except BaseException:
            self._stop()
            raise
        finally:
            self._end()

    def _listen(self) -> None:
        running = len(self._drivers)
        while running:
            try:
                said = self._said.get(timeout=0.5)  # a signal must not wait for the next event
            except queue.Empty:
                continue
            if said is None:
                running -= 1
                continue
            _refuse_failure(*said)
            self._heard(*said)

    def _drive(self, number: int) -> None:
        """Give one process job after job, and pass on what it says of each."""
        process = self._processes[number]
        try:
            while not self._stopping:
                try:
                    job = self._todo.popleft()
                except IndexError:
                    break
                self._one(process, job, number)
        finally:
            self._said.put(None)  # whatever happens here, or the lab waits for ever

    def _one(self, process: subprocess.Popen[str], job: Job, number: int) -> None:
        if _write(process, job.to_json()) and self._told(process, job, number):
            return
        if not self._stopping:
            lost = {"event": "lost", "number": number + 1, "code": _ended(process), "log": str(self._logs[number])}
            self._said.put((job, lost))

    def _told(self, process: subprocess.Popen[str], job: Job, number: int) -> bool:
        """Pass on what is said of a job; whether its end was, and not silence or a line that is no event."""
        assert process.stdout is not None
        for line in process.stdout:
            event = _event(line)
            if event is None:
                _keep(line, self._logs[number])
                return False
            self._said.put((job, event))
            if event["event"] in ENDS:
                return True
        return False

    def _stop(self) -> None:
        """Ask every process for a checkpoint; a second interruption ends them at once."""
        self._stopping = True
        for process in self._processes:
            process.terminate()
        try:
            for process in self._processes:
                process.wait()
        except KeyboardInterrupt:
            for process in self._processes:
                process.kill()
            raise

    def _end(self) -> None:
        for process in self._processes:
            for stream in (process.stdin, process.stdout):
                _close(stream)
            process.wait()


def _started(setup: Setup, fleet: Fleet, number: int) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": str(fleet.threads)}
    with disk_errors(_log(fleet, number)), _log(fleet, number).open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "plusx.lab.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            errors="replace",  # bytes that are no text make a line that is no event
            env=environment,
            start_new_session=True,  # a Ctrl-C is for the lab, which tells its processes
        )
    _write(process, setup.to_json())
    return process


def _log(fleet: Fleet, number: int) -> Path:
    return fleet.folder / f"process-{number}.log"


def _write(process: subprocess.Popen[str], value: Any) -> bool:
    """One line to a process; whether it was there to take it."""
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(value) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return False
    return True


def _event(line: str) -> dict[str, Any] | None:
    """What a line says; None where it is cut off, or what some library printed."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _keep(line: str, log: Path) -> None:
    """Beside what the process printed otherwise, which is where its user is sent."""
    with suppress(OSError), log.open("a") as file:
        file.write(line)


def _ended(process: subprocess.Popen[str]) -> int:
    """Its exit code; one that goes on is killed, for nobody reads what it says any more."""
    try:
        return process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _close(stream: IO[str] | None) -> None:
    try:
        if stream is not None:
            stream.close()
    except BrokenPipeError:
        pass  # what was still to be said has no listener any more


def _refuse_failure(job: Job, event: Mapping[str, Any]) -> None:
    """Raise what a process says went wrong."""
    if event["event"] == "failed":
        raise _failure(job, event)
    if event["event"] == "lost":
        raise sentences.worker_lost(event["number"], event["code"], Path(event["log"]))


def _failure(job: Job, event: Mapping[str, Any]) -> Error:
    return sentences.training_failed(job.network.name, event["message"], event["exit_code"])
