"""Photos that wait are computed as soon as there is a core: a photo alone on all of them, several beside each other.

Nobody waits for a batch to fill, nor for the photos of others to be done. A photo whose asker has left, or whose time
is over, is not computed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar

Photo = TypeVar("Photo")
Answer = TypeVar("Answer")
Other = TypeVar("Other")

LARGEST = 32
LONGEST = 0.25  # seconds for which a batch may keep others waiting
NEXT_TO = 1.02
TRIES = 3


@dataclass(eq=False)
class _Job(Generic[Photo, Answer]):
    """One photo; `taken` when its computation begins."""

    photo: Photo
    taken: asyncio.Future[None]
    answer: asyncio.Future[Answer]


class Batcher(Generic[Photo, Answer]):
    """`lanes` threads that compute `compute(photos, alone) -> answers`, `most` at a time each; `alone` says that no
    other thread computes now. Made in a running event loop.

    `spare` photos may be ready or in preparation besides those that are computed, each with a place in `room`.
    `on_batch` hears how many photos took how many seconds, and whether they were alone.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Photo], bool], Sequence[Answer]],
        most: int,
        spare: int,
        on_batch: Callable[[int, float, bool], None],
        lanes: int = 1,
    ) -> None:
        self._compute, self._most, self._on_batch = compute, most, on_batch
        self.room = asyncio.Semaphore(lanes * most + spare)
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(lanes, "plusx-network")
        self._waiting: deque[_Job[Photo, Answer]] = deque()
        self._something = asyncio.Event()
        self._idle = lanes
        self._lanes = [self._loop.create_task(self._run()) for _ in range(lanes)]

    async def answer(self, prepare: Callable[[], Awaitable[Photo]]) -> Answer:
        """The answer to a photo, which is prepared once there is room; what `compute` raises is raised."""
        async with self.room:
            photo = await prepare()
            job = _Job(photo, self._loop.create_future(), self._loop.create_future())
            self._waiting.append(job)
            self._something.set()
            await job.taken
        answer: Answer = await job.answer
        return answer

    async def alone(self, work: Callable[[], Other]) -> Other:
        """Something else computed in one of the threads, between batches."""
        return await self._loop.run_in_executor(self._threads, work)

    async def close(self) -> None:
        """End the threads; what waits is not computed."""
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        self._threads.shutdown(wait=True)

    async def _run(self) -> None:
        while True:
            await self._something.wait()
            jobs = self._take()
            if jobs:
                alone = self._idle == len(self._lanes) and (self._idle == 1 or not self._waiting)
                self._idle -= 1
                try:
                    await self._computed(jobs, alone)
                finally:
                    self._idle += 1

    def _take(self) -> list[_Job[Photo, Answer]]:
        """What waits, shared with the other threads that are idle."""
        jobs: list[_Job[Photo, Answer]] = []
        share = min(self._most, -(-len(self._waiting) // self._idle))
        while self._waiting and len(jobs) < share:
            job = self._waiting.popleft()
            if not job.taken.done():  # else nobody waits for it any more
                job.taken.set_result(None)
                jobs.append(job)
        if not self._waiting:
            self._something.clear()
        return jobs

    async def _computed(self, jobs: Sequence[_Job[Photo, Answer]], alone: bool) -> None:
        photos, started = [job.photo for job in jobs], perf_counter()
        try:
            answers = await self._loop.run_in_executor(self._threads, self._compute, photos, alone)
            self._on_batch(len(jobs), perf_counter() - started, alone)
            pairs = list(zip(jobs, answers, strict=True))
        except Exception as error:  # whatever it is, those who wait have to hear of it, and the next ones be answered
            for job in jobs:
                if not job.answer.done():
                    job.answer.set_exception(error)
            return
        for job, answer in pairs:
            if not job.answer.done():
                job.answer.set_result(answer)


def worthwhile(compute: Callable[[Sequence[Photo]], object], photo: Photo) -> tuple[int, float]:
    """How many photos to compute together, and seconds for each then: the fewest that cost next to the least each.

    Larger batches are tried for as long as one takes less than LONGEST.
    """
    costs = {1: _cost(compute, [photo])}
    while (size := 2 * max(costs)) <= LARGEST and size * costs[size // 2] < LONGEST:
        costs[size] = _cost(compute, [photo] * size)
    best = min(costs.values())
    return next((size, cost) for size, cost in costs.items() if cost <= NEXT_TO * best)


def _cost(compute: Callable[[Sequence[Photo]], object], photos: Sequence[Photo]) -> float:
    """Seconds for each photo, of the quickest try: whatever else the machine does only adds to it."""
    found = []
    for _ in range(TRIES):
        started = perf_counter()
        compute(photos)
        found.append((perf_counter() - started) / len(photos))
    return min(found)
