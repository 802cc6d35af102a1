"""Larger than can be run here: the model with figures of others, for GPUs that train and that score."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from at_scale.assumed import CORES_OF_A_MACHINE, EPOCHS, GPUS_OF_A_MACHINE, IMAGENET, figure
from at_scale.constants import FACTS, SUMS, of_lines
from plusx.bench.scaling import (
    Cluster,
    Collection,
    Link,
    Losses,
    Machine,
    Scored,
    Step,
    Store,
    Work,
    efficiency,
    scored,
    step,
)

Line = dict[str, Any]
NETWORKS = {"ResNet-18": "resnet18", "ResNet-50": "resnet50"}
GPUS = (8, 64, 512)
OF_A_GPU, OF_ALL = 128, 4096  # photos of a step: kept for each GPU, or for all together
CARDS = ("100 Gbit/s", "400 Gbit/s", "4 x 200 Gbit/s")
CARD = "400 Gbit/s"
GATHERED, SUMMED, OWN = "gathered", "summed", "own"
IN_SHARD = 10_000  # photos
ROW = 100.0  # bytes of an answer, in a Parquet part
START = 60.0  # seconds until the first photo is scored
INTERVAL = 900.0  # seconds between checkpoints


@dataclass(frozen=True)
class Own:
    """Measured here, taken to hold elsewhere: what networks send, how fast a core decodes and a disk is written."""

    networks: dict[str, Line]
    backward: float  # share of a step behind which gradients can travel
    decoded: float  # photos a second and core
    written: float  # bytes a second
    message: float  # seconds of a message of gloo between two processes that have a core each
    checkpoints: dict[str, float]  # bytes, by network


def own(lines: list[Line]) -> Own:
    """From the lines of a measurement."""
    facts = {line["network"]: line for line in lines if line["do"] == "facts"}
    alone = [e for e in lines if e["do"] == "step" and e["role"] == "fit" and e["workers"] == 1]
    decode = next(line for line in lines if line["do"] == "decode")
    largest = max((line for line in lines if line["do"] == "checkpoint"), key=lambda line: line["bytes"])
    return Own(
        networks=facts,
        backward=sum(line["backward"] / line["seconds"] for line in alone) / len(alone),
        decoded=1 / decode["seconds"],
        written=largest["bytes"] / largest["seconds"],
        message=of_lines(lines).free.delay,
        checkpoints={name: 2 * line["gradients"] for name, line in facts.items()},  # weights and momentum
    )


def cluster(gpus: int, card: str = CARD) -> Cluster:
    """So many GPUs, eight to a machine."""
    inner = Link(figure("NVLink, a message"), figure("NVLink"))
    outer = Link(figure("between machines, a message"), figure(card))
    machines = max(1, gpus // GPUS_OF_A_MACHINE)
    return Cluster(machines, min(gpus, GPUS_OF_A_MACHINE), inner, outer, trees=True, base=figure("NCCL, a collective"))


@dataclass(frozen=True)
class How:
    """How a run is set up: photos kept decoded or decoded in every epoch, what lies between machines, which batch norm.

    `norm`: over all GPUs, with statistics that all gather, as plusx does, or that all sum up; or each GPU's own.
    """

    jpegs: bool = False
    card: str = CARD
    norm: str = GATHERED


USUAL = How()


def work(name: str, measured: Own, norm: str = GATHERED) -> Work:
    """What a step asks of one GPU."""
    facts = measured.networks[NETWORKS[name]]
    asked = Work(
        per_photo=1 / figure(f"training, {name}"),
        floor=figure(f"smallest step, {name}"),
        backward=measured.backward,
        sums=SUMS,
        **{key: facts[key] for key in FACTS},
    )
    if norm == GATHERED:
        return asked
    return replace(asked, gathered=0.0, layers=2 * asked.layers if norm == SUMMED else 0)


def reading(gpus: int, photos: float, measured: Own) -> float:
    """Seconds in which a machine fetches and decodes the JPEGs of its GPUs' next step."""
    of_machine = photos * min(gpus, GPUS_OF_A_MACHINE)
    fetched = of_machine * figure("a photo") / figure("network of a machine")
    return max(fetched, of_machine / (measured.decoded * CORES_OF_A_MACHINE))


@dataclass(frozen=True)
class Training:
    """A run of ninety epochs: one step, photos a second, their efficiency, hours, and what limits it most."""

    gpus: int
    photos: float  # of a GPU in a step
    one: Step
    rate: float
    efficiency: float
    hours: float
    limit: str

    @property
    def machine_hours(self) -> float:
        """Of machines of eight GPUs, or a part of one."""
        return self.hours * max(1, self.gpus // GPUS_OF_A_MACHINE)


def trained(name: str, gpus: int, measured: Own, photos: float, how: How = USUAL) -> Training:
    """`photos` a GPU in each step."""
    asked = work(name, measured, how.norm)
    read = reading(gpus, photos, measured) if how.jpegs else 0.0
    one = step(asked, photos, cluster(gpus, how.card), read)
    best = OF_A_GPU * asked.per_photo  # of one GPU by itself, in a step that is large enough
    machines = max(1, gpus // GPUS_OF_A_MACHINE)
    losses = losses_of(name, measured)
    hours = losses.seconds(EPOCHS * IMAGENET / (gpus * photos) * one.seconds, machines, INTERVAL) / 3600
    share = efficiency(best, OF_A_GPU, one.seconds, photos)
    return Training(gpus, photos, one, gpus * photos / one.seconds, share, hours, _limit(asked, photos, one, gpus))


def _limit(asked: Work, photos: float, one: Step, gpus: int) -> str:
    """What costs most of what is lost."""
    costs = {
        "too few photos for a GPU": asked.seconds(photos) - photos * asked.per_photo,
        "reading and decoding": one.seconds - one.computing - one.gradients - one.norms - one.counting,
        "all-reduce of gradients": one.gradients,
        "messages of batch norm": one.norms,
        "small sums": one.counting,
    }
    found = max(costs, key=lambda name: costs[name])
    return found if gpus > 1 and costs[found] > 0.001 * one.seconds else "none"


def losses_of(name: str, measured: Own) -> Losses:
    """Checkpoints as fast as this machine writes them, failures and restarts as others saw them."""
    write = measured.checkpoints[NETWORKS[name]] / measured.written
    return Losses(write, figure("failures"), figure("restart"), START)


def scoring(name: str, photos: float, machines: int, measured: Own, in_shard: float = IN_SHARD) -> Scored:
    """A collection scored by machines of eight GPUs."""
    machine = Machine(
        computed=GPUS_OF_A_MACHINE * figure(f"scoring, {name}"),
        decoded=CORES_OF_A_MACHINE * measured.decoded,
        network=figure("network of a machine"),
    )
    store = Store(figure("requests"), math.inf)
    return scored(Collection(photos, figure("a photo"), in_shard, ROW), machine, machines, store, START)
