"""Keeping a time budget: how long a step takes, measured before a run is planned, and what to do if it was wrong."""

from __future__ import annotations

import copy
import math
import time

import torch

from plusx.config import Config
from plusx.data.loader import Batches
from plusx.errors import usage
from plusx.models.normalise import Normalised
from plusx.recipes.plan import LEAST_STEPS, Plan, training_sizes
from plusx.run_folder import RunFolder
from plusx.training.checkpoint import found
from plusx.training.memory import explained, out_of_memory
from plusx.training.settings import Settings
from plusx.training.step import State, train_step
from plusx.training.world import ALONE, World

Revisions = tuple[tuple[int, int], ...]
WARM_UP, MEASURED = 2, 6  # rounds over the sizes
MEASURING = 0.1  # share of the budget that measuring may take, if two rounds fit
APART = 0.03  # reviews lie so far apart, as a share of the steps
TESTED = 32  # photos in the batch that times testing
REVIEWS = (0.15, 0.5, 0.85, 0.95)  # shares of the steps after which a timed run asks whether it will end in time
WRONG = 1.5  # at the first review, where little is known, a plan is revised only if it is wrong by this factor
DECODING = 0.8  # share of a budget that decoding may take
LOOK = 5.0  # seconds of decoding after which its rate is believed
RESERVE = 2.5  # seconds of a budget for the last checkpoint, the model file and the end of the process


class Pacer:
    """The plan of a run in progress, revised where it would overrun its budget or leave much of it unused.

    A revision is written down before it takes effect. While a share `frozen` of the run is not over, steps are faster
    than planned and say nothing of the rest: the pace is taken from the thaw on. The first of several processes
    decides.
    """

    def __init__(self, run: RunFolder, plan: Plan, started: float, frozen: float = 0.0, world: World = ALONE) -> None:
        self.plan = plan
        self._run, self._started, self._world = run, started, world
        self._reviewed, self._at = 0, time.monotonic()  # the last review: its step, and when it was
        self._thaw = math.ceil(frozen * plan.total_steps)
        # the clock of a resumed run says nothing about its first part, so its plan stands
        resumed = plan.revisions or world.tell(bool(found(run.checkpoints)))
        reviewed = plan.budget_seconds is not None and not resumed
        self._due = self._review_after(0) if reviewed else None

    def size_at(self, step: int) -> int:
        """Training size of `step` in the plan as it is now."""
        return self.plan.size_at(step)

    def revise(self, step: int, stalled: bool = False) -> Revisions | None:
        """The revisions of a plan that uses its budget, or None where the present one does or no review is due.

        One whose validation has `stalled` is brought to its end soon, and not reviewed any more.
        """
        if stalled and (shorter := self.plan.wound_down_at(step)) is not None:
            self._due = None
            return self._written(shorter)
        if self._thaw and step == self._thaw:
            self._reviewed, self._at = step, time.monotonic()
        if step != self._due or self.plan.budget_seconds is None:
            return None
        left = self._started + self.plan.budget_seconds - time.monotonic() - RESERVE - self.plan.ending
        revised = self._told(self._revised(step, self._pace(step), left))
        self._due = self._review_after(step)  # where the disk refuses the plan, this one stands and is reviewed again
        if revised is None:
            return None
        revisions = self._written(revised)
        self._due = self._review_after(step)
        return revisions

    def _written(self, plan: Plan) -> Revisions:
        """Take over a revised plan, on the disk first."""
        self._world.once(lambda: self._run.write("plan", plan.to_json()))
        self.plan = plan
        return plan.revisions

    def _told(self, plan: Plan | None) -> Plan | None:
        """The plan that the first process has made: it is its clock that counts."""
        said = self._world.tell(plan and plan.to_json())
        return said and Plan.from_json(said)

    def _pace(self, step: int) -> float:
        """Observed over planned time per step since the last review: what is slow now matters."""
        now, expected = time.monotonic(), self.plan.seconds_between(self._reviewed, step)
        pace = (now - self._at) / expected if expected else 1.0
        self._reviewed, self._at = step, now
        return pace

    def _revised(self, step: int, pace: float, left: float) -> Plan | None:
        needed, half = self.plan.seconds_from(step, pace), int(REVIEWS[1] * self.plan.last_step)
        if step < half and not left / WRONG <= needed <= left * WRONG:
            return self.plan.revised_at(step, left, math.sqrt(pace))  # it may pass, and there is a second revision
        if step == half or (step > half and needed > left):  # late, on few steps, nothing is made longer
            return self.plan.revised_at(step, left, pace)
        return None

    def _review_after(self, step: int) -> int | None:
        """The next review, far enough from `step` to measure a pace."""
        last, since = self.plan.last_step, max(step, self._thaw)
        return next((due for share in REVIEWS if (due := int(share * last)) > since + APART * last), None)


class DecodingPace:
    """Refuses a budget that decoding would eat up, as soon as its rate is known: `started` is when the budget began."""

    def __init__(self, budget: float | None, started: float) -> None:
        self._budget, self._started = budget, started
        self._first: tuple[int, float] | None = None  # photos and time when the processes had started

    def progress(self, done: int, total: int) -> None:
        """Take note of photos decoded. Raises UsageError where the rest would leave too little to train in."""
        now = time.monotonic()
        before, begun = self._first = self._first or (done, now)
        if self._budget is None or now - begun < LOOK:
            return
        needed = now + (now - begun) / (done - before) * (total - done) - self._started
        if needed > DECODING * self._budget:
            raise usage.too_short(self._budget, needed / DECODING, LEAST_STEPS)


def seconds_per_step(network: Normalised, config: Config, batches: Batches, world: World = ALONE) -> dict[int, float]:
    """Seconds of an undisturbed training step at every size of the recipe, reading and augmentation included.

    The sizes take turns in `batches`, on a copy of the network, and the second fastest step of each counts:
    other work on the machine only adds time, and a plan is revised on the way. A frozen network is timed as it
    will be when it is thawed. Several processes take these steps together, and the clock of the first counts.
    """
    settings = Settings.of(config.model_dump() | {"frozen": 0.0}, total_steps=10_000, steps_per_epoch=100)
    state = State.fresh(copy.deepcopy(network), settings, world=world)
    sizes = [size for _, size in training_sizes(config)]
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    begun, most = time.monotonic(), MEASURING * (config.time or math.inf)
    for done in range(WARM_UP + MEASURED):
        if done >= 2 and world.tell(time.monotonic() - begun > most):
            break
        for i, size in enumerate(sizes):
            seconds[size].append(_step_seconds(state, settings, batches, done * len(sizes) + i))
    said = world.tell([[size, _undisturbed(taken)] for size, taken in seconds.items()])
    return dict(said)


def _undisturbed(taken: list[float]) -> float:
    """The second fastest of the times after the warm-up, as far as there are so many."""
    warm = sorted(taken[min(WARM_UP, len(taken) - 1) :])
    return warm[min(1, len(warm) - 1)]


def seconds_per_photo_tested(network: Normalised, size: int, device: torch.device) -> float:
    """Seconds to answer for one photo of `size` pixels, in batches."""
    network.eval()
    images = torch.zeros((TESTED, 3, size, size), dtype=torch.uint8, device=device)
    with torch.inference_mode():
        network(images)
        started = time.perf_counter()
        network(images)[0, 0].item()
    return (time.perf_counter() - started) / TESTED


def _step_seconds(state: State, settings: Settings, batches: Batches, step: int) -> float:
    started = time.perf_counter()
    batch = batches.batch(step)
    try:
        train_step(state, batch, settings)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise explained(error, state, batch, settings) from None
    return time.perf_counter() - started
