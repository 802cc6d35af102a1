"""Batches computed side by side, each by threads of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Key = TypeVar("Key")
Batch = TypeVar("Batch")
Answer = TypeVar("Answer")


def side_by_side(
    compute: Callable[[Batch], Answer], batches: Iterable[tuple[Key, Batch]], streams: int
) -> Iterator[tuple[Key, Answer]]:
    """(key, compute(batch)) for every batch, in order; `streams` are computed at a time, each by its share of threads.

    Where that is one thread, none waits for another within a layer, and none spins while others decode photos. At most
    `streams` + 1 batches are read ahead of the answers.
    """
    threads, waiting = torch.get_num_threads(), deque[tuple[Key, Future[Answer]]]()
    share = (max(1, threads // streams),)
    with ThreadPoolExecutor(streams, "plusx-stream", initializer=torch.set_num_threads, initargs=share) as pool:
        try:
            for key, batch in batches:
                waiting.append((key, pool.submit(compute, batch)))
                if len(waiting) > streams:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            for _, future in waiting:
                future.cancel()
            torch.set_num_threads(threads)  # a thread's setting is also what threads started later begin with


def _first(waiting: deque[tuple[Key, Future[Answer]]]) -> tuple[Key, Answer]:
    key, future = waiting.popleft()
    return key, future.result()
