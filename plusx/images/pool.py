"""Decoding in supervised processes of our own: a photo that kills, hangs or takes over its process costs itself.

Each worker is a fresh interpreter that holds a short queue of photos and answers them one by one, in
order, so the parent always knows which photo is in hand. A worker that ends, overruns its time or
speaks nonsense is replaced alone; the photo in hand becomes a BadPhoto and the rest of its queue is
dealt out again. Nothing is pickled in either direction.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from plusx.errors import images as errors
from plusx.images import worker
from plusx.images.answers import Surveyed
from plusx.images.decode import BadPhoto, Undecodable
from plusx.images.preprocess import Pixels, Preprocess
from plusx.images.process import Answer, DecodingProcess, Limits, Task, worker_command
from plusx.images.source import Source, read

__all__ = ["QUEUE", "DecodePool", "Result", "Source", "Surveyed", "usable_cpus", "worker_command"]

QUEUE = 16  # photos dealt to a worker and not answered: enough to hide the way to the parent and back
_HAND = 4  # photos dealt at a time, so that a short list is spread over all workers
_PLENTY = 10  # photos in a worker's queue that keep it busy for `_SOON`
_SOON = 0.001  # seconds
_MAX_FAILED_STARTS = 3

Result = Pixels | BadPhoto


def usable_cpus() -> int:
    """CPUs that this process may use: fewer than the machine has under taskset, or in a container with a limit."""
    if sys.version_info >= (3, 13):
        cpus = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    return min(cpus, _quota(Path("/sys/fs/cgroup")) or cpus)


def _quota(cgroup: Path) -> int | None:
    """The CPUs' worth of time that a container may take, rounded up; None without a limit (cgroups v2, then v1)."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):  # no such file; "max", which is no number
            quota, period = map(int, " ".join((cgroup / name).read_text() for name in names).split())
            return max(1, -(-quota // period)) if quota > 0 and period > 0 else None
    return None


class DecodePool:
    """Decodes and preprocesses many photos; a context manager that ends its processes.

    `workers`: processes, None for one per usable CPU; 0 decodes in this process, without protection.
    `seconds`: the most one photo may take. `command`: what to start as a worker. Processes start with
    the first `map`, and stay for the next.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        workers: int | None = None,
        seconds: float = 20.0,
        command: Sequence[str] | None = None,
    ) -> None:
        self.preprocess = preprocess
        self.workers = usable_cpus() if workers is None else workers
        self.seconds = seconds
        self.command = tuple(command or worker_command())
        self._crew: list[DecodingProcess] = []
        self._failed_starts = 0

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def map(self, sources: Iterable[Source]) -> Iterator[tuple[int, Result]]:
        """(position, uint8 pixels [crop, crop, 3] or BadPhoto) for every source, in any order, one `map` at a time.

        `sources` is read as work is dealt, at most QUEUE per worker ahead of what was yielded. Raises RunError
        where workers cannot be started.
        """
        if self.workers == 0:
            return _in_process(worker.pixels_of, self.preprocess, sources)
        return self._supervise(_Tasks(sources, facts=False))

    def survey(self, sources: Iterable[Source]) -> Iterator[tuple[int, Surveyed | BadPhoto]]:
        """As `map`, with what each file states of its photo beside the pixels."""
        if self.workers == 0:
            return _in_process(worker.survey_of, self.preprocess, sources)
        return self._supervise(_Tasks(sources, facts=True))

    def close(self) -> None:
        """End all workers; a later `map` starts new ones."""
        for member in self._crew:
            member.end()
        self._crew.clear()

    def _supervise(self, tasks: _Tasks) -> Iterator[Answer]:
        self._dismiss(member for member in self._crew if member.gone())
        try:
            self._deal(tasks)
            while any(member.queue for member in self._crew):
                self._wait()
                for member in list(self._crew):
                    yield from self._collect(member, tasks)
                self._deal(tasks)
        finally:
            # After an abandoned map, answers to it are still under way; their workers must not serve the next one.
            self._dismiss(member for member in self._crew if member.queue)

    def _collect(self, member: DecodingProcess, tasks: _Tasks) -> Iterator[Answer]:
        member.receive()
        # Judged before the yield: however long its consumer pauses, no worker is late by that.
        late = member.is_late(self.seconds)
        yield from member.answers()
        if not (late or member.ended or member.confused):
            return
        blamed, stopped = self._bury(member, tasks)
        if blamed is not None:
            reason = errors.timed_out(self.seconds) if late or stopped else errors.worker_died()
            yield blamed[0], BadPhoto(reason.code, reason.reason)

    def _bury(self, member: DecodingProcess, tasks: _Tasks) -> tuple[Task | None, bool]:
        """Take a worker off the crew and its queue back.

        Returns the photo it had in hand, if it ever began one, and whether its own alarm had stopped it.
        """
        stopped = member.end() == -signal.SIGALRM
        self._crew.remove(member)
        blamed = member.queue.popleft() if member.ready and member.queue else None
        tasks.give_back(member.queue)
        self._failed_starts = 0 if member.ready else self._failed_starts + 1
        if self._failed_starts >= _MAX_FAILED_STARTS:
            raise errors.workers_do_not_start(member.last_words)
        return blamed, stopped

    def _deal(self, tasks: _Tasks) -> None:
        """Fill the queues a hand at a time, the emptiest first; workers start as work for them is there."""
        while (hand := tasks.take(_HAND)) and (member := self._least_busy()) is not None:
            member.send(hand, tasks.facts)
        tasks.give_back(hand)

    def _least_busy(self) -> DecodingProcess | None:
        idle = min(self._crew, key=lambda member: len(member.queue), default=None)
        if len(self._crew) < self.workers and (idle is None or idle.queue):
            self._crew.append(self._start())
            return self._crew[-1]
        return idle if idle is not None and len(idle.queue) <= QUEUE - _HAND else None

    def _start(self) -> DecodingProcess:
        try:
            return DecodingProcess(self.command, self.preprocess, Limits(self.seconds))
        except OSError as error:
            raise errors.workers_do_not_start(error.strerror or str(error)) from error

    def _wait(self) -> None:
        """Until a worker has something to say, or the first of them is late.

        While all of them have plenty to do, answers are let come together: each look costs as much as a small photo.
        """
        if len(self._crew) == self.workers and min(len(member.queue) for member in self._crew) >= _PLENTY:
            time.sleep(_SOON)
        with selectors.DefaultSelector() as selector:
            for member in self._crew:
                selector.register(member.output, selectors.EVENT_READ)
            late = min(member.deadline(self.seconds) for member in self._crew if member.queue)
            pause = 0.05 if any(member.outbox for member in self._crew) else late - time.monotonic()
            selector.select(max(pause, 0.001))

    def _dismiss(self, members: Iterable[DecodingProcess]) -> None:
        for member in list(members):
            member.end()
            self._crew.remove(member)


class _Tasks:
    """The sources with their positions, read only as they are needed; what a dead worker left goes first."""

    def __init__(self, sources: Iterable[Source], *, facts: bool) -> None:
        self.facts = facts
        self._rest = enumerate(sources)
        self._returned: deque[Task] = deque()

    def take(self, count: int) -> list[Task]:
        hand = [self._returned.popleft() for _ in range(min(count, len(self._returned)))]
        while len(hand) < count and (task := next(self._rest, None)) is not None:
            hand.append(task)
        return hand

    def give_back(self, tasks: Iterable[Task]) -> None:
        self._returned.extend(tasks)


def _in_process(
    look: Callable[[Preprocess, bytes], Any], preprocess: Preprocess, sources: Iterable[Source]
) -> Iterator[Answer]:
    for index, source in enumerate(sources):
        try:
            yield index, look(preprocess, read(source))
        except Undecodable as bad:
            yield index, BadPhoto(bad.code, bad.reason)
