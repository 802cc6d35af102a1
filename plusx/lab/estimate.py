"""How long the trainings of an experiment would take, from a measured step of each network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from plusx.lab.conduct import LabWish, networks, open_lab
from plusx.lab.events import Listen
from plusx.lab.fleet import fleet_of
from plusx.lab.laboratory import NETWORKS, Lab
from plusx.lab.network import Network
from plusx.recipes.plan import training_sizes
from plusx.report.page import duration
from plusx.training.step import train_step
from plusx.verbs.network import with_default_rate
from plusx.verbs.rehearsal import noise_batches, start

WARM_UP, MEASURED = 1, 5  # steps
HEADER = ("network", "seeds", "steps", "ms a step", "time of each")


@dataclass(frozen=True)
class Cost:
    """Networks that differ by their seed alone; `seconds` of one step."""

    model: str
    seeds: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """The costs of what is still to be trained, and how many processes share it, each as fast as measured."""

    costs: tuple[Cost, ...]
    processes: int
    threads: int

    @property
    def seconds(self) -> float:
        """Of the whole, where the processes are always busy."""
        return sum(cost.seeds * cost.steps * cost.seconds for cost in self.costs) / self.processes

    def rows(self) -> list[tuple[str, ...]]:
        """Cells under HEADER."""
        return [
            (c.model, str(c.seeds), f"{c.steps:,}", f"{1e3 * c.seconds:.1f}", duration(c.steps * c.seconds))
            for c in self.costs
        ]

    def sentence(self) -> str:
        """The whole in words."""
        count = sum(cost.seeds for cost in self.costs)
        return (
            f"{count} networks still to be trained, {self.processes} side by side on {self.threads} threads each: "
            f"about {duration(self.seconds)} of steps, if a process is as fast beside the others as it was alone."
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
    alike: dict[tuple[str, Any], list[Network]] = {}
    for network in todo:
        alike.setdefault((network.model, network.settings), []).append(network)
    costs = [Cost(n[0].model, len(n), n[0].steps or lab.steps, _seconds_per_step(lab, n[0])) for n in alike.values()]
    return Estimate(tuple(costs), fleet.processes, fleet.threads)


def _seconds_per_step(lab: Lab, network: Network) -> float:
    lab.tell(f"timing {network.model}")
    config = with_default_rate(network.config(lab.config))
    with closing(noise_batches(config, training_sizes(config)[-1][1], lab.device)) as batches:
        state, settings = start(config, batches, lab.device)
        seconds = []
        for _ in range(WARM_UP + MEASURED):
            started = time.perf_counter()
            train_step(state, batches.batch(state.step), settings)  # its loss is read, so the device is done
            seconds.append(time.perf_counter() - started)
    return median(seconds[WARM_UP:])
