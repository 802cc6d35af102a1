"""A training step with a stopwatch between its parts."""

from __future__ import annotations

from itertools import pairwise

from plusx.bench.ceilings import Clock
from plusx.data.loader import Batches
from plusx.training.settings import Settings
from plusx.training.step import State, apply_gradients, compute_gradients

PARTS = ("data wait", "augment", "forward", "backward", "optimizer")


def timed_step(state: State, batches: Batches, settings: Settings, clock: Clock) -> dict[str, float]:
    """One training step; seconds of each of `PARTS`, which add up to the step.

    "data wait" is the time until the photos of the batch are there; "backward" holds the loss and, on a GPU, the
    copy of its value.
    """
    marks = [clock.now()]

    def mark(*_: object) -> None:
        marks.append(clock.now())

    forward = state.model.register_forward_hook(mark)
    pixels = batches.pixels(state.step)
    mark()
    batch = batches.augmented(pixels, state.step)
    mark()
    compute_gradients(state, batch, settings)
    mark()
    apply_gradients(state, settings)
    mark()
    forward.remove()
    return {part: after - before for part, (before, after) in zip(PARTS, pairwise(marks), strict=True)}
