"""A growing log read as it grows, each line once; and curves of any length in a bounded number of points."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 1 << 20  # bytes read at a time; a longer line is no line of a log
MOST = 4 << 20  # bytes taken in at one look: about 40,000 lines
KNOWN = 64  # bytes before the place reached that must still be there: a log that was cut back may have grown again
POINTS = 400  # of a curve: about as many as it is wide

Record = dict[str, Any]
Stamp = tuple[int, int, int]  # inode, length, time of the last change in nanoseconds


@dataclass(frozen=True)
class News:
    """What a log has to say since the last look; with `anew`, what was read before no longer holds."""

    records: tuple[Record, ...] = ()
    anew: bool = False


class Tail:
    """The complete lines of a log of JSON, each given once. Nothing is ever written, and no error is raised.

    A last line without its end is left for the next look. A log that is cut back, replaced or gone begins anew.
    `damaged` counts lines that are no JSON object, `taken` all bytes that were read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = self.taken = 0
        self.behind = False  # whether there is more than one look takes in
        self._stamp: Stamp | None = None
        self._offset, self._known = 0, b""

    @property
    def changed(self) -> float | None:
        """When the log was last written to, in seconds since 1970; None where there is none."""
        return None if self._stamp is None else self._stamp[2] / 1e9

    def news(self) -> News:
        """What was written since the last look."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe is not waited for
        except OSError:
            return self._gone()
        try:
            return self._read(descriptor)
        except OSError:
            return News()
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int) -> News:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return self._gone()
        before, self._stamp = self._stamp, (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._stamp == before and not self.behind:
            return News()
        anew = self._offset > 0 and not self._as_before(descriptor, before, status)
        if anew:
            self._forget()
        return News(tuple(self._lines(descriptor)), anew)

    def _as_before(self, descriptor: int, before: Stamp | None, status: os.stat_result) -> bool:
        """Whether what was read still stands there."""
        if before is None or before[0] != status.st_ino or status.st_size < self._offset:
            return False
        return os.pread(descriptor, len(self._known), self._offset - len(self._known)) == self._known

    def _lines(self, descriptor: int) -> Iterator[Record]:
        self.behind, stop = True, self._offset + MOST
        while self._offset < stop:
            block = os.pread(descriptor, BLOCK, self._offset)
            self.taken += len(block)
            end = block.rfind(b"\n") + 1
            if not end and len(block) < BLOCK:  # nothing, or a line that is being written
                self.behind = False
                return
            block = block[: end or BLOCK]
            self._offset += len(block)
            self._known = (self._known + block)[-KNOWN:]
            yield from self._records(block)

    def _records(self, block: bytes) -> Iterator[Record]:
        for line in filter(None, block.decode(errors="replace").split("\n")):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict):
                yield record
            else:
                self.damaged += 1

    def _gone(self) -> News:
        anew = self._offset > 0
        self._forget()
        self._stamp = None
        return News(anew=anew)

    def _forget(self) -> None:
        self._offset, self._known, self.damaged, self.behind = 0, b"", 0, False


@dataclass
class _Bucket:
    """Neighbouring points: the sum of their steps and values, the lowest and the highest value, and their number."""

    steps: float
    values: float
    low: float
    high: float
    n: int = 1

    def take(self, other: _Bucket) -> None:
        self.steps, self.values, self.n = self.steps + other.steps, self.values + other.values, self.n + other.n
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


@dataclass
class Curve:
    """Values by step, at most `most` points of them: where there are more, neighbours become one, twice as many each.

    `best` holds the (step, value) of the highest value, exactly, and of equal ones the first.
    """

    most: int = POINTS
    best: tuple[int, float] | None = None
    _buckets: list[_Bucket] = field(default_factory=list)
    _width: int = 1  # values in a full bucket

    def add(self, step: int, value: object) -> None:
        """Take a value in; what is no finite number is passed over."""
        number = finite(value)
        if number is None:
            return
        if self.best is None or number > self.best[1]:
            self.best = (step, number)
        point = _Bucket(step, number, number, number)
        if self._buckets and self._buckets[-1].n < self._width:
            self._buckets[-1].take(point)
        else:
            self._buckets.append(point)
        if len(self._buckets) > self.most:
            self._halve()

    def means(self) -> list[list[float]]:
        """[step, mean] of every point."""
        return [[round(b.steps / b.n), shortened(b.values / b.n)] for b in self._buckets]

    def spans(self) -> list[list[float]]:
        """[step, mean, lowest, highest] of every point."""
        return [
            [*mean, shortened(b.low), shortened(b.high)] for mean, b in zip(self.means(), self._buckets, strict=True)
        ]

    def _halve(self) -> None:
        for left, right in zip(self._buckets[::2], self._buckets[1::2], strict=False):
            left.take(right)
        self._buckets, self._width = self._buckets[::2], 2 * self._width


def finite(value: object) -> float | None:
    """A number as it stands in JSON; None for anything else, NaN and infinity included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number of 400 digits
        return None
    return number if math.isfinite(number) else None


def whole(value: object) -> int | None:
    """A whole number from 0 up to what a file can count; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else None


def shortened(value: float) -> float:
    """Five digits, more than any screen shows."""
    return float(f"{value:.5g}")
