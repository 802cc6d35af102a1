"""The processes that train one network together, and the few things they say to each other.

Whoever started them (torchrun) has told each its rank; PyTorch carries the messages, by gloo between CPUs and NCCL
between GPUs. One process is a world of its own in which nothing is sent, so that nobody has to ask how many there are.
What is sent are tensors and JSON, never pickles.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from plusx import errors
from plusx.errors import Error
from plusx.launch import launched

TIMEOUT = timedelta(hours=2)  # of one message; whoever is missing is noticed long before, by other means

Rows = npt.NDArray[Any]


class World:
    """`rank` of `size` processes. All of them have to ask for the same things in the same order."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def add(self, values: Tensor) -> Tensor:
        """The sum over all processes of `values`, any shape, the same on each; computed in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def tell(self, value: Any = None) -> Any:
        """What the first process says, as JSON; the `value` of the others does not count."""
        if self.size == 1:
            return value
        said = torch.from_numpy(np.frombuffer(json.dumps(value).encode(), np.uint8).copy()) if self.first else None
        length = torch.tensor([0 if said is None else len(said)])
        dist.broadcast(length, 0)
        text = torch.empty(int(length), dtype=torch.uint8) if said is None else said
        dist.broadcast(text, 0)
        return json.loads(text.numpy().tobytes())

    def once(self, do: Callable[[], Any]) -> Any:
        """What `do` gives in the first process, told to all as JSON; only that one does it.

        An Error that it raises is raised in every process.
        """
        if self.size == 1:
            return do()
        said: Any = None
        if self.first:
            try:
                said = {"value": do()}
            except Error as error:
                self.tell({"kind": type(error).__name__, "message": error.message, "code": error.code})
                raise
        said = self.tell(said)
        if "kind" in said:
            raise getattr(errors, said["kind"])(said["message"], code=said["code"])
        return said["value"]

    def gather(self, rows: Rows) -> Rows:
        """The rows of all processes, dealt out as `mine` deals them, back in one array: [n, ...] on each.

        Of n things process r has those at r, r + size, r + 2 size, ...; numbers of rows may differ by one.
        """
        if self.size == 1:
            return rows
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = len(rows)
        self.add(counts)
        most = int(counts.max())
        padded = np.zeros((most, *rows.shape[1:]), rows.dtype)
        padded[: len(rows)] = rows
        parts = [torch.empty(padded.nbytes, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(parts, torch.from_numpy(padded.reshape(-1).view(np.uint8)))
        whole = np.empty((int(counts.sum()), *rows.shape[1:]), rows.dtype)
        for rank, part in enumerate(parts):
            whole[rank :: self.size] = part.numpy().view(rows.dtype).reshape(padded.shape)[: int(counts[rank])]
        return whole

    def mine(self, n: int) -> slice:
        """Which of n things this process has."""
        return slice(self.rank, n, self.size)


ALONE = World()


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world that torchrun has started this process in, for as long as the block lasts."""
    launch = launched()
    if launch.size == 1:
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield World(launch.rank, launch.size)
    finally:
        dist.destroy_process_group()
