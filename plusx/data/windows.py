"""The order of photos that lie in archives, mixed within a window of so many; and these archives at hand in time.

Each epoch takes the archives in a keyed order, so many at a time, and the photos of those in a keyed order: every photo
exactly once, as a pure function of seed and epoch. Only photos of one window meet in a batch. That is as good as mixing
all of them where each archive is a random sample of DATA, and bad where archives are sorted by class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from plusx import keyed
from plusx.data.ahead import Ahead

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Window:
    """`archives` [n] says in which archive each sample lies, numbered from 0; `size` of them are mixed."""

    archives: Indices
    size: int

    @property
    def count(self) -> int:
        """How many archives there are."""
        return int(self.archives.max()) + 1 if len(self.archives) else 0

    def order(self, seed: int, epoch: int) -> Indices:
        """The samples of an epoch in the order in which they are seen, shape [n]."""
        return _order(self, seed, epoch)

    def groups(self, seed: int, epoch: int) -> list[Indices]:
        """The archives of an epoch as they are taken: so many together, the last time perhaps fewer."""
        taken = keyed.permutation(seed, epoch, self.count, "archives")
        return [taken[i : i + self.size] for i in range(0, len(taken), self.size)]

    def most(self, sizes: npt.NDArray[np.int64], batch_size: int) -> int:
        """The most bytes that have to be at hand at a time; `sizes` [archives] are theirs.

        Those are two windows, one read and the next one fetched, or as many as one batch can touch, if it is large.
        """
        photos = np.sort(np.bincount(self.archives, minlength=self.count))
        rest = self.count % self.size
        touched = 2 + (batch_size - 2) // max(1, int(photos[: self.size].sum()))
        touched += rest > 0 and photos[:rest].sum() < batch_size - 1  # the last window of an epoch, in the middle of it
        return int(np.sort(sizes)[::-1][: touched * self.size].sum())


@lru_cache(maxsize=4)
def _order(window: Window, seed: int, epoch: int) -> Indices:
    taken = keyed.permutation(seed, epoch, window.count, "archives")
    group = np.empty(len(taken), np.int64)
    group[taken] = np.arange(len(taken)) // window.size
    keys = keyed.words(seed, epoch, np.arange(len(window.archives)), "order")[:, 0]
    return np.lexsort((keys, group[window.archives]))


class Supply:
    """The archives of the windows that are trained on, at hand as local files; one thread fetches those of the next.

    `urls` are those of the archives by number, "" for what is at hand anyway. Asked by one thread, for one step after
    the other; another step is as right, and only slower.
    """

    def __init__(self, window: Window, urls: Sequence[str], seed: int, batch_size: int, steps_per_epoch: int) -> None:
        self._window, self._urls, self._seed = window, urls, seed
        self._batch, self._steps = batch_size, steps_per_epoch
        self._ahead = Ahead()

    def at(self, step: int) -> None:
        """Wait until what `step` reads is there. Raises DataError where it cannot be had."""
        epoch, place = divmod(step, self._steps)
        ends = np.cumsum([0, *(self._photos_in(group) for group in self._groups(epoch))])
        first = np.searchsorted(ends, place * self._batch, "right") - 1
        stop = len(self._window.archives) if place == self._steps - 1 else (place + 1) * self._batch
        last = np.searchsorted(ends, stop - 1, "right") - 1
        current = [url for group in self._groups(epoch)[first : last + 1] for url in self._urls_of(group)]
        following = self._urls_of(self._group_after(epoch, int(last))) if first == last else []
        self._only([*current, *following])
        for url in current:
            self._ahead.path(url)

    def close(self) -> None:
        """Let go of all of them."""
        self._ahead.close()

    def _only(self, wanted: Sequence[str]) -> None:
        """Let go of what is needed no more, and fetch what is missing."""
        for url in set(self._ahead.wanted).difference(wanted):
            self._ahead.let_go(url)
        self._ahead.want(wanted)

    def _group_after(self, epoch: int, number: int) -> Indices:
        groups = self._groups(epoch)
        return groups[number + 1] if number + 1 < len(groups) else self._groups(epoch + 1)[0]

    def _groups(self, epoch: int) -> list[Indices]:
        return _groups(self._window, self._seed, epoch)

    def _photos_in(self, group: Indices) -> int:
        return int(_counts(self._window)[group].sum())

    def _urls_of(self, group: Indices) -> list[str]:
        return [self._urls[number] for number in group if self._urls[number]]


class NoSupply:
    """Where every photo is at hand."""

    def at(self, step: int) -> None:
        """Nothing has to be waited for."""

    def close(self) -> None:
        """Nothing is held."""


@lru_cache(maxsize=4)
def _groups(window: Window, seed: int, epoch: int) -> list[Indices]:
    return window.groups(seed, epoch)


@lru_cache(maxsize=2)
def _counts(window: Window) -> Indices:
    """How many samples each archive has."""
    return np.bincount(window.archives, minlength=window.count)
