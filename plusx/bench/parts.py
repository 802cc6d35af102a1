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

    "data wait" is the time until the photos of the batch are there; "backward" is all of computing gradients that is
    no forward pass: the loss, too, and, on a GPU, the copy of its value.
    """
    marks, passes = [clock.now()], list[float]()
    hooks = (
        state.model.register_forward_pre_hook(lambda *_: passes.append(-clock.now())),
        state.model.register_forward_hook(lambda *_: passes.append(clock.now())),
    )

    def mark() -> None:
        marks.append(clock.now())

    pixels = batches.pixels(state.step)
    mark()
    batch = batches.augmented(pixels, state.step)
    mark()
    compute_gradients(state, batch, settings)
    mark()
    apply_gradients(state, settings)
    mark()
    for hook in hooks:
        hook.remove()
    waited, augmented, gradients, updated = (after - before for before, after in pairwise(marks))
    forward = sum(passes)  # one forward pass for every part of an accumulated batch
    return dict(zip(PARTS, (waited, augmented, forward, gradients - forward, updated), strict=True))
