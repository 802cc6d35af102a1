"""The ideal queue that latencies are held against: what the same arrivals wait where nothing but the work takes time.

One server, which is both cores together. Arrivals come at the very moments at which the real requests were due. When
the server is free it takes whatever waits, first come first served, up to `largest` photos, and is done with all of
them s(b) later; nothing else costs anything. s(b) are times that the bare loop took for b photos, bytes to
probabilities, decoding included, measured for b = 1, 2, 4, 8, 16 just before; one of them is taken for every batch, by
the quantile, between two measured sizes the quantiles are interpolated. A shared machine has slow spells, and a queue
feels those more than as many slow moments here and there: so the quantiles follow each other in time as they did while
photos were measured one by one. Where batches gain nothing, an ideal server takes photos one by one: `best` is the best
over its largest batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Service = Callable[[int, float], float]  # photos at once, a quantile -> seconds
Quantiles = Callable[[float], float]  # seconds since the start -> the quantile of services that begin then
SIZES = (1, 2, 4, 8, 16)


class Measured:
    """s(b), from measured seconds by batch size; callable as a Service."""

    def __init__(self, seconds: Mapping[int, Sequence[float]]) -> None:
        self._sizes = np.array(sorted(seconds), dtype=np.float64)
        self._series = np.asarray(seconds[int(self._sizes[0])], dtype=np.float64)
        self._sorted = [np.sort(np.asarray(seconds[int(size)], dtype=np.float64)) for size in self._sizes]

    def __call__(self, photos: int, uniform: float) -> float:
        """Seconds for `photos` at once at the quantile `uniform`. Raises ValueError for more than were measured."""
        if not self._sizes[0] <= photos <= self._sizes[-1]:
            raise ValueError(f"no times for {photos} photos at once")
        right = int(np.searchsorted(self._sizes, photos))
        if self._sizes[right] == photos:
            return self._at(right, uniform)
        share = (photos - self._sizes[right - 1]) / (self._sizes[right] - self._sizes[right - 1])
        return float((1 - share) * self._at(right - 1, uniform) + share * self._at(right, uniform))

    def replayed(self, seed: int) -> Quantiles:
        """The quantiles of single photos as they followed each other while they were measured, again and again."""
        times = self._series
        ranks = np.argsort(np.argsort(times, kind="stable")) / len(times)
        ends = np.cumsum(times)
        offset = float(np.random.default_rng(seed).uniform(0, ends[-1]))
        return lambda seconds: float(ranks[np.searchsorted(ends, (offset + seconds) % ends[-1], side="right")])

    def _at(self, place: int, uniform: float) -> float:
        times = self._sorted[place]
        return float(times[min(int(uniform * len(times)), len(times) - 1)])


def latencies(due: Floats, service: Service, largest: int, seed: int) -> Floats:
    """Seconds from due to done [n] in the ideal queue, arrivals `due` [n] ascending, batches up to `largest`."""
    quantile = service.replayed(seed) if isinstance(service, Measured) else _independent(seed)
    moments = due.tolist()
    done = np.empty(len(due))
    first, free = 0, 0.0
    while first < len(moments):
        start = max(free, moments[first])
        after = first + 1
        while after < len(moments) and after - first < largest and moments[after] <= start:
            after += 1
        free = start + service(after - first, quantile(start))
        done[first:after] = free
        first = after
    return done - due


def _independent(seed: int) -> Quantiles:
    draws = np.random.default_rng(seed)
    return lambda _: float(draws.random())


def best(
    stretches: Sequence[tuple[Floats, Service]], largest: int, seed: int, share: float = 0.99
) -> tuple[int, Floats]:
    """The largest batch, of SIZES up to `largest`, with the lowest quantile `share` over all
    stretches, each with its own arrivals and services, and its latencies [n].
    """
    sizes = [size for size in SIZES if size <= largest]
    found = {
        size: np.concatenate([latencies(due, service, size, seed) for due, service in stretches]) for size in sizes
    }
    size = min(found, key=lambda size: float(np.quantile(found[size], share)))
    return size, found[size]
