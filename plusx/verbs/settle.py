"""From a wish to settings: what recipe, plan and machine leave open is decided here, before a photo is decoded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import torch

from plusx.config import Config
from plusx.errors import transfer, usage
from plusx.recipes import plan as planning
from plusx.recipes.plan import Plan
from plusx.recipes.recipe import ENOUGH_EPOCHS, SCALES
from plusx.recipes.resolve import given, resolve
from plusx.training import environment
from plusx.training.world import ALONE, World
from plusx.verbs.board import require_tensorboard
from plusx.verbs.network import forward_flops, with_default_rate
from plusx.verbs.pace import RESERVE, seconds_per_step
from plusx.verbs.rehearsal import CLASSES, noise_batches, started_network
from plusx.verbs.wish import Wish

CPU_BUDGET, GPU_BUDGET = 600.0, 120.0


def wished(wish: Wish, made_for: Mapping[str, Any] | None = None) -> Config:
    """The resolved settings; those that weights were `made_for` lie below all wishes.

    Raises UsageError for what cannot be, before any photo is looked at.
    """
    config = resolve(wish.flags, sets=wish.sets, file=wish.file, made_for=made_for)
    if config.tensorboard:
        require_tensorboard()
    if config.frozen and config.weights is None:
        raise transfer.frozen_without_weights()
    if wish.plan is not None:
        config = _of_the_plan(wish, planning.read_plan(wish.plan), made_for)
    fixed = config.weights is not None and config.scale == "auto"  # weights have one network
    return config.model_copy(update={"scale": "small"}) if fixed else config


def budgeted(config: Config, device: torch.device) -> Config:
    """The settings with what they leave to the machine: learning rate, precision, and a budget where there is none."""
    if config.time is None and config.epochs is None:
        config = config.model_copy(update={"time": CPU_BUDGET if device.type == "cpu" else GPU_BUDGET})
    precision = environment.choose_precision(device, config.precision)
    return with_default_rate(config).model_copy(update={"precision": precision})


def at_scale(
    config: Config, wish: Wish, device: torch.device, photos: int, started: float, world: World = ALONE
) -> Config:
    """The settings at the largest scale that sees every one of `photos` often enough in the time budget.

    Only where the scale is left open: a step of the smallest is timed on noise, and the others take as much
    longer as they have more operations; on a GPU a step of each is timed. Several processes take these steps together.
    """
    if config.scale != "auto":
        return config
    scale = "small"
    if config.time is not None and photos:
        scale = world.tell(_affordable(config, wish, device, photos, (started, world)))
    return budgeted(_scaled(config, wish, scale), device)


def _affordable(config: Config, wish: Wish, device: torch.device, photos: int, begun: tuple[float, World]) -> str:
    scales = {name: budgeted(_scaled(config, wish, name), device) for name in SCALES}
    smallest, (started, world) = next(iter(scales.values())), begun
    seconds_per_flop = _seconds_per_flop(smallest, device, world)
    left = started + (config.time or 0.0) - time.monotonic() - RESERVE
    chosen = next(iter(scales))
    for name, scaled in scales.items():
        if device.type != "cpu":  # a GPU takes as long for a small step as for a larger one
            seconds_per_flop = _seconds_per_flop(scaled, device, world)
        mean = sum(share * _flops(scaled, size) for share, size in planning.training_sizes(scaled))
        steps = left / (mean * seconds_per_flop)
        if steps * scaled.batch_size >= ENOUGH_EPOCHS[name] * photos:
            chosen = name
    return chosen


def _seconds_per_flop(config: Config, device: torch.device, world: World) -> float:
    """Of a training step at the first size, by the operations of its forward pass."""
    return _step_seconds(config, device, world) / _flops(config, planning.training_sizes(config)[0][1])


def _step_seconds(config: Config, device: torch.device, world: World) -> float:
    """Seconds of a training step at the first size."""
    size = planning.training_sizes(config)[0][1]
    with closing(noise_batches(config, size, device, world)) as batches:
        network = started_network(config, batches, device)
        at_first = config.model_copy(update={"size": size, "sizes": ()})
        return seconds_per_step(network, at_first, batches, world)[size]


def _flops(config: Config, size: int) -> int:
    return config.batch_size * forward_flops(config, CLASSES, size)


def _scaled(config: Config, wish: Wish, scale: str) -> Config:
    """What was wished, at `scale`; the budget stays."""
    resolved = resolve({**wish.flags, "scale": scale}, sets=wish.sets, file=wish.file)
    return resolved.model_copy(update={"time": config.time, "epochs": config.epochs})


def _of_the_plan(wish: Wish, plan: Plan, made_for: Mapping[str, Any] | None) -> Config:
    """The settings that the plan was made for. Raises UsageError where another budget was asked for."""
    named = given(wish.flags, wish.sets, wish.file)
    flags = dict(wish.flags) if "scale" in named or plan.scale is None else {**wish.flags, "scale": plan.scale}
    config = resolve(flags, sets=wish.sets, file=wish.file, made_for=made_for)
    budget = plan.budget()
    for name in named & {"time", "epochs"}:
        if getattr(config, name) != budget[name]:
            raise usage.plan_and_budget()
    return config.model_copy(update=budget)
