"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence

Revisions = Sequence[tuple[int, int]]  # (at step, new total number of steps)


def progress(step: int, total: int, revisions: Revisions = ()) -> float:
    """Share of the run done before `step`, in [0, 1].

    Without revisions `step / total`. From a revision on, what was left of the run is spread evenly over
    the steps that now remain, fewer or more, so that the schedule still ends at its end.
    """
    start, done, end = 0, 0.0, total
    for at, new_end in revisions:
        if step <= at:
            break
        start, done, end = at, _line(at, start, done, end), new_end
    return min(1.0, _line(step, start, done, end))


def learning_rate(kind: str, done: float, warmup: float, milestones: Sequence[float] = ()) -> float:
    """Factor on the peak rate, in [0, 1], when a share `done` of the run is over.

    constant: 1. triangular: linear from 0 up over `warmup`, then linear down to 0 (Smith 2018, arXiv 1803.09820).
    cosine: the same rise, then half a cosine (Loshchilov and Hutter 2017). steps: a tenth at every milestone, and over
    `warmup` a tenth of what it is then (He et al. 2015, arXiv 1512.03385, section 4.2: it gets 110 layers going).
    """
    if kind == "constant":
        return 1.0
    if kind == "steps":
        return float(10.0 ** -((done < warmup) + sum(done >= m for m in milestones)))
    if done < warmup:
        return done / warmup
    fallen = (done - warmup) / (1.0 - warmup) if warmup < 1.0 else 0.0
    return 1.0 - fallen if kind == "triangular" else 0.5 * (1.0 + math.cos(math.pi * fallen))


def _line(step: int, start: int, done: float, end: int) -> float:
    return done + (1.0 - done) * (step - start) / max(1, end - start)
