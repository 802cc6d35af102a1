"""Photos mixed within a window of archives: every photo once, a function of seed and epoch, the archives in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from plusx.data import ahead as ahead_module
from plusx.data.ahead import Ahead
from plusx.data.loader import Order
from plusx.data.windows import Indices, Supply, Window
from plusx.errors import DataError, UsageError
from plusx.recipes.resolve import resolve
from plusx.verbs.windowed import deviation

COUNTS = (30, 7, 25, 40, 11, 3, 60, 24, 50, 33)


def archives(counts: tuple[int, ...] = COUNTS) -> Indices:
    return np.repeat(np.arange(len(counts)), counts)


def epoch_of(order: Order, epoch: int, n: int) -> Indices:
    labels, steps = np.zeros(n, np.int64), order.steps_per_epoch(n)
    return np.concatenate([order.indices(step, labels) for step in range(epoch * steps, (epoch + 1) * steps)])


@pytest.mark.parametrize("size", [1, 3, 10, 99])
def test_every_photo_is_seen_once_an_epoch_and_epochs_differ(size: int) -> None:
    window = Window(archives(), size)
    order = Order(seed=3, batch_size=16, window=window)
    first, second = (epoch_of(order, epoch, len(window.archives)) for epoch in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(len(window.archives)))
    assert first.tolist() != second.tolist()


def test_photos_of_one_window_come_together_and_in_mixed_order() -> None:
    window = Window(archives(), 3)
    order, start = window.order(seed=5, epoch=2), 0
    for group in window.groups(seed=5, epoch=2):
        photos = order[start : start + sum(COUNTS[a] for a in group)]
        assert set(window.archives[photos].tolist()) == set(group.tolist())
        assert len(photos) < 20 or (np.diff(photos) < 0).any()
        start += len(photos)
    assert start == len(order)


def test_the_order_is_a_function_of_seed_and_epoch_and_of_nothing_else() -> None:
    one, other = (Window(archives(), 3) for _ in range(2))
    assert one.order(5, 2).tolist() == other.order(5, 2).tolist()
    assert one.order(5, 2).tolist() != one.order(6, 2).tolist()


def test_a_window_of_all_is_the_order_without_one() -> None:
    """So photos in no archive, which count as one, are mixed as ever."""
    whole = Order(seed=3, batch_size=16, window=Window(np.zeros(100, np.int64), 1))
    assert epoch_of(whole, 1, 100).tolist() == epoch_of(Order(seed=3, batch_size=16), 1, 100).tolist()


def test_the_mix_of_classes_is_told_by_how_archives_were_made() -> None:
    """20 archives of 100 photos, two classes of equal number, windows of 4: random against sorted by class."""
    labels = np.repeat([0, 1], 1000)
    made = np.arange(2000) // 100
    drawn = np.random.default_rng(0).permutation(made)
    assert deviation(Window(drawn, 4), labels, seed=1) < 0.05
    assert deviation(Window(made, 4), labels, seed=1) >= 0.25
    assert deviation(Window(made, 20), labels, seed=1) == 0


def test_balancing_within_a_window_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        resolve({"epochs": 1}, sets=["window=2", "sampling=balanced"], environment={})
    assert caught.value.message == (
        "sampling=balanced draws from all of DATA, and a window lets photos of a few archives meet only; "
        "set window=null or sampling=shuffle."
    )


def test_what_has_to_be_at_hand_is_two_windows_or_what_a_large_batch_touches() -> None:
    window, sizes = Window(np.repeat(np.arange(6), 100), 2), np.full(6, 1000)
    assert window.most(sizes, batch_size=64) == 4000
    assert window.most(sizes, batch_size=202) == 6000
    assert Window(np.repeat(np.arange(7), [100] * 6 + [10]), 3).most(np.full(7, 1000), batch_size=64) == 7000


class Shelf:
    """Archives without a network: who has them open, and the order in which they were fetched."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.most = 0
        self.broken: set[str] = set()
        self.lock = threading.Lock()

    def opened(self, url: str) -> Path:
        with self.lock:
            if url in self.broken:
                raise DataError(f"{url} is lost", code="no-network")
            self.open.append(url)
            self.fetched.append(url)
            self.most = max(self.most, len(self.open))
        return Path(url)

    def let_go(self, url: str) -> None:
        with self.lock:
            self.open.remove(url)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    made = Shelf()
    monkeypatch.setattr(ahead_module, "shards", made)
    yield made
    for thread in threading.enumerate():
        if thread.name == "plusx-ahead":
            thread.join(60)
            assert not thread.is_alive()


def test_what_a_step_reads_is_there_and_no_more_than_two_windows_are(shelf: Shelf) -> None:
    window, order = Window(archives((40,) * 10), 2), Order(seed=1, batch_size=16)
    steps = order.steps_per_epoch(400)
    supply = Supply(window, [str(a) for a in range(10)], 1, 16, steps)
    for step in range(2 * steps):
        supply.at(step)
        shown = window.archives[Order(1, 16, window=window).indices(step, np.zeros(400, np.int64))]
        assert {str(a) for a in shown} <= set(shelf.open)
    supply.close()
    assert shelf.most <= 4
    assert len(shelf.fetched) <= 22, "each archive once an epoch, and the next window"


def test_the_next_window_is_fetched_while_this_one_is_read(shelf: Shelf) -> None:
    window = Window(archives((40,) * 4), 1)
    supply = Supply(window, [str(a) for a in range(4)], 1, 16, 10)
    supply.at(0)
    groups = [str(group[0]) for group in window.groups(1, 0)]
    for _ in range(6000):
        if len(shelf.fetched) == 2:
            break
        threading.Event().wait(0.01)
    assert shelf.fetched == groups[:2]
    supply.close()


def test_what_went_wrong_ahead_is_raised_where_the_archive_is_needed_and_tried_again_then(shelf: Shelf) -> None:
    window = Window(archives((16,) * 4), 1)
    second = str(window.groups(1, 0)[1][0])
    supply = Supply(window, [str(a) for a in range(4)], 1, 16, 4)
    shelf.broken = {second}
    supply.at(0)
    with pytest.raises(DataError, match=f"{second} is lost"):
        supply.at(1)
    shelf.broken = set()
    supply.at(1)
    assert second in shelf.open
    supply.close()


def test_what_is_let_go_before_it_was_begun_is_not_fetched(shelf: Shelf) -> None:
    ahead = Ahead()
    ahead.let_go("never")
    assert ahead.path("now") == Path("now")
    assert shelf.open == ["now"]
    ahead.close()
    assert shelf.open == []
