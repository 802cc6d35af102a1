"""Who computes what: a photo alone has all cores, several have one each, and nobody waits while a core is idle."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from plusx.serve.batching import Batcher, worthwhile


class Slow:
    """A network that computes for as long as it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[int, ...], bool]] = []
        self.go = threading.Event()

    def __call__(self, photos: Sequence[int], alone: bool) -> Sequence[int]:
        self.asked.append((tuple(photos), alone))
        if not self.go.wait(20):
            raise TimeoutError("nobody let it go on")
        return [10 * photo for photo in photos]


def ready(photo: int) -> Callable[[], Awaitable[int]]:
    async def prepare() -> int:
        return photo

    return prepare


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


def answers(
    photos: Sequence[int], lanes: int, most: int, one_by_one: bool = False
) -> tuple[list[int], list[tuple[tuple[int, ...], bool]], list[tuple[int, bool]]]:
    """Answers, what was asked before anything was done, and what was heard of batches."""
    network, heard = Slow(), list[tuple[int, bool]]()

    async def ask() -> list[int]:
        batcher: Batcher[int, int] = Batcher(network, most, 32, lambda n, _, alone: heard.append((n, alone)), lanes)
        tasks = []
        for photo in photos:
            tasks.append(asyncio.create_task(batcher.answer(ready(photo))))
            if one_by_one:
                before = len(network.asked)
                await until(lambda before=before: len(network.asked) > before or len(network.asked) == lanes)  # type: ignore[misc]
        await until(lambda: len(network.asked) == min(lanes, len(photos)))
        first.extend(network.asked)
        network.go.set()
        found = await asyncio.gather(*tasks)
        await batcher.close()
        return found

    first: list[tuple[tuple[int, ...], bool]] = []
    found = asyncio.run(ask())
    return found, first, heard


def test_a_photo_that_comes_while_nothing_is_computed_has_all_cores() -> None:
    found, first, heard = answers([1], lanes=2, most=2)
    assert (found, first, heard) == ([10], [((1,), True)], [(1, True)])


def test_photos_that_come_together_are_shared_by_the_cores() -> None:
    found, first, heard = answers([1, 2, 3, 4, 5, 6, 7], lanes=2, most=2)
    assert found == [10, 20, 30, 40, 50, 60, 70]
    assert sorted(first) == [((1, 2), False), ((3, 4), False)]
    assert sum(photos for photos, _ in heard) == 7
    assert max(photos for photos, _ in heard) == 2


def test_two_photos_are_computed_beside_each_other_though_one_core_could_take_both() -> None:
    _, first, _ = answers([1, 2], lanes=2, most=8)
    assert sorted(first) == [((1,), False), ((2,), False)]


def test_a_photo_does_not_wait_for_one_that_is_computed_while_a_core_is_idle() -> None:
    _, first, _ = answers([1, 2, 3], lanes=2, most=2, one_by_one=True)
    assert first == [((1,), True), ((2,), False)]


def test_with_a_single_thread_all_that_waits_is_one_batch_and_is_alone() -> None:
    found, first, heard = answers([1, 2, 3, 4, 5], lanes=1, most=3)
    assert found == [10, 20, 30, 40, 50]
    assert first == [((1, 2, 3), True)]
    assert heard == [(3, True), (2, True)]


def test_what_the_network_raises_comes_to_those_who_asked_and_to_nobody_else() -> None:
    def compute(photos: Sequence[int], _: bool) -> Sequence[int]:
        if 13 in photos:
            raise ValueError("unlucky")
        return list(photos)

    async def ask() -> list[int | BaseException]:
        batcher: Batcher[int, int] = Batcher(compute, 1, 8, lambda *_: None, 2)
        found = await asyncio.gather(*(batcher.answer(ready(n)) for n in (1, 13, 2)), return_exceptions=True)
        await batcher.close()
        return found

    one, unlucky, two = asyncio.run(ask())
    assert (one, two) == (1, 2)
    assert str(unlucky) == "unlucky"


def test_a_photo_that_nobody_waits_for_is_not_computed() -> None:
    network = Slow()

    async def ask() -> int:
        batcher: Batcher[int, int] = Batcher(network, 1, 8, lambda *_: None)
        first, left, last = (asyncio.create_task(batcher.answer(ready(n))) for n in (1, 2, 3))
        await until(lambda: len(network.asked) == 1)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        network.go.set()
        await first
        found = await last
        await batcher.close()
        return found

    assert asyncio.run(ask()) == 30
    assert [photos for photos, _ in network.asked] == [(1,), (3,)]


@pytest.mark.parametrize(("each", "once", "size"), [(0.001, 0.004, 32), (0.004, 0.0, 1)])
def test_as_many_as_are_worth_it_are_computed_together(
    each: float, once: float, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("plusx.serve.batching.perf_counter", lambda: clock[0])

    def compute(photos: Sequence[int]) -> None:
        clock[0] += once + each * len(photos)

    found, cost = worthwhile(compute, 0)
    assert found == size
    assert cost == pytest.approx(each + once / size)
