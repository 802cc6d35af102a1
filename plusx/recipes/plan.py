"""The plan of a run: how many steps, at which sizes. From the plan on, a run is fixed; `--plan FILE` repeats it.

Two ways lead to one: epochs are counted, or a time budget is divided by the measured time of a step.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from plusx.config import Config
from plusx.errors import usage
from plusx.models import minimum_size
from plusx.training.schedule import progress

SIZE_MULTIPLE = 16  # sizes at which every stage of a five-times halved network has whole pixels
MAX_CUTS, MAX_GROWTHS = 2, 2
WORTH = 1.05  # a longer plan that adds less is not made
VALIDATING = 0.1  # share of a budget that validation between epochs may take
WINDING_DOWN = 0.15  # steps to the end of a schedule that is shortened, as a share of those done; an epoch at least
LEAST_STEPS = 50  # of a timed run, or one epoch where that is less: fewer teach nothing


@dataclass(frozen=True)
class Plan:
    """A run's length and sizes. `sizes` holds (share of the steps, training size in px)."""

    total_steps: int
    steps_per_epoch: int
    sizes: tuple[tuple[float, int], ...]
    revisions: tuple[tuple[int, int], ...] = ()  # (at step, new end), recorded before they happen
    budget_seconds: float | None = None
    most_steps: int | None = None
    seconds_per_step: tuple[tuple[int, float], ...] = ()  # (size, measured seconds), the ground of the plan
    scale: str | None = None  # of the fast recipe: the network and sizes that the budget afforded
    ending: float = 0.0  # seconds kept from the budget for the validation at the end
    validate_every: int = 1  # epochs: so often that validation takes a small part of a budget
    stalled_at: int | None = None  # the step from which the schedule was shortened, since validation stood still

    def progress(self, step: int) -> float:
        """Share of the run done before `step`, in [0, 1]."""
        return progress(step, self.total_steps, self.revisions)

    def size_at(self, step: int) -> int:
        """Training size of `step`, in pixels."""
        done, edge = self.progress(step), 0.0
        for share, size in self.sizes:
            edge += share
            if done < edge - 1e-9:
                return size
        return self.sizes[-1][1]

    @property
    def last_step(self) -> int:
        """Number of steps the run really has, revisions counted."""
        return self.revisions[-1][1] if self.revisions else self.total_steps

    def seconds_between(self, start: int, end: int) -> float:
        """Seconds that the steps from `start` up to `end` were expected to take."""
        cost = dict(self.seconds_per_step)
        return sum(cost.get(self.size_at(step), 0.0) for step in range(start, end))

    def seconds_from(self, step: int, pace: float = 1.0) -> float:
        """Expected seconds of the steps from `step` to the end; `pace` is observed over planned time per step."""
        return pace * self.seconds_between(step, self.last_step)

    def steps_left(self, done: float) -> float:
        """What is left after the share `done` of the steps: so many steps like those there, as a share of all."""
        cost, edge, here, rest = dict(self.seconds_per_step), 0.0, None, 0.0
        for share, size in self.sizes:
            start, edge = max(edge, done), edge + share
            if edge > start:
                here = here or cost.get(size, 1.0)
                rest += (edge - start) * cost.get(size, 1.0)
        return rest / here if here else 0.0

    def revised_at(self, step: int, seconds_left: float, pace: float) -> Plan | None:
        """A plan that ends when `seconds_left` are over, shorter or longer; None where this one about does.

        It is cut at most twice and grows at most twice, then by a twentieth or more, never beyond `most_steps`.
        """
        remaining, needed = self.last_step - step, self.seconds_from(step, pace)
        if not needed:
            return None
        fit = max(1, math.floor(remaining * max(seconds_left, 0.0) / needed))
        end = step + fit if self.most_steps is None else min(step + fit, self.most_steps)
        ends = [self.total_steps, *(new for _, new in self.revisions)]
        cuts = sum(after < before for before, after in itertools.pairwise(ends))
        if end < self.last_step:
            allowed = cuts < MAX_CUTS
        else:
            allowed = end >= WORTH * self.last_step and len(self.revisions) - cuts < MAX_GROWTHS
        return replace(self, revisions=(*self.revisions, (step, end))) if allowed else None

    def wound_down_at(self, step: int) -> Plan | None:
        """A plan that ends soon after `step`, where validation stands still; None where it does anyway.

        Its rate falls as it would have: weights from the middle of a schedule are worse than those at its end.
        """
        end = step + max(self.steps_per_epoch, round(WINDING_DOWN * step))
        if self.stalled_at is not None or end >= self.last_step:
            return None
        return replace(self, revisions=(*self.revisions, (step, end)), stalled_at=step)

    def budget(self) -> dict[str, Any]:
        """The settings `time` and `epochs` that led to this plan."""
        epochs = None if self.budget_seconds else self.total_steps // self.steps_per_epoch
        return {"time": self.budget_seconds, "epochs": epochs}

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` wrote."""
        pairs = {name: tuple((a, b) for a, b in values[name]) for name in ("sizes", "revisions", "seconds_per_step")}
        return cls(
            total_steps=int(values["total_steps"]),
            steps_per_epoch=int(values["steps_per_epoch"]),
            budget_seconds=values["budget_seconds"],
            most_steps=values["most_steps"],
            scale=values.get("scale"),
            ending=float(values.get("ending", 0.0)),
            validate_every=int(values.get("validate_every", 1)),
            stalled_at=values.get("stalled_at"),
            **pairs,
        )


def read_plan(path: Path) -> Plan:
    """A plan from a file. Raises UsageError where it is none."""
    try:
        return Plan.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = str(getattr(error, "strerror", None) or f"{type(error).__name__} {error}")
        raise usage.unreadable_file(path, why, "a plan.json of plusx") from None


def training_sizes(config: Config) -> tuple[tuple[float, int], ...]:
    """(share of the steps, size in px) of a recipe's growing sizes; one entry where it has none.

    No size is below what the network takes, unless the final one is.
    """
    if not config.sizes:
        return ((1.0, config.size),)
    least = min(config.size, _whole(minimum_size(config.model), math.ceil))
    merged: dict[int, float] = {}
    for share, fraction in config.sizes:
        size = config.size if fraction == 1 else max(least, _whole(config.size * fraction))
        merged[size] = merged.get(size, 0.0) + share
    return tuple((share, size) for size, share in merged.items())


def counted(config: Config, steps_per_epoch: int, epochs: int) -> Plan:
    """The plan of a run over a number of epochs."""
    return Plan(epochs * steps_per_epoch, steps_per_epoch, training_sizes(config))


def timed(
    config: Config, steps_per_epoch: int, seconds_per_step: Mapping[int, float], seconds_left: float, overhead: float
) -> Plan:
    """The longest plan that ends within `seconds_left`, at most `max_epochs`.

    `seconds_per_step` maps each training size to a measured time; `overhead` is what one validation between epochs
    costs, and where that is much, several epochs have one. Raises UsageError where too few steps fit to learn anything.
    """
    sizes = training_sizes(config)
    mean = sum(share * seconds_per_step[size] for share, size in sizes)
    every = max(1, math.ceil(overhead / (VALIDATING * mean * steps_per_epoch)))
    mean += overhead / (every * config.validate_every * steps_per_epoch)
    most = config.max_epochs * steps_per_epoch
    steps = min(math.floor(seconds_left / mean), most)
    least = min(steps_per_epoch, LEAST_STEPS)
    if steps < least:
        used = (config.time or 0.0) - seconds_left
        raise usage.too_short(config.time or 0.0, used + mean * least, least)
    return Plan(
        total_steps=steps,
        steps_per_epoch=steps_per_epoch,
        sizes=sizes,
        budget_seconds=config.time,
        most_steps=most,
        seconds_per_step=tuple(sorted(seconds_per_step.items())),
        validate_every=every,
    )


def repeated(path: Path, config: Config, steps_per_epoch: int) -> Plan:
    """The plan in a file, for a run that repeats it: no clock will cut it again.

    Raises UsageError where it was made for other data or another size.
    """
    plan = replace(read_plan(path), budget_seconds=None)
    facts = (
        ("steps per epoch", plan.steps_per_epoch, steps_per_epoch),
        ("a largest size in px", max(size for _, size in plan.sizes), max(s for _, s in training_sizes(config))),
    )
    for what, planned, found in facts:
        if planned != found:
            raise usage.plan_of_another(path, what, planned, found)
    return plan


def _whole(size: float, rounded: Callable[[float], int] = round) -> int:
    return max(SIZE_MULTIPLE, rounded(size / SIZE_MULTIPLE) * SIZE_MULTIPLE)
