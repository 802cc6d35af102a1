"""How long the trainings of an experiment would take, from a measured step of each network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from plusx.lab.conduct import LabWish, networks, open_lab
from plusx.lab.events import Listen
from plusx.lab.fleet import fleet_of
from plusx.lab.job import settled
from plusx.lab.laboratory import NETWORKS, Lab
from plusx.lab.network import Network
from plusx.recipes.plan import training_sizes
from plusx.report.page import duration
from plusx.training.step import train_step
from plusx.verbs.rehearsal import noise_batches, start
from plusx.verbs.session import order_of

WARM_UP, MEASURED = 1, 5  # steps
STANDSTILL = 1e-30  # rate: networks without norms would diverge on noise
HEADER = ("network", "how many", "steps", "ms a step", "time of each")


@dataclass(frozen=True)
class Cost:
    """So many networks that take equally long; `seconds` of one step. `alone`: nothing else is trained meanwhile."""

    network: str
    count: int
    steps: int
    seconds: float
    alone: bool = False


@dataclass(frozen=True)
class Estimate:
    """The costs of what is still to be trained, and how many processes share it, each as fast as measured."""

    costs: tuple[Cost, ...]
    processes: int
    threads: int

    @property
    def seconds(self) -> float:
        """Of the whole, where the processes are always busy."""
        shared = [cost.count * cost.steps * cost.seconds / (1 if cost.alone else self.processes) for cost in self.costs]
        return sum(shared)

    def rows(self) -> list[tuple[str, ...]]:
        """Cells under HEADER."""
        return [
            (c.network, str(c.count), f"{c.steps:,}", f"{1e3 * c.seconds:.1f}", duration(c.steps * c.seconds))
            for c in self.costs
        ]

    def sentence(self) -> str:
        """The whole in words."""
        count = sum(cost.count for cost in self.costs)
        return (
            f"{count} networks still to be trained, {self.processes} side by side on {self.threads} threads each: "
            f"about {duration(self.seconds)} of steps, if a process is as fast beside the others as it was alone. "
            "What is measured on them comes on top."
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        costs = [vars(cost) for cost in self.costs]
        return {"networks": costs, "processes": self.processes, "threads": self.threads, "seconds": self.seconds}


def estimate(name: str, data: Sequence[str], wish: LabWish, listen: Listen) -> Estimate:
    """Measure a few steps of every network of experiment `name` that is still to be trained."""
    lab = open_lab(name, data, wish, listen)
    todo = lab.missing(networks(name, lab))
    fleet = fleet_of(wish.processes, max(1, len(todo)), lab.device.type == "cpu", lab.folder.parent / NETWORKS)
    torch.set_num_threads(fleet.threads)
    alike: dict[str, list[Network]] = {}
    for network in todo:
        alike.setdefault(replace(network, seed=lab.seeds[0]).name, []).append(network)
    costs = [_cost(lab, group[0], len(group)) for group in alike.values()]
    return Estimate(tuple(costs), fleet.processes, fleet.threads)


def _cost(lab: Lab, network: Network, count: int) -> Cost:
    name, seconds = network.name.removesuffix(f"-seed-{network.seed}"), _seconds_per_step(lab, network)
    if network.time is not None:
        return Cost(name, count, max(1, int(network.time / seconds)), seconds, network.alone)
    steps = network.steps or lab.steps
    if network.epochs is not None:
        steps = network.epochs * order_of(lab.config).steps_per_epoch(lab.counts["train"])
    return Cost(name, count, steps, seconds, network.alone)


def _seconds_per_step(lab: Lab, network: Network) -> float:
    lab.tell(f"timing {network.model}")
    config = settled(network.config(lab.config)).model_copy(update={"learning_rate": STANDSTILL})
    with closing(noise_batches(config, training_sizes(config)[-1][1], lab.device)) as batches:
        state, settings = start(config, batches, lab.device)
        seconds = []
        for _ in range(WARM_UP + MEASURED):
            started = time.perf_counter()
            train_step(state, batches.batch(state.step), settings)  # its loss is read, so the device is done
            seconds.append(time.perf_counter() - started)
    return median(seconds[WARM_UP:])
