"""What plan.json says of the steps ahead.

`plusx.recipes.plan` makes plans, and with it come the networks and PyTorch. Looking on must not cost a training a
gigabyte of memory, so the little that is needed of a plan is read here; a test holds both together.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plusx.training.schedule import progress

MOST = 1 << 40  # steps or seconds; what is beyond is no plan
EDGE = 1e-9  # shares of steps add up to one but for rounding


@dataclass(frozen=True)
class Ahead:
    """The length of a run, the sizes it trains at as (share, px), its revisions as (at step, new end), its costs.

    `costs` holds the seconds of a step that were measured at each size before the run; `ending` the seconds that were
    kept for what follows the last step, `stalled_at` the step at which the end was brought near.
    """

    total: int
    steps_per_epoch: int
    sizes: tuple[tuple[float, int], ...]
    revisions: tuple[tuple[int, int], ...] = ()
    costs: tuple[tuple[int, float], ...] = ()
    ending: float = 0.0
    stalled_at: int | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Ahead:
        """What a plan's JSON says. Raises ValueError, TypeError or KeyError where it is no plan."""
        plan = cls(
            total=int(values["total_steps"]),
            steps_per_epoch=int(values["steps_per_epoch"]),
            sizes=tuple((float(share), int(size)) for share, size in values["sizes"]),
            revisions=tuple((int(at), int(end)) for at, end in values["revisions"]),
            costs=tuple((int(size), float(seconds)) for size, seconds in values["seconds_per_step"]),
            ending=float(values.get("ending", 0.0)),
            stalled_at=None if values.get("stalled_at") is None else int(values["stalled_at"]),
        )
        if not plan._makes_sense():
            raise ValueError("a plan has steps, sizes, and costs above zero")
        return plan

    def _makes_sense(self) -> bool:
        counts = (self.total, self.steps_per_epoch, *(end for _, end in self.revisions))
        amounts = (*(share for share, _ in self.sizes), *(seconds for _, seconds in self.costs))
        whole = all(0 < count < MOST for count in counts) and self.ending >= 0
        return whole and bool(self.sizes) and all(0 < amount < MOST for amount in (*amounts, self.ending + 1))

    @property
    def last_step(self) -> int:
        """Number of steps the run really has, revisions counted."""
        return self.revisions[-1][1] if self.revisions else self.total

    def done(self, step: int) -> float:
        """Share of the run done before `step`, in [0, 1]."""
        return progress(step, self.total, self.revisions)

    def size_at(self, step: int) -> int:
        """Training size of `step`, counted from 0, in pixels."""
        return self._size_of(self.done(step))

    def cost_at(self, step: int) -> float:
        """Seconds that `step` was expected to take; 1.0 where nothing was measured."""
        return self._cost(self.size_at(step))

    def seconds_from(self, step: int, pace: float) -> float:
        """Seconds from `step` to the end of the last one; `pace` is observed over expected time per step."""
        done, edge, rest = self.done(step), 0.0, 0.0
        if step >= self.last_step or done >= 1:
            return 0.0
        for share, size in self.sizes:
            start, edge = max(edge, done), edge + share
            rest += max(0.0, edge - start) * self._cost(size)
        return pace * rest / (1 - done) * (self.last_step - step)

    def marks(self) -> list[tuple[int, int]]:
        """(step, px) from where on each size is trained."""
        found, edge = [(0, self.sizes[0][1])], 0.0
        for (share, _), (_, size) in zip(self.sizes, self.sizes[1:], strict=False):
            edge += share
            found.append((self._reaching(edge - EDGE), size))
        return found

    def _reaching(self, share: float) -> int:
        """The first step before which that share of the run is done."""
        return bisect.bisect_left(range(self.last_step), share, key=self.done)

    def _size_of(self, done: float) -> int:
        edge = 0.0
        for share, size in self.sizes:
            edge += share
            if done < edge - EDGE:
                return size
        return self.sizes[-1][1]

    def _cost(self, size: int) -> float:
        return dict(self.costs).get(size, 1.0)
