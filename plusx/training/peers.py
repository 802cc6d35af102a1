"""The watch over the other processes of a training: whoever is lost is named, and nobody waits for it forever.

PyTorch notices a killed process as a broken connection, without a name, and a stopped one not at all. So a thread of
each process says through the store, in which torchrun lets processes find each other, that it is alive and how far it
has come, and looks after eight others. The first that gives one up says so there, and all end with the same sentence.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from plusx.errors import Error, Interrupted, RunError
from plusx.errors import distributed as sentences
from plusx.launch import Launch
from plusx.training import heartbeat
from plusx.training.heartbeat import BETWEEN, GAP, Beat, Bounds, Kind, Phase, Sight, Verdict, this_process

ANSWER = timedelta(seconds=2)  # of the store
FIRST_BEAT = timedelta(seconds=60)
ENDING = 30.0  # seconds in which the thread that watches has ended this process
AT_ONCE = 1.0  # seconds in which a process that is gone from this machine is seen
_NONE = b"{}"
_CARRIER = re.compile(r"/gloo/|\bGloo |ProcessGroupGloo|\bNCCL\b")  # source files and names in what PyTorch says
_KILLED = ("stopped", "silent", "slow")  # of the verdicts: those whose process may still be there

End = Callable[[str | None], None]  # with the sentence, or None where another process tells it


class Peers:
    """This process among others; `entered` counts the messages it has come to. One thread watches from `start` on.

    `run`: a text that is the same in all processes, and another one after every restart.
    """

    def __init__(self, launch: Launch, run: str, bounds: Bounds = Bounds(), address: str | None = None) -> None:  # noqa: B008
        self.launch, self.bounds = launch, bounds
        self.address = address or f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        self.phase: Phase = "starting"
        self.step, self.entered = 0, 0
        self._run, self._told, self._count = run, "", 0
        self._hosts = launch.first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"  # the store is its own
        self._seen: dict[int, Sight] = {}
        self._unanswered: float | None = None  # since when the store is silent
        self._wake, self._found, self._closed = (threading.Event() for _ in range(3))
        self._end: End = _end
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        host, _, port = self.address.rpartition(":")
        self._store = TCPStore(host, int(port), is_master=False, wait_for_workers=False, timeout=FIRST_BEAT)
        self._store.set_timeout(ANSWER)
        if launch.first:
            self._store.set(self._key("verdict"), _NONE.decode())
        self._store.set(self._key(launch.rank), self._beat().to_json())

    def start(self) -> None:
        """Watch from now on. All processes are about to."""
        others = heartbeat.watched(self.launch.rank, self.launch.size)
        self._await(others)
        now = time.monotonic()
        for rank in others:
            self._seen[rank] = Sight(Beat.from_json(self._store.get(self._key(rank))), now)
        self._thread.start()

    def job(self) -> str:
        """What this start of torchrun and all its restarts are called: torchrun's store has it from the first of them.

        What torchrun itself calls them is "none" unless --rdzv-id says otherwise, and that may say the same every day.
        """
        return str(self._store.compare_set("plusx/job", "", self._run).decode())

    def at(self, step: int) -> None:
        """The process comes to the messages of a step; so many steps are done."""
        self.phase, self.step = "training", step
        self.entered += 1

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Do what only this process does, and the others wait for: however long it takes, it is not slow."""
        before, self.phase = self.phase, "alone"
        try:
            yield
        finally:
            if self.phase == "alone":  # else it has left meanwhile
                self.phase = before

    @contextmanager
    def ended_by(self, end: End) -> Iterator[None]:
        """Within the block, that of the steps, `end` ends this process, called from the thread that watches."""
        before, self._end = self._end, end
        try:
            yield
        finally:
            self._end, self.phase = before, "starting"

    def leave(self, phase: Phase = "left", told: str = "") -> None:
        """Say that this process ends, in order or with an error, and watch no more."""
        self._told, self.phase = told, phase
        self._closed.set()
        self._wake.set()
        if self._thread.is_alive() and not self._found.is_set():  # else it is about to end this process
            self._thread.join(2 * ANSWER.total_seconds() + 1)
            self._linger("left" if phase == "left" else None)

    def look(self, error: BaseException, *, asked: bool = False) -> None:
        """End this process where `error` came about since another one is lost.

        Where a connection broke it is waited until it is known who is missing; not for long where this process was
        `asked` to stop, as torchrun asks all that are left when one is killed: the others may have left in order.
        """
        of_a_message = is_of_a_message(error)
        asked = asked or isinstance(error, (Interrupted, KeyboardInterrupt))
        if self._closed.is_set() or not (of_a_message or asked):
            return
        self._wake.set()
        if self._found.wait(AT_ONCE if asked else self.bounds.silent + AT_ONCE):
            time.sleep(ENDING)  # the thread that watches ends this process
        elif of_a_message and not asked:
            self._broken(str(error).strip().splitlines()[0][:200])

    def _broken(self, what: str) -> None:
        """Let all end with the same sentence, this process too: the thread that watches reads what is posted here."""
        verdict = Verdict("broken", self.launch.rank, this_process(), self.step, told=what, by=self.launch.rank)
        self._posted(verdict)
        self._wake.set()
        if self._found.wait(BETWEEN + 2 * ANSWER.total_seconds()):
            time.sleep(ENDING)
        self._give_up(verdict)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block lasts. An error within that comes of a lost process ends this one."""
        self.start()
        try:
            yield
        except BaseException as error:
            self.look(error)
            orderly = isinstance(error, (Interrupted, KeyboardInterrupt))
            self.leave("left" if orderly else "failed", error.message if isinstance(error, Error) else repr(error))
            raise
        self.leave()

    def _await(self, others: list[int]) -> None:
        """Wait for the first words of the others. Raises RunError naming one that has not come."""
        try:
            self._store.wait([self._key("verdict"), *map(self._key, others)], FIRST_BEAT)
        except RuntimeError:
            missing = 0  # which sets the verdict, and may have taken the store with it
            with suppress(RuntimeError):
                missing = next((rank for rank in others if not self._store.check([self._key(rank)])), 0)
            raise sentences.not_come(missing, self.launch.size, FIRST_BEAT.total_seconds()) from None

    def _key(self, name: int | str) -> str:
        return f"plusx/{self._run}/{name}"

    def _beat(self) -> Beat:
        self._count += 1
        rank = self.launch.rank
        return Beat(rank, this_process(), self.phase, self.step, self.entered, self._count, self._told)

    def _watch(self) -> None:
        """Body of the thread."""
        last = time.monotonic()
        while True:
            now = time.monotonic()
            if now - last > GAP:
                self._forgive(now)
            last = now
            closing = self._closed.is_set()  # before the last word is said
            verdict = self._look()
            if closing:
                return
            if verdict is not None and not self._closed.is_set():
                self._give_up(verdict)
                return
            self._wake.wait(BETWEEN)
            self._wake.clear()

    def _forgive(self, now: float) -> None:
        self._unanswered = None
        for seen in self._seen.values():
            seen.forgive(now)

    def _look(self) -> Verdict | None:
        """Say that this process is alive, hear the others, and judge."""
        states = {rank: heartbeat.state_of(seen.beat.process) for rank, seen in self._seen.items()}  # before they speak
        beats, posted = self._exchanged()
        now = time.monotonic()
        for rank, seen in self._seen.items():
            seen.see(beats.get(rank, seen.beat), states[rank], self.entered, now)
        if posted is not None:
            return posted
        found = [heartbeat.judged(seen, self.bounds, now) for seen in self._seen.values()]
        verdict = next((verdict for verdict in found if verdict), None) or self._unheard(now)
        return replace(verdict, by=self.launch.rank) if verdict else None

    def _exchanged(self) -> tuple[dict[int, Beat], Verdict | None]:
        """The newest beats, and the verdict of whoever was first; nothing while the store does not answer."""
        keys = [self._key(rank) for rank in self._seen]
        try:
            self._store.set(self._key(self.launch.rank), self._beat().to_json())
            *beats, posted = self._store.multi_get([*keys, self._key("verdict")])
        except RuntimeError:
            self._unanswered = self._unanswered or time.monotonic()
            return {}, None
        self._unanswered = None
        read = dict(zip(self._seen, map(Beat.from_json, beats), strict=True))
        return read, None if posted == _NONE else Verdict.from_json(posted)

    def _unheard(self, now: float) -> Verdict | None:
        if self._unanswered is None or now - self._unanswered <= self.bounds.silent:
            return None
        return Verdict("unheard", 0, this_process(), self.step, now - self._unanswered, self.address)

    def _give_up(self, verdict: Verdict) -> None:
        """Tell the others, and end this process."""
        verdict = self._posted(verdict)
        if verdict.kind in _KILLED:
            heartbeat.end(verdict.process)
        self._linger()
        self._found.set()
        self._end(self._sentence_of(verdict))

    def _sentence_of(self, verdict: Verdict) -> str | None:
        """What this process says: what all would say is said by the first, or by who found that one lost."""
        teller = verdict.by if verdict.rank == 0 else 0
        return sentence(verdict, self.launch.size).message if self.launch.rank == teller else None

    def _linger(self, phase: Phase | None = None) -> None:
        """Where the store ends with this process, let the others read what was told, or say that they left too."""
        until = time.monotonic() + 2 * BETWEEN
        while self._hosts and time.monotonic() < until:
            beats, _ = self._exchanged() if phase else ({}, None)
            if phase and beats and all(beat.phase in (phase, "failed") for beat in beats.values()):
                return
            time.sleep(0.02)

    def _posted(self, verdict: Verdict) -> Verdict:
        """The verdict of whoever was first."""
        with suppress(RuntimeError):
            key = self._key("verdict")
            return Verdict.from_json(self._store.compare_set(key, _NONE.decode(), verdict.to_json()))
        return verdict


def sentence(verdict: Verdict, size: int) -> RunError:
    """The verdict in words."""
    process, step, seconds = verdict.process, verdict.step, verdict.seconds
    name = sentences.named(verdict.rank, size, process.pid, process.machine)
    told: Mapping[Kind, Callable[[], RunError]] = {
        "gone": lambda: sentences.gone(name, step),
        "stopped": lambda: sentences.stopped(name, step, seconds),
        "silent": lambda: sentences.silent(name, step, seconds),
        "slow": lambda: sentences.slow(name, step, seconds),
        "failed": lambda: sentences.failed(name, verdict.told),
        "unheard": lambda: sentences.launcher_gone(verdict.told, seconds),
        "broken": lambda: sentences.broken(verdict.told),
    }
    return told[verdict.kind]()


def is_of_a_message(error: BaseException) -> bool:
    """Whether PyTorch raised `error` where processes send each other something; gloo has no class of its own for it."""
    if not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or _CARRIER.search(str(error)) is not None


def _end(told: str | None) -> None:
    if told is not None:
        os.write(2, f"\nplusx: {told}\n".encode())
    os._exit(1)
