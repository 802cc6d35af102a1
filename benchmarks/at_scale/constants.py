"""The constants of this machine, fitted to lines that say role "fit", and what they foretell of the others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from plusx.bench.scaling import NOTHING, Cluster, Link, Work, fitted, fitted_link, gathered, ring, step

Line = dict[str, Any]
FACTS = ("gradients", "last", "layers", "gathered", "summed")
SUMS = 2  # loss and right answers, and which parameters anybody has used


@dataclass(frozen=True)
class Constants:
    """`cores` shared by all processes; what they make a message and a photo cost.

    `beside`: how much slower each of two processes computes than one alone, each on a core. `norms`: how much slower
    one computes whose norms are those that speak with others, though there are none. `free` and `crowded`: a
    message among processes that have a core each, and that share one with one other; `wire` one between two machines
    on a wire without delay; `trips`: how many of a wire's delays a message waits for.
    """

    cores: int
    beside: float
    norms: float
    free: Link
    crowded: Link
    work: dict[str, Work]
    wire: Link | None = None
    trips: float = 1.0

    def sharing(self, workers: int) -> float:
        """How many processes each core has, at least one."""
        return max(1.0, workers / self.cores)

    def crowd(self, workers: int) -> float:
        """How much slower a process computes than it would alone."""
        return 1.0 if workers == 1 else self.beside * self.sharing(workers)

    def link(self, line: Line) -> Link:
        """Between the processes of a line."""
        share = self.sharing(line["workers"])
        here = self.free if share == 1 else self.crowded.slower(share / 2)
        if line["machines"] == 1:
            return here
        assert self.wire is not None, "lines over a wire come with lines that its constants are fitted to"
        waits = max(0.0, here.delay - self.free.delay)  # for a core
        ends = Link(self.wire.delay + waits, self.wire.bandwidth / share)
        return ends.behind(Link(self.trips * line["delay"], line["bandwidth"] or math.inf))

    def cluster(self, line: Line) -> Cluster:
        """The machines of a line: all processes on one, or each on one of its own."""
        if line["machines"] == 1:
            return Cluster(1, line["workers"], self.link(line), NOTHING)
        return Cluster(line["workers"], 1, NOTHING, self.link(line))

    def foretold(self, line: Line) -> float:
        """Seconds of what a line has measured."""
        if line["do"] != "step":
            formula = ring if line["do"] == "all_reduce" else gathered
            return formula(line["bytes"], line["workers"], self.link(line))
        work = self.work[line["network"]]
        if not line["norms"]:
            work = replace(work, layers=0)
        if line["machines"] == 1:  # cores that compute carry the messages, too: nothing hides behind anything
            work = replace(work, backward=0.0)
        crowd = self.crowd(line["workers"]) * (self.norms if line["norms"] else 1.0)
        return step(work, line["batch"], self.cluster(line), crowd=crowd).seconds


def of_lines(lines: Iterable[Line]) -> Constants:
    """The constants that lines of role "fit" give. Raises StopIteration where lines are missing."""
    fit = [line for line in lines if line["role"] == "fit" and line["do"] in ("step", "all_reduce", "all_gather")]
    cores = fit[0]["machine"]["cores"]
    here = [line for line in fit if line["machines"] == 1]
    alone = [line for line in here if line["do"] == "step" and line["workers"] == 1]
    link = fitted_link(_messages(line for line in here if line["workers"] == 2))
    many = [line for line in here if line["workers"] > cores]
    crowded = fitted_link(_messages(many)).slower(2 * cores / many[0]["workers"])
    over = [line for line in fit if line["machines"] > 1]
    work = {name: _work(alone, name) for name in dict.fromkeys(line["network"] for line in alone)}
    found = Constants(cores, _beside(here), _norms(here), link, crowded, work)
    return found if not over else replace(found, **_of_wire(over))


def _work(lines: list[Line], network: str) -> Work:
    mine = [line for line in lines if line["network"] == network and not line["norms"]]
    fixed, per_photo = fitted([(1.0, line["batch"], line["seconds"]) for line in mine])
    facts = {name: mine[0][name] for name in FACTS}
    backward = statistics.mean(line["backward"] / line["seconds"] for line in mine)
    return Work(per_photo, fixed, backward=backward, sums=SUMS, **facts)


def _beside(lines: list[Line]) -> float:
    """Geometric mean over networks."""
    steps = _steps(lines)
    slower = [
        s / steps[name, batch, 1, False] for (name, batch, n, normed), s in steps.items() if n == 2 and not normed
    ]
    return statistics.geometric_mean(slower)


def _norms(lines: list[Line]) -> float:
    """Geometric mean over networks."""
    steps = _steps(lines)
    slower = [s / steps[name, batch, 1, False] for (name, batch, n, normed), s in steps.items() if n == 1 and normed]
    return statistics.geometric_mean(slower)


def _steps(lines: list[Line]) -> dict[tuple[str, int, int, bool], float]:
    """Seconds by network, photos, processes, and whether norms are those of all."""
    chosen = [line for line in lines if line["do"] == "step"]
    return {(e["network"], e["batch"], e["workers"], e["norms"]): e["seconds"] for e in chosen}


def _messages(lines: Iterable[Line]) -> list[tuple[float, float, float]]:
    """Rows of (messages one after another, their bytes, seconds)."""
    rows = []
    for line in lines:
        if line["do"] == "all_reduce":
            count = 2 * (line["workers"] - 1)
            rows.append((count, count * line["bytes"] / line["workers"], line["seconds"]))
        elif line["do"] == "all_gather":
            count = line["workers"] - 1
            rows.append((count, count * line["bytes"], line["seconds"]))
    return rows


def _of_wire(lines: list[Line]) -> dict[str, Any]:
    plain = fitted_link(_messages(line for line in lines if not line["delay"]))
    waits = []
    for line in (line for line in lines if line["delay"]):
        (count, size, seconds) = _messages([line])[0]
        waits.append((seconds - count * plain.delay - size / plain.bandwidth) / (count * line["delay"]))
    return {"wire": plain, "trips": statistics.median(waits)}
