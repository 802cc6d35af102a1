"""What training on many machines costs: a model in a few numbers, in seconds and bytes, without torch.

A message costs a delay and its bytes (the alpha-beta model, Hockney 1994); all-reduces are rings or trees of such
messages. What the numbers are is measured (`benchmarks/scaling.py`) or assumed with a source; nothing here knows them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Link:
    """What a message costs: `delay` seconds however small it is, and its bytes at `bandwidth` bytes a second."""

    delay: float
    bandwidth: float

    def seconds(self, size: float) -> float:
        """Of one message of `size` bytes."""
        return self.delay + size / self.bandwidth

    def slower(self, times: float) -> Link:
        """The same link where everything takes `times` as long, as among processes that share a core."""
        return Link(self.delay * times, self.bandwidth / times)

    def behind(self, wire: Link) -> Link:
        """The same link over a wire: delays add up, and the narrower of the two decides."""
        return Link(self.delay + wire.delay, min(self.bandwidth, wire.bandwidth))


NOTHING = Link(0.0, math.inf)


def ring(size: float, workers: int, link: Link) -> float:
    """Seconds of an all-reduce of `size` bytes in 2 (W - 1) messages of size / W (Patarasuk and Yuan 2009)."""
    return 2 * (workers - 1) * link.seconds(size / workers)


def tree(size: float, workers: int, link: Link) -> float:
    """Seconds of an all-reduce up and down a binary tree, in pieces: few delays, and the bytes twice."""
    return 2 * math.ceil(math.log2(workers)) * link.delay + 2 * size / link.bandwidth if workers > 1 else 0.0


def gathered(size: float, workers: int, link: Link) -> float:
    """Seconds of an all-gather of `size` bytes from each worker, around a ring."""
    return (workers - 1) * link.seconds(size)


@dataclass(frozen=True)
class Cluster:
    """`machines` of `per_machine` workers each: links between workers of one machine, and from machine to machine.

    `base` seconds come with everything that all say together. `trees`: whether what all add up may go up and down a
    tree between machines, as by NCCL; gloo has rings only, and what all gather goes around a ring in both.
    """

    machines: int
    per_machine: int
    inner: Link
    outer: Link
    trees: bool = False
    base: float = 0.0

    @property
    def workers(self) -> int:
        """Of all machines."""
        return self.machines * self.per_machine

    def all_reduce(self, size: float) -> float:
        """Seconds: a ring within each machine, half of it before and half after what goes between the machines."""
        if self.workers == 1:
            return 0.0
        between = ring(size, self.machines, self.outer)
        if self.trees:
            between = min(between, tree(size, self.machines, self.outer))
        return self.base + ring(size, self.per_machine, self.inner) + between

    def all_gather(self, size: float) -> float:
        """Seconds until each worker has the `size` bytes of every other: one ring, from machine to machine."""
        if self.workers == 1 or not size:
            return 0.0
        across = self.machines - 1
        delays = across * self.outer.delay + (self.workers - 1 - across) * self.inner.delay
        links = [self.outer] * (self.machines > 1) + [self.inner] * (self.per_machine > 1)
        return self.base + delays + (self.workers - 1) * size / min(link.bandwidth for link in links)


@dataclass(frozen=True)
class Work:
    """What a step asks of one worker: `fixed` seconds and `per_photo` for each photo, never less than `floor`.

    `gradients` bytes are all-reduced, the `last` of them only once the backward pass is over; `backward` is the share
    of the computing behind which the others can travel. Each of `layers` norms gathers `gathered` bytes of each worker
    and all-reduces `summed` bytes (0 layers: every worker normalises by its own photos). `sums` all-reduces of few
    bytes come on top.
    """

    per_photo: float
    fixed: float = 0.0
    floor: float = 0.0
    gradients: float = 0.0
    last: float = 0.0
    backward: float = 0.0
    layers: int = 0
    gathered: float = 0.0
    summed: float = 0.0
    sums: int = 1

    def seconds(self, photos: float) -> float:
        """Of computing on `photos` photos by one worker that has a device to itself."""
        return max(self.floor, self.fixed + photos * self.per_photo)


@dataclass(frozen=True)
class Step:
    """Seconds of one step by where they go. Photos are read ahead: reading hides behind the rest, or that behind it."""

    reading: float
    computing: float
    gradients: float  # what of their all-reduce hides behind nothing
    norms: float
    counting: float  # the small sums, such as those of loss and right answers

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return max(self.reading, self.computing + self.gradients + self.norms + self.counting)

    @property
    def limit(self) -> str:
        """What else than computing costs most: the first thing to mend."""
        idle = self.seconds - self.computing - self.gradients - self.norms - self.counting
        costs = {"reading": idle, "gradients": self.gradients, "norms": self.norms, "counting": self.counting}
        return max(costs, key=lambda name: costs[name])


def step(work: Work, photos: float, cluster: Cluster, reading: float = 0.0, crowd: float = 1.0) -> Step:
    """One step of `photos` photos a worker. `crowd`: how much slower a worker computes than it would alone."""
    computing = crowd * work.seconds(photos)
    if cluster.workers == 1:
        return Step(reading, computing, 0.0, 0.0, 0.0)
    whole, last = cluster.all_reduce(work.gradients), cluster.all_reduce(work.last)
    exposed = max(last, whole - work.backward * computing)
    layer = cluster.all_gather(work.gathered) + cluster.all_reduce(work.summed)
    return Step(reading, computing, exposed, work.layers * layer, work.sums * cluster.all_reduce(COUNTED))


COUNTED = 16.0  # bytes: loss, right answers


def efficiency(alone: float, photos_alone: float, together: float, photos: float) -> float:
    """Photos a second and worker beside those of one worker alone: steps of `alone` and of `together` seconds."""
    return (photos / together) / (photos_alone / alone)


@dataclass(frozen=True)
class Losses:
    """What a long run loses beside its steps.

    A checkpoint takes `write` seconds, in which all wait for the first worker; a machine fails `failures` times an
    hour, and all begin again `restart` seconds later at the last checkpoint; a run takes `start` seconds to begin.
    """

    write: float = 0.0
    failures: float = 0.0
    restart: float = 0.0
    start: float = 0.0

    def best_interval(self, machines: int) -> float:
        """Seconds between checkpoints that lose least, to first order (Young 1974)."""
        rate = self.failures * machines / 3600
        return math.sqrt(2 * self.write / rate) if rate else math.inf

    def share(self, machines: int, interval: float) -> float:
        """Seconds lost for each second of training: writing, and for each failure a restart and half an interval."""
        rate = self.failures * machines / 3600
        return self.write / interval + rate * (self.restart + interval / 2)

    def seconds(self, training: float, machines: int, interval: float) -> float:
        """Of a run whose steps take `training` seconds in all. Infinite where more is lost than gained."""
        return self.start + training * (1 + self.share(machines, interval))


@dataclass(frozen=True)
class Machine:
    """What one machine scores or reads at best: photos a second it computes and decodes, bytes a second it fetches."""

    computed: float
    decoded: float
    network: float


@dataclass(frozen=True)
class Store:
    """An object store: `requests` a second and `bandwidth` bytes a second, of all machines together.

    A listing names `listed` objects a request, one request after another, each of `listing` seconds.
    """

    requests: float
    bandwidth: float
    listed: int = 1000
    listing: float = 0.1


@dataclass(frozen=True)
class Collection:
    """`photos` of `size` bytes, `in_shard` in an object; an answer is `row` bytes, one part for each shard."""

    photos: float
    size: float
    in_shard: float
    row: float

    @property
    def shards(self) -> float:
        """How many objects there are."""
        return math.ceil(self.photos / self.in_shard)


@dataclass(frozen=True)
class Scored:
    """Photos a second that each part allows by itself, and the hours of all."""

    rates: dict[str, float]
    hours: float
    machine_hours: float

    @property
    def limit(self) -> str:
        """The part that allows least."""
        return min(self.rates, key=lambda name: self.rates[name])


def scored(collection: Collection, machine: Machine, machines: int, store: Store, start: float = 0.0) -> Scored:
    """A collection scored by `machines`, each a shard at a time and a new one as soon as it is done.

    Listed first, then scored at the rate of the narrowest part; at the end all wait for the last shard, on average for
    half of one, and nobody has more than shards to work at.
    """
    working = min(machines, collection.shards)
    rates = {
        "computing": working * machine.computed,
        "decoding": working * machine.decoded,
        "network of the machines": working * machine.network / collection.size,
        "bandwidth of the store": store.bandwidth / collection.size,
        "requests to the store": store.requests * collection.in_shard / 2,  # a shard is read once, a part written once
    }
    rate = min(rates.values())
    tail = 0.5 * collection.in_shard / min(machine.computed, machine.decoded, machine.network / collection.size)
    listing = math.ceil(collection.shards / store.listed) * store.listing
    hours = (start + listing + collection.photos / rate + tail) / 3600
    return Scored(rates, hours, hours * machines)


def fitted(rows: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """x and y, neither negative, for which a x + b y is nearest to seconds, over `rows` of (a, b, seconds).

    Distances are relative to the seconds, so that a small message counts as much as a large one.
    """
    table = np.asarray(rows, dtype=np.float64)
    weighted = table[:, :2] / table[:, 2:]  # [n, 2]; wanted is 1 everywhere
    x, y = np.linalg.lstsq(weighted, np.ones(len(table)), rcond=None)[0]
    if x >= 0 and y >= 0:
        return float(x), float(y)
    alone = weighted.sum(axis=0) / (weighted**2).sum(axis=0)  # each without the other
    errors = ((weighted * alone - 1) ** 2).sum(axis=0)
    return (float(alone[0]), 0.0) if errors[0] <= errors[1] else (0.0, float(alone[1]))


def fitted_link(rows: Sequence[tuple[float, float, float]]) -> Link:
    """The link under which `rows` of (messages one after another, bytes of all of those, seconds) are nearest."""
    delay, per_byte = fitted(rows)
    return Link(delay, 1 / per_byte if per_byte > 0 else math.inf)
