"""One of several processes that measure together: messages, and the training step of plusx. Started by `group`.

    python worker.py TASKS       # JSON; RANK, WORLD_SIZE and MASTER_ADDR as torchrun sets them

The first process prints one line of JSON per task.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from plusx.models.normalise import Normalised
from plusx.models.registry import create_model
from plusx.training.batch_norm import synchronise
from plusx.training.replica import SYNCHRONISED
from plusx.training.settings import Settings
from plusx.training.step import State, train_step
from plusx.training.world import ALONE, World, joined

NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": {"name": "resnet18"},
    "resnet50": {"name": "resnet50"},
    "resnet10 x 0.5": {"name": "resnet10", "width": 0.5, "downsampling": "pool"},
    "resnet16 x 0.5": {"name": "resnet16", "width": 0.5, "downsampling": "pool"},
}
CLASSES = 2
WARM_UP = 2
GATHERED, SUMMED = 3 * 8, 2 * 8  # bytes a channel that a norm over all processes sends, forward and backward


@dataclass
class Noise:
    """The share [b, 3, size, size] that a process has of a batch."""

    images: Tensor
    targets: Tensor
    indices: npt.NDArray[np.int64]
    shares: tuple[int, ...]


class Training:
    """A network and noise to train it on; by the processes of `world` together, or by each for itself."""

    def __init__(self, task: dict[str, Any], world: World = ALONE, classes: int = CLASSES) -> None:
        torch.manual_seed(0)
        built = create_model(classes=classes, **NETWORKS[task["network"]])
        network = Normalised(built, (0.5,) * 3, (0.5,) * 3).to(memory_format=torch.channels_last)
        norm = SYNCHRONISED if task["norms"] else "per-process"
        self.settings = Settings(1_000_000, 1_000, 0.01, batch_norm=norm)
        if task["norms"]:
            synchronise(network, world)  # of one process too: what they compute, without a message
        self.state = State.fresh(network, self.settings, world=world)
        share, size = task["batch"], task["size"]
        noise = torch.randint(0, 256, (share, 3, size, size), dtype=torch.uint8)
        rows, photos = np.arange(share * world.size), noise.contiguous(memory_format=torch.channels_last)
        self.batch = Noise(photos, torch.arange(share) % classes, rows, (share,) * world.size)
        self.backward: list[float] = []

    def step(self) -> None:
        """One training step of plusx."""
        passes: list[float] = []
        hook = self.state.model.register_forward_hook(lambda *_: passes.append(time.perf_counter()))
        update = self.state.optimizer.register_step_pre_hook(lambda *_: passes.append(time.perf_counter()))
        train_step(self.state, self.batch, self.settings)
        self.backward.append(passes[1] - passes[0])
        for one in (hook, update):
            one.remove()

    def facts(self) -> dict[str, float]:
        """Bytes of gradients and of those sent last, norm layers, bytes each gathers and sums, seconds of backward."""
        sizes = [parameter.numel() * 4 for parameter in self.state.model.parameters()]
        layers = [layer for layer in self.state.model.modules() if isinstance(layer, nn.BatchNorm2d)]
        channels = statistics.mean([float(layer.num_features) for layer in layers])
        return {
            "gradients": sum(sizes),
            "last": last_bucket(sizes),
            "layers": len(layers),
            "gathered": GATHERED * channels,
            "summed": SUMMED * channels,
            "backward": statistics.median(self.backward),
        }


def last_bucket(sizes: Sequence[int]) -> int:
    """Bytes of what DistributedDataParallel sends last: the first parameters, until they are a megabyte."""
    total = 0
    for size in sizes:
        total += size
        if total >= 1 << 20:
            break
    return total


def timed(world: World, work: Callable[[], object], rounds: int, seconds: float) -> list[float]:
    """Seconds of each of `rounds` runs of `work`, after some that do not count; fewer where they take too long."""
    for _ in range(WARM_UP):
        work()
    begun, found = time.perf_counter(), list[float]()
    while len(found) < rounds:
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
        if world.tell(len(found) >= 3 and time.perf_counter() - begun > seconds):
            break
    return found


def messages(world: World, task: dict[str, Any]) -> dict[str, Any]:
    """Median seconds of an all-reduce or an all-gather, by its bytes."""
    found = {}
    for size in task["bytes"]:
        mine = torch.zeros(size // 4)
        parts = [torch.zeros(size // 4) for _ in range(world.size)]
        reduces = task["do"] == "all_reduce"
        work = partial(dist.all_reduce, mine) if reduces else partial(dist.all_gather, parts, mine)
        times = timed(world, work, task["rounds"], task["seconds"])
        found[str(size)] = {"seconds": statistics.median(times), "rounds": len(times)}
    return {"sizes": found}


def steps(world: World, task: dict[str, Any]) -> dict[str, Any]:
    """Median seconds of a step: of all processes together, or each for itself though at the same time."""
    training = Training(task, world if task["together"] else ALONE)
    world.tell()  # all have come
    times = timed(world, training.step, task["rounds"], task["seconds"])
    return {"seconds": statistics.median(times), "rounds": len(times), **training.facts()}


def main() -> None:
    """Do the tasks in turn."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with joined(torch.device("cpu")) as world:
        for task in json.loads(sys.argv[1]):
            found = (messages if task["do"].startswith("all_") else steps)(world, task)
            if world.first:
                print(json.dumps({**task, "workers": world.size, **found}), flush=True)


if __name__ == "__main__":
    main()
