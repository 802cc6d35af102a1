"""Batches as a pure function of the step: which photos, in which order, augmented how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plusx import keyed
from plusx.data import augment
from plusx.data.augment import Augment
from plusx.data.reading import Waiting
from plusx.data.windows import NoSupply, Supply, Window

Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


class Store(Protocol):
    """Decoded photos by position."""

    def read(self, rows: Indices) -> Pixels:
        """uint8 [n, S, S, 3]."""


@dataclass
class Batch:
    """Images [b, 3, H, W], uint8 or floats on 0..255; targets int64 [b] or float32 [b, C]; sample indices [B].

    The indices are those of the whole batch; `shares` is how many photos of it each process has, as `deal` says.
    """

    images: Tensor
    targets: Tensor
    indices: Indices
    shares: tuple[int, ...]


def deal(n: int, size: int) -> list[Indices]:
    """The positions in a batch of n photos that each of `size` processes computes, ascending, [b] each.

    Mixing blends position i with n - 1 - i: such pairs stay together, and a share that is turned round still has
    every photo over its partner. Of fewer pairs than processes some would get none, which no network can compute:
    every process then has the whole batch, and counts for as much less.
    """
    pairs = np.minimum(np.arange(n), np.arange(n)[::-1])
    if (n + 1) // 2 < size:
        return [np.arange(n)] * size
    return [np.nonzero(pairs % size == rank)[0] for rank in range(size)]


@dataclass(frozen=True)
class Part:
    """Where batches are computed: on a device of the process `rank` of `size`."""

    device: torch.device
    rank: int = 0
    size: int = 1

    def of(self, n: int) -> Indices:
        """The positions in a batch of n photos that this process has."""
        return np.arange(n) if self.size == 1 else deal(n, self.size)[self.rank]

    def shares(self, n: int) -> tuple[int, ...]:
        """How many photos of a batch each process has."""
        return (n,) if self.size == 1 else tuple(map(len, deal(n, self.size)))


@dataclass(frozen=True)
class Order:
    """Which samples a step sees. `sampling` is "shuffle" or "balanced" (every class equally often).

    With `merge_lone` a last batch of one sample joins the one before it. With a `window` photos are mixed within it.
    """

    seed: int
    batch_size: int
    drop_last: bool = False
    sampling: str = "shuffle"
    merge_lone: bool = False
    window: Window | None = None

    def steps_per_epoch(self, n: int) -> int:
        """Steps in which all n samples are seen once."""
        whole, rest = divmod(n, self.batch_size)
        left_out = self.drop_last or (self.merge_lone and rest == 1)
        return max(1, whole + (rest > 0 and not left_out))

    def indices(self, step: int, labels: Indices) -> Indices:
        """The samples of `step`, shape [B]; the last batch of an epoch may be smaller."""
        epoch = step // self.steps_per_epoch(len(labels))
        if self.sampling == "balanced":
            order = _balanced_order(self.seed, epoch, labels.tobytes())
        elif self.window is not None:
            order = self.window.order(self.seed, epoch)
        else:
            order = _shuffled_order(self.seed, epoch, len(labels))
        return order[self._places(step, len(labels))]

    def appearances(self, step: int, labels: Indices) -> Indices:
        """A number for each sample of `step`, shape [B]: its index, or another where it comes again in an epoch.

        What is drawn by it differs each time that balancing repeats a sample.
        """
        indices = self.indices(step, labels)
        if self.sampling != "balanced":
            return indices
        epoch = step // self.steps_per_epoch(len(labels))
        before = _repeats(self.seed, epoch, labels.tobytes())[self._places(step, len(labels))]
        return indices + len(labels) * before

    def _places(self, step: int, n: int) -> slice:
        """Where `step` lies in the order of its epoch."""
        steps = self.steps_per_epoch(n)
        place = step % steps
        end = None if place == steps - 1 and not self.drop_last else (place + 1) * self.batch_size
        return slice(place * self.batch_size, end)


class Batches:
    """The training photos of a run as batches; `batch(step)` gives the same whoever asks and whenever.

    Sample i has label `labels[i]`, lies at `rows[i]` of the store and is called `names[i]`. While a step
    computes, one thread reads the pixels of the next. Of several processes each reads and augments its own `part`.
    """

    def __init__(
        self,
        store: Store,
        samples: Samples,
        order: Order,
        augment: Augment,
        size_at: Callable[[int], int],
        part: Part | torch.device,
    ) -> None:
        self._store, self._samples, self._order = store, samples, order
        self._augment, self._size_at = augment, size_at
        self._part = part if isinstance(part, Part) else Part(part)
        self.steps_per_epoch = order.steps_per_epoch(len(samples.labels))
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="plusx-batches")
        self._ahead: _Asked | None = None
        self._supply: Supply | NoSupply = NoSupply()
        self._waiting: Waiting = nullcontext

    def supplied_by(self, supply: Supply | NoSupply, waiting: Waiting = nullcontext) -> Batches:
        """The same, once what `supply` has to fetch for a step is there before that step is read.

        `waiting` is entered while somebody waits for that, and for nothing else.
        """
        self._supply, self._waiting = supply, waiting
        return self

    def batch(self, step: int) -> Batch:
        """The batch of `step`, augmented, on the device."""
        return self.augmented(self.pixels(step), step)

    def whole(self, step: int) -> Batch:
        """The batch of `step` with all its photos, however many processes share it."""
        if self._part.size == 1:
            return self.batch(step)
        alone = replace(self._part, rank=0, size=1)
        return self._made(self._asked(step, alone).pixels(self._waiting), step, alone)

    def pixels(self, step: int) -> Pixels:
        """The photos of `step` as they are stored, uint8 [b, S, S, 3]; from here on those of the next are read."""
        pixels = self._read_or_wait(step)
        self._ahead = self._asked(step + 1, self._part)
        return pixels

    def augmented(self, pixels: Pixels, step: int) -> Batch:
        """The batch that the photos of `step` make."""
        return self._made(pixels, step, self._part)

    def name(self, index: int) -> str:
        """The photo behind a sample index."""
        return self._samples.names[index]

    def close(self) -> None:
        """Stop reading ahead; nothing that is being fetched is waited for."""
        self._supply.close()  # first: the reader may wait for it
        self._reader.shutdown(wait=True, cancel_futures=True)

    def _made(self, pixels: Pixels, step: int, part: Part) -> Batch:
        indices = self._order.indices(step, self._samples.labels)
        ours, shares = part.of(len(indices)), part.shares(len(indices))
        images = torch.from_numpy(pixels).to(part.device).permute(0, 3, 1, 2)  # [b, 3, S, S], channels last
        targets = torch.from_numpy(self._samples.labels[indices[ours]]).to(part.device)
        shown = self._order.appearances(step, self._samples.labels)[ours]
        parameters = augment.draw(self._augment, self._order.seed, step // self.steps_per_epoch, shown, step)
        classes, size = self._samples.classes, self._size_at(step)
        return Batch(*augment.apply(images, targets, self._augment, parameters, size, classes), indices, shares)

    def _read_or_wait(self, step: int) -> Pixels:
        """The pixels of `step`; read by the one thread that reads, since a streaming store has one reader."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.step != step:
            ahead.cancel()
            ahead = None
        return (ahead or self._asked(step, self._part)).pixels(self._waiting)

    def _asked(self, step: int, part: Part) -> _Asked:
        supplied = self._reader.submit(self._supply.at, step)
        return _Asked(step, supplied, self._reader.submit(self._read, step, part, supplied))

    def _read(self, step: int, part: Part, supplied: Future[None]) -> Pixels:
        supplied.result()  # done, for it was asked of the same thread before; raises what went wrong
        indices = self._order.indices(step, self._samples.labels)
        return self._store.read(self._samples.rows[indices[part.of(len(indices))]])


@dataclass(frozen=True)
class _Asked:
    """A step that is read: its photos are at hand first, then they are pixels."""

    step: int
    supplied: Future[None]
    read: Future[Pixels]

    def pixels(self, waiting: Waiting) -> Pixels:
        """The pixels, once they are there. Raises what went wrong."""
        with waiting():
            self.supplied.result()
        return self.read.result()

    def cancel(self) -> None:
        """Nobody needs them any more."""
        self.read.cancel()
        self.supplied.cancel()


@dataclass(frozen=True)
class Samples:
    """What is trained on: labels [n], rows of the store [n], names, and the number of classes."""

    labels: Indices
    rows: Indices
    names: Sequence[str]
    classes: int


def in_order(store: Store, rows: Indices, batch_size: int) -> Iterator[Pixels]:
    """The pixels at `rows`, `batch_size` at a time, for validation and test."""
    for start in range(0, len(rows), batch_size):
        yield store.read(rows[start : start + batch_size])


@lru_cache(maxsize=4)
def _shuffled_order(seed: int, epoch: int, n: int) -> Indices:
    return keyed.permutation(seed, epoch, n)


@lru_cache(maxsize=4)
def _balanced_order(seed: int, epoch: int, labels: bytes) -> Indices:
    return _balanced(seed, epoch, np.frombuffer(labels, dtype=np.int64))


@lru_cache(maxsize=4)
def _repeats(seed: int, epoch: int, labels: bytes) -> Indices:
    """How often the sample at each place of the balanced order was seen before in the epoch, shape [n]."""
    order = _balanced_order(seed, epoch, labels)
    by_sample = np.argsort(order, kind="stable")
    _, starts, counts = np.unique(order[by_sample], return_index=True, return_counts=True)
    before = np.empty_like(order)
    before[by_sample] = np.arange(len(order)) - np.repeat(starts, counts)
    return before


def _balanced(seed: int, epoch: int, labels: Indices) -> Indices:
    """As many draws as samples, equally many of each class; no photo comes again before all of its class did."""
    classes = np.unique(labels)
    share = -(-len(labels) // len(classes))
    drawn = [_repeated(seed, epoch, np.nonzero(labels == c)[0], share, int(c)) for c in classes]
    together = np.concatenate(drawn)
    return together[keyed.permutation(seed, epoch, len(together), "balanced")][: len(labels)]


def _repeated(seed: int, epoch: int, members: Indices, count: int, label: int) -> Indices:
    rounds = -(-count // len(members))
    orders = [members[keyed.permutation(seed, epoch, len(members), f"class-{label}-{r}")] for r in range(rounds)]
    return np.concatenate(orders)[:count]
