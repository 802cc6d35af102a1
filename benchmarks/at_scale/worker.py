"""One of several processes that measure together: messages, computing, whole training steps. Started by `group`.

    python worker.py TASKS       # JSON; RANK, WORLD_SIZE and MASTER_ADDR as torchrun sets them

The first process prints one line of JSON per task.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from plusx.models.normalise import Normalised
from plusx.models.registry import create_model

NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": {"name": "resnet18"},
    "resnet50": {"name": "resnet50"},
    "resnet10 x 0.5": {"name": "resnet10", "width": 0.5, "downsampling": "pool"},
    "resnet16 x 0.5": {"name": "resnet16", "width": 0.5, "downsampling": "pool"},
}
CLASSES = 2
WARM_UP = 2
TIMEOUT = timedelta(seconds=120)


class Exchanged(torch.autograd.Function):
    """What batch norm over all processes sends: one gather of each one's statistics forward, one sum backward."""

    @staticmethod
    def forward(context: Any, maps: Tensor, channels: int) -> Tensor:
        """`maps` as they are."""
        context.channels = channels
        ours = torch.zeros(3, channels, dtype=torch.double)
        dist.all_gather([torch.empty_like(ours) for _ in range(dist.get_world_size())], ours)
        return maps.view_as(maps)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient as it is."""
        dist.all_reduce(torch.zeros(2, context.channels, dtype=torch.double))
        return gradients[0], None


def exchanging(norm: Any, maps: tuple[Tensor]) -> tuple[Tensor]:
    """A hook before a norm layer."""
    return (Exchanged.apply(maps[0], norm.num_features),)  # type: ignore[no-untyped-call]


class Training:
    """A network and noise to train it on; of several processes together, or each for itself."""

    def __init__(
        self, network: str, size: int, batch: int, *, together: bool, norms: bool, classes: int = CLASSES
    ) -> None:
        torch.manual_seed(0)
        built = create_model(classes=classes, **NETWORKS[network])
        self.network = Normalised(built, (0.5,) * 3, (0.5,) * 3).to(memory_format=torch.channels_last)
        self.norms = [layer for layer in self.network.modules() if isinstance(layer, nn.BatchNorm2d)]
        for layer in self.norms if norms else ():
            layer.register_forward_pre_hook(exchanging)
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.01, momentum=0.9, nesterov=True)
        self.together = together
        self.model: nn.Module = self.network
        if together:
            warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
            self.model = DistributedDataParallel(self.network, broadcast_buffers=False, find_unused_parameters=True)
        noise = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
        self.images = noise.contiguous(memory_format=torch.channels_last)
        self.targets = torch.arange(batch) % CLASSES
        self.backward: list[float] = []

    def step(self) -> None:
        """Forward, backward, update; of several processes, the sum of what they have counted."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(self.images), self.targets)
        started = time.perf_counter()
        loss.backward()  # type: ignore[no-untyped-call]
        self.backward.append(time.perf_counter() - started)
        self.optimizer.step()
        if self.together:
            dist.all_reduce(torch.tensor([loss.item(), 0.0], dtype=torch.float64))

    def facts(self) -> dict[str, float]:
        """Bytes of gradients and of those sent last, norm layers, bytes each gathers and sums, seconds of backward."""
        sizes = [parameter.numel() * 4 for parameter in self.network.parameters()]
        channels = statistics.mean([float(layer.num_features) for layer in self.norms])
        return {
            "gradients": sum(sizes),
            "last": last_bucket(sizes),
            "layers": len(self.norms),
            "gathered": 24 * channels,
            "summed": 16 * channels,
            "backward": statistics.median(self.backward[WARM_UP:] or self.backward),
        }


def last_bucket(sizes: Sequence[int]) -> int:
    """Bytes of what DistributedDataParallel sends last: the first parameters, until they are a megabyte."""
    total = 0
    for size in sizes:
        total += size
        if total >= 1 << 20:
            break
    return total


def timed(work: Callable[[], object], rounds: int, seconds: float) -> list[float]:
    """Seconds of each of `rounds` runs of `work`, after some that do not count; fewer where they take too long."""
    for _ in range(WARM_UP):
        work()
    begun, found = time.perf_counter(), list[float]()
    while len(found) < rounds:
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
        if _agreed(len(found) >= 3 and time.perf_counter() - begun > seconds):
            break
    return found


def _agreed(over: bool) -> bool:
    """What the first process says, so that all stop at once."""
    if not dist.is_initialized():
        return over
    said = torch.tensor([int(over)])
    dist.broadcast(said, 0)
    return bool(said)


def messages(task: dict[str, Any]) -> dict[str, Any]:
    """Median seconds of an all-reduce or an all-gather, by its bytes."""
    found = {}
    for size in task["bytes"]:
        mine = torch.zeros(size // 4)
        parts = [torch.zeros(size // 4) for _ in range(dist.get_world_size())]
        reduces = task["do"] == "all_reduce"
        work = partial(dist.all_reduce, mine) if reduces else partial(dist.all_gather, parts, mine)
        times = timed(work, task["rounds"], task["seconds"])
        found[str(size)] = {"seconds": statistics.median(times), "rounds": len(times)}
    return {"sizes": found}


def steps(task: dict[str, Any]) -> dict[str, Any]:
    """Median seconds of a step: of all processes together, or each for itself though at the same time."""
    together = task.get("together", dist.is_initialized())
    training = Training(task["network"], task["size"], task["batch"], together=together, norms=task.get("norms", False))
    if dist.is_initialized():
        dist.barrier()
    times = timed(training.step, task["rounds"], task["seconds"])
    return {"seconds": statistics.median(times), "rounds": len(times), **training.facts()}


def main() -> None:
    """Do the tasks in turn."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    size = int(os.environ["WORLD_SIZE"])
    if size > 1:
        dist.init_process_group("gloo", timeout=TIMEOUT)
    for task in json.loads(sys.argv[1]):
        found = messages(task) if task["do"].startswith("all_") else steps(task)
        if os.environ["RANK"] == "0":
            print(json.dumps({**task, "workers": size, **found}), flush=True)
    if size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
