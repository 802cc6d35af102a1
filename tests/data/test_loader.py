"""Batches are a function of the step: asked in any order, read ahead or not, they are the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from plusx.data import loader
from plusx.data.augment import Augment
from plusx.data.loader import Batch, Batches, Order, Part, Samples, deal, in_order

CPU = torch.device("cpu")
FULL = Augment(flip="alternating", crop_scale=(0.4, 1.0), mixup=0.2)


class Shelf:
    """A store in memory that counts its readers and may fail."""

    def __init__(self, n: int, size: int = 8) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
        self.reads: list[npt.NDArray[np.int64]] = []
        self.threads: set[str] = set()
        self.fails = False

    def read(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        self.threads.add(threading.current_thread().name)
        self.reads.append(rows)
        if self.fails:
            raise OSError("the disk is gone")
        return self.pixels[rows]


def batches_of(
    store: Shelf,
    order: Order,
    augment: Augment | None = None,
    *,
    n: int | None = None,
    sizes: Sequence[int] = (8,),
    part: Part | torch.device = CPU,
) -> Batches:
    n = len(store.pixels) if n is None else n
    rows = np.arange(len(store.pixels))[::-1][:n].copy()  # sample i lies at row -1 - i
    samples = Samples(np.arange(n) % 3, rows, [f"{i}.jpg" for i in range(n)], 3)
    return Batches(store, samples, order, augment or Augment(), lambda step: sizes[min(step, len(sizes) - 1)], part)


def assert_equal(a: Batch, b: Batch) -> None:
    assert torch.equal(a.images, b.images)
    assert torch.equal(a.targets, b.targets)
    np.testing.assert_array_equal(a.indices, b.indices)


def test_an_epoch_shows_every_photo_once_and_keeps_the_last_partial_batch() -> None:
    order, labels = Order(seed=3, batch_size=8), np.zeros(21, dtype=np.int64)
    assert order.steps_per_epoch(21) == 3
    for epoch in range(3):
        seen = [order.indices(3 * epoch + i, labels) for i in range(3)]
        assert [len(s) for s in seen] == [8, 8, 5]
        assert sorted(np.concatenate(seen)) == list(range(21))
    assert not np.array_equal(order.indices(0, labels), order.indices(3, labels))


def test_dropping_the_last_batch_leaves_whole_ones() -> None:
    order = Order(seed=3, batch_size=8, drop_last=True)
    assert order.steps_per_epoch(21) == 2
    assert [len(order.indices(step, np.zeros(21, dtype=np.int64))) for step in range(5)] == [8] * 5
    assert order.steps_per_epoch(5) == 1  # fewer photos than a batch are still one


@pytest.mark.parametrize(("n", "sizes"), [(17, [8, 9]), (16, [8, 8]), (18, [8, 8, 2]), (1, [1]), (9, [9])])
def test_a_last_batch_of_one_may_join_the_one_before(n: int, sizes: list[int]) -> None:
    order, labels = Order(0, 8, merge_lone=True), np.zeros(n, dtype=np.int64)
    steps = order.steps_per_epoch(n)
    for epoch in range(2):
        found = [order.indices(epoch * steps + step, labels) for step in range(steps)]
        assert [len(indices) for indices in found] == sizes
        assert sorted(np.concatenate(found)) == list(range(n))


def test_another_seed_is_another_order() -> None:
    labels = np.zeros(50, dtype=np.int64)
    assert not np.array_equal(Order(0, 50).indices(0, labels), Order(1, 50).indices(0, labels))


def test_balanced_epochs_show_classes_equally_often_and_each_photo_before_any_again() -> None:
    labels = np.array([0] * 60 + [1] * 20 + [2] * 10)
    order = Order(seed=0, batch_size=90, sampling="balanced")
    for epoch in range(3):
        drawn = order.indices(epoch, labels)
        assert np.bincount(labels[drawn]).tolist() == [30, 30, 30]
        times = np.bincount(drawn, minlength=90)
        assert times[:60].max() == 1
        assert set(times[60:80]) == {1, 2}
        assert set(times[80:]) == {3}
    assert not np.array_equal(order.indices(0, labels), order.indices(1, labels))


def test_a_photo_that_balancing_repeats_looks_different_each_time() -> None:
    labels = np.array([0] * 60 + [1] * 20 + [2] * 10)
    order = Order(seed=0, batch_size=30, sampling="balanced")
    drawn = np.concatenate([order.indices(step, labels) for step in range(3)])
    shown = np.concatenate([order.appearances(step, labels) for step in range(3)])
    assert len(set(shown)) == len(shown) == 90
    assert np.array_equal(shown % 90, drawn)
    assert set(shown[drawn >= 80] // 90) == {0, 1, 2}  # each of ten photos three times
    shuffled = Order(seed=0, batch_size=30)
    assert np.array_equal(shuffled.appearances(1, labels), shuffled.indices(1, labels))


def test_balanced_counts_differ_by_little_where_they_cannot_be_equal() -> None:
    labels = np.array([0] * 70 + [1] * 30)[:-1]
    drawn = Order(seed=0, batch_size=99, sampling="balanced").indices(0, labels)
    assert len(drawn) == 99
    assert sorted(np.bincount(labels[drawn])) == [49, 50]


def test_a_batch_is_the_same_whoever_asks_and_whenever() -> None:
    order = Order(seed=1, batch_size=8)
    batches = batches_of(Shelf(21), order, FULL)
    forward = [batches.batch(step) for step in range(7)]
    for step in (6, 0, 3, 3, 4, 2, 1, 5):
        assert_equal(batches.batch(step), forward[step])
    fresh = batches_of(Shelf(21), order, FULL)
    assert_equal(fresh.batch(5), forward[5])
    batches.close()
    fresh.close()


def test_the_textbook_gets_exactly_the_stored_pixels() -> None:
    store = Shelf(21)
    batches = batches_of(store, Order(seed=1, batch_size=8))
    batch = batches.batch(2)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.images.shape == (5, 3, 8, 8)
    expected = store.pixels[20 - batch.indices].transpose(0, 3, 1, 2)  # sample i lies at row 20 - i
    np.testing.assert_array_equal(batch.images.numpy(), expected)
    assert batch.targets.tolist() == (batch.indices % 3).tolist()
    assert batches.name(int(batch.indices[0])) == f"{batch.indices[0]}.jpg"
    batches.close()


def test_samples_may_be_a_part_of_the_store() -> None:
    store = Shelf(21)
    batches = batches_of(store, Order(seed=0, batch_size=4), n=6)
    assert batches.steps_per_epoch == 2
    for step in range(4):
        batches.batch(step)
    assert min(rows.min() for rows in store.reads) >= 15
    batches.close()


def test_one_thread_reads_and_it_reads_each_step_once() -> None:
    store = Shelf(24)
    batches = batches_of(store, Order(seed=0, batch_size=8))
    for step in range(6):
        batches.batch(step)
    batches.close()
    assert len(store.reads) in (6, 7)  # the seventh may have been read ahead before closing
    assert len({tuple(rows) for rows in store.reads}) == len(store.reads)
    assert len(store.threads) == 1
    assert threading.current_thread().name not in store.threads


def test_a_failure_while_reading_ahead_surfaces_at_its_step() -> None:
    store = Shelf(24)
    batches = batches_of(store, Order(seed=0, batch_size=8))
    batches.batch(0)
    batches.batch(1)
    store.fails = True
    with pytest.raises(OSError, match="the disk is gone"):
        [batches.batch(step) for step in (2, 3)]
    store.fails = False
    assert len(batches.batch(3).images) == 8
    batches.close()


def test_the_size_follows_the_step() -> None:
    batches = batches_of(Shelf(24), Order(seed=0, batch_size=8), FULL, sizes=(6, 6, 8))
    assert [batches.batch(step).images.shape[-1] for step in range(4)] == [6, 6, 8, 8]
    assert batches.batch(0).targets.shape == (8, 3)
    batches.close()


def test_augmentation_knows_the_epoch() -> None:
    store = Shelf(16)
    batches = batches_of(store, Order(seed=0, batch_size=16), Augment(flip="alternating"))
    for epoch in range(2):
        here, there = batches.batch(epoch), batches.batch(epoch + 1)
        back = torch.from_numpy(np.argsort(here.indices)), torch.from_numpy(np.argsort(there.indices))
        assert torch.equal(here.images[back[0]], there.images[back[1]].flip(3))
    batches.close()


def test_evaluation_takes_the_rows_in_order() -> None:
    store, rows = Shelf(24), np.array([5, 3, 9, 0, 22])
    parts = list(in_order(store, rows, 2))
    assert [len(part) for part in parts] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(parts), store.pixels[rows])


def test_orders_are_remembered_for_the_epoch() -> None:
    loader._shuffled_order.cache_clear()
    for step in range(30):
        Order(seed=0, batch_size=10).indices(step, np.zeros(100, dtype=np.int64))
    assert loader._shuffled_order.cache_info().misses == 3


@pytest.mark.parametrize("size", [2, 3, 5])
def test_processes_share_every_batch_and_a_pair_that_is_mixed_stays_together(size: int) -> None:
    """T11: the order is that of one process, every photo once an epoch, and what is done to it is the same."""
    order, augment = Order(seed=3, batch_size=11), replace(FULL, cutmix=1.0)
    whole = batches_of(Shelf(27), order, augment)
    shared = [batches_of(Shelf(27), order, augment, part=Part(CPU, rank, size)) for rank in range(size)]
    for step in range(6):
        batch, parts = whole.batch(step), [one.batch(step) for one in shared]
        dealt = deal(len(batch.indices), size)
        images = torch.empty_like(batch.images)
        for positions, part in zip(dealt, parts, strict=True):
            images[torch.from_numpy(positions)] = part.images
            np.testing.assert_array_equal(part.indices, batch.indices)
            assert torch.equal(part.targets, batch.targets[torch.from_numpy(positions)])
            assert part.shares == tuple(map(len, dealt))
        assert torch.equal(images, batch.images)
        seen = np.sort(np.concatenate(dealt))
        np.testing.assert_array_equal(seen, np.arange(len(batch.indices)).repeat(len(seen) // len(batch.indices)))
    assert_equal(shared[1].whole(2), whole.batch(2))


def test_a_batch_of_fewer_pairs_than_processes_is_computed_by_each() -> None:
    assert [share.tolist() for share in deal(6, 2)] == [[0, 2, 3, 5], [1, 4]]
    assert [share.tolist() for share in deal(5, 3)] == [[0, 4], [1, 3], [2]]
    assert [share.tolist() for share in deal(4, 3)] == [[0, 1, 2, 3]] * 3


class Far:
    """A supply that says when it is asked, and waits until it may answer or is closed."""

    def __init__(self) -> None:
        self.asked, self.may, self.closed = threading.Event(), threading.Event(), threading.Event()

    def at(self, _: int) -> None:
        self.asked.set()
        assert self.may.wait(600)
        if self.closed.is_set():
            raise CancelledError

    def close(self) -> None:
        self.closed.set()
        self.may.set()


def test_closing_waits_for_no_archive_that_is_being_fetched() -> None:
    far = Far()
    batches = batches_of(Shelf(24), Order(seed=0, batch_size=8)).supplied_by(far)  # type: ignore[arg-type]
    far.may.set()
    batches.batch(0)
    far.may.clear()
    far.asked.clear()
    closing = threading.Thread(target=batches.close)
    closing.start()
    closing.join(60)
    ended = not closing.is_alive()
    far.may.set()
    closing.join(60)
    assert ended
    assert far.closed.is_set()


def test_whoever_waits_for_the_network_of_a_batch_is_alone_and_whoever_waits_for_its_reading_is_not() -> None:
    """T15: a slow network makes nobody slow, a slow disk does."""
    far, store, alone = Far(), Shelf(24), [threading.Event(), threading.Event()]
    real, during = store.read, list[bool]()

    @contextmanager
    def waiting() -> Iterator[None]:
        alone[0].set()
        yield
        alone[1].set()

    def read(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        during.append(alone[1].wait(60))
        return real(rows)

    def may() -> None:
        assert alone[0].wait(60), "somebody waits"
        far.may.set()

    store.read = read  # type: ignore[method-assign]
    batches = batches_of(store, Order(seed=0, batch_size=8)).supplied_by(far, waiting)  # type: ignore[arg-type]
    letting = threading.Thread(target=may)
    letting.start()
    batches.batch(0)
    letting.join(60)
    assert during[0]
    batches.close()
