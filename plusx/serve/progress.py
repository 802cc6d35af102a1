"""How far a run is and how long it will take: from the steps whose time was logged, and from looking on."""

from __future__ import annotations

import statistics
from collections import deque

from plusx.serve.ahead import Ahead
from plusx.serve.tail import Curve, Record, finite, whole

LOGGED = 15  # logged steps whose median is the pace: single ones are disturbed by whatever else the machine does
SIGHTINGS = 30  # looks at which the log had grown
ENOUGH = 20.0  # seconds of looking on after which the clock is believed rather than single steps


class Pace:
    """Observed over expected time per step, the expected one being the plan's; and what all steps took."""

    def __init__(self) -> None:
        self.speed = Curve()  # images per second by step
        self.seconds = 0.0  # about what the steps took: each logged one stands for those before it
        self._before = 0
        self._logged: deque[tuple[int, float]] = deque(maxlen=LOGGED)
        self._sightings: deque[tuple[int, float]] = deque(maxlen=SIGHTINGS)

    def take(self, record: Record) -> None:
        """Take in a line of timing.jsonl."""
        step, seconds = whole(record.get("step")), finite(record.get("seconds"))
        if step is None or seconds is None or step <= self._before or seconds < 0:
            return
        self.seconds += (step - self._before) * seconds
        self._before = step
        self._logged.append((step, seconds))
        self.speed.add(step, record.get("images_per_second"))

    def sighted(self, at: float) -> None:
        """The log has grown, and was last written to `at`, in seconds since 1970."""
        if not self._sightings or self._sightings[-1][0] < self._before:
            self._sightings.append((self._before, at))

    def of(self, plan: Ahead) -> float | None:
        """The pace; None where nothing was logged yet."""
        watched = self._watched(plan)
        if watched is not None:
            return watched
        single = [seconds / plan.cost_at(step - 1) for step, seconds in self._logged]
        return statistics.median(single) if single else None

    def _watched(self, plan: Ahead) -> float | None:
        """By the clock, which counts validations and checkpoints as well; None before it has been watched for long."""
        if not self._sightings:
            return None
        (first, begun), (last, ended) = self._sightings[0], self._sightings[-1]
        expected = (last - first) * plan.cost_at((first + last) // 2)
        return (ended - begun) / expected if ended - begun >= ENOUGH and expected > 0 else None
