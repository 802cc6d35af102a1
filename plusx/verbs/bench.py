"""`bench`: the limits of this machine, what a training step asks of it, and where the step's time goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from plusx.bench import DTYPES, PARTS, Ceilings, Clock, Cost, convolutions, cost_of, timed_step
from plusx.config import Config
from plusx.data.loader import Batches
from plusx.recipes.plan import training_sizes
from plusx.recipes.resolve import resolve
from plusx.training import environment
from plusx.training.settings import Settings
from plusx.training.step import State, autocast, train_step
from plusx.verbs.network import refuse_network, with_default_rate
from plusx.verbs.rehearsal import noise_batches, start

WARM_UP = 3
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Bench:
    """Medians over `rounds` rounds, in each of which ceilings, convolutions and step were timed one after another.

    `matmul` and `convolution` are floating-point operations a second, `copy` bytes a second; `seconds` of a step by
    part; `cost` what one step asks for.
    """

    network: str
    size: int
    batch_size: int
    precision: str
    machine: dict[str, Any]
    rounds: int
    matmul: float
    copy: float
    convolution: float
    cost: Cost
    seconds: dict[str, float]
    rate: float  # floating-point operations a second of the whole step
    share: float  # of the matrix-product rate of the same round, for the whole step
    convolution_share: float  # the same for its convolutions alone

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return sum(self.seconds.values())

    @property
    def images_per_second(self) -> float:
        """Photos trained on a second."""
        return self.batch_size / self.step

    def to_json(self) -> dict[str, Any]:
        """All figures as plain values."""
        derived = {"step_seconds": self.step, "images_per_second": self.images_per_second}
        return vars(self) | {"cost": vars(self.cost)} | derived

    def lines(self) -> list[str]:
        """The figures as text."""
        cost, step = self.cost, self.step
        return [
            f"{self.machine['processor']}, {self.machine['device']}, {self.machine['threads']} threads, "
            f"torch {self.machine['torch']}, {self.precision}; medians of {self.rounds} rounds",
            f"this machine: matrix products {_giga(self.matmul)} GFLOP/s, copies {_giga(self.copy)} GB/s",
            f"{self.network}, {self.size} px, {self.batch_size} photos a step: {cost.flops / 1e9:.2f} GFLOP and "
            f"{cost.bytes / 1e6:,.0f} MB a step",
            f"step {step * 1e3:.1f} ms, {self.images_per_second:,.0f} images/s, {_giga(self.rate)} GFLOP/s: "
            f"{self.share:.0%} of the matrix-product rate, {cost.bytes / step / self.copy:.0%} of the copy rate",
            f"its convolutions alone: {_giga(self.convolution)} GFLOP/s, {self.convolution_share:.0%}",
            *(f"  {part:<9} {s * 1e3:7.2f} ms  {s / step:6.1%}" for part, s in self.seconds.items()),
        ]


@dataclass(frozen=True)
class _Setup:
    """A training that could start, at one size."""

    config: Config
    size: int
    device: torch.device
    batches: Batches
    state: State
    settings: Settings


def bench(
    settings: dict[str, Any], *, sets: Sequence[str] = (), rounds: int = 15, on_progress: Progress | None = None
) -> Bench:
    """Measure one training step of the recipe that `settings` (fields of Config) ask for, at its first size.

    Raises UsageError for settings that cannot be.
    """
    config = resolve(settings, sets=sets)
    refuse_network(config)
    device = environment.choose_device(config.device)
    environment.prepare(device, fast_math=config.fast_math)
    environment.require_precision(device, config.precision)
    precision = environment.choose_precision(device, config.precision)
    config = with_default_rate(config).model_copy(update={"precision": precision})
    size = training_sizes(config)[0][1]
    with closing(noise_batches(config, size, device)) as batches:
        setup = _Setup(config, size, device, batches, *start(config, batches, device))
        return _measured(setup, rounds, on_progress or _silent)


def _measured(setup: _Setup, rounds: int, on_progress: Progress) -> Bench:
    config = setup.config
    cost = cost_of(lambda: train_step(setup.state, setup.batches.batch(setup.state.step), setup.settings))
    found = _rounds(setup, rounds, on_progress)
    steps = [sum(one.parts.values()) for one in found]
    return Bench(
        network=_named(config),
        size=setup.size,
        batch_size=config.batch_size,
        precision=config.precision,
        machine=environment.record(setup.device, fast_math=config.fast_math),
        rounds=rounds,
        matmul=median(one.matmul for one in found),
        copy=median(one.copy for one in found),
        convolution=median(one.convolution for one in found),
        cost=cost,
        seconds={part: median(one.parts[part] for one in found) for part in PARTS},
        rate=median(cost.flops / step for step in steps),
        share=median(cost.flops / step / one.matmul for step, one in zip(steps, found, strict=True)),
        convolution_share=median(one.convolution / one.matmul for one in found),
    )


@dataclass(frozen=True)
class _Round:
    """One timing of everything: rates a second, and seconds by part of the step."""

    matmul: float
    copy: float
    convolution: float
    parts: dict[str, float]


def _rounds(setup: _Setup, rounds: int, on_progress: Progress) -> list[_Round]:
    clock, precision = Clock(setup.device), setup.config.precision
    ceilings, images = Ceilings(setup.device, precision), setup.batches.batch(0).images
    with autocast(setup.device, precision):
        layers = convolutions(setup.state.model, images, DTYPES[precision])
    operations = sum(layer.flops for layer in layers)
    found = []
    for done in range(WARM_UP + rounds):
        on_progress(done, WARM_UP + rounds)
        parts = timed_step(setup.state, setup.batches, setup.settings, clock)
        convolution = operations / clock.seconds(lambda: [layer.work() for layer in layers])
        found.append(_Round(ceilings.flops(), ceilings.bytes(), convolution, parts))
    return found[WARM_UP:]


def _named(config: Config) -> str:
    width = "" if config.width == 1 else f" x {config.width:g}"
    return f"{config.model}{width}"


def _giga(value: float) -> str:
    return f"{value / 1e9:,.0f}"


def _silent(done: int, total: int) -> None:
    """Nobody watches."""
