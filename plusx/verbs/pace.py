"""Keeping a time budget: how long a step takes, measured before a run is planned, and what to do if it was wrong."""

from __future__ import annotations

import copy
import time

import numpy as np
import torch

from plusx.config import Config
from plusx.data.loader import Batch
from plusx.models.normalise import Normalised
from plusx.recipes.plan import Plan, training_sizes
from plusx.run_folder import RunFolder
from plusx.training.checkpoint import found
from plusx.training.settings import Settings
from plusx.training.step import State, train_step

WARM_UP, MEASURED = 2, 6  # rounds over the sizes
RESERVE = 4.0  # seconds of a budget for the last checkpoint, the model file and the end of the process


class Pacer:
    """The plan of a run in progress; cuts it where its budget would be overrun, written down before it takes effect."""

    def __init__(self, run: RunFolder, plan: Plan, started: float) -> None:
        self.plan = plan
        self._run, self._started, self._begun = run, started, time.monotonic()
        # the clock of a resumed run says nothing about its first part, so its plan stands
        self._cuts = plan.budget_seconds is not None and not found(run.checkpoints)

    def size_at(self, step: int) -> int:
        """Training size of `step` in the plan as it is now."""
        return self.plan.size_at(step)

    def shorten(self, step: int) -> tuple[tuple[int, int], ...] | None:
        """The shortenings of a plan that ends in time, or None where the present one does."""
        if not self._cuts or self.plan.budget_seconds is None:
            return None
        now = time.monotonic()
        expected = self.plan.seconds_between(0, step)
        pace = (now - self._begun) / expected if expected else 1.0
        left = self._started + self.plan.budget_seconds - now - RESERVE
        shorter = self.plan.shortened_at(step, left, pace)
        if shorter is None:
            return None
        self._run.write("plan", shorter.to_json())
        self.plan = shorter
        return shorter.shortened


def seconds_per_step(network: Normalised, config: Config, device: torch.device) -> dict[int, float]:
    """Seconds of an undisturbed training step at every size of the recipe, on a copy of the network.

    The sizes take turns, and the second fastest step of each counts: other work on the machine only
    adds time, a plan too long is cut at half time, and one too short wastes its budget.
    """
    settings = Settings.of(config.model_dump(), total_steps=10_000, steps_per_epoch=100)
    state = State.fresh(copy.deepcopy(network), settings)
    batches = {size: _noise(config.batch_size, size, device) for _, size in training_sizes(config)}
    taken: dict[int, list[float]] = {size: [] for size in sorted(batches)}
    for _ in range(WARM_UP + MEASURED):
        for size, seconds in taken.items():
            seconds.append(_step_seconds(state, settings, batches[size]))
    return {size: sorted(seconds[WARM_UP:])[1] for size, seconds in taken.items()}


def seconds_per_photo_tested(network: Normalised, size: int, device: torch.device) -> float:
    """Seconds to answer for one photo of `size` pixels, in batches."""
    network.eval()
    images = _noise(64, size, device).images
    with torch.inference_mode():
        network(images)
        started = time.perf_counter()
        network(images)[0, 0].item()
    return (time.perf_counter() - started) / len(images)


def _step_seconds(state: State, settings: Settings, batch: Batch) -> float:
    started = time.perf_counter()
    train_step(state, batch, settings)
    return time.perf_counter() - started


def _noise(count: int, size: int, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return Batch(images.to(device), (torch.arange(count) % 2).to(device), np.arange(count))
