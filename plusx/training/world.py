"""The processes that train one network together, and the few things they say to each other.

Whoever started them (torchrun) has told each its rank; PyTorch carries the messages, by gloo between CPUs and NCCL
between GPUs. One process is a world of its own in which nothing is sent, so that nobody has to ask how many there are.
What is sent are tensors and JSON, never pickles.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from plusx import errors
from plusx.errors import Error
from plusx.launch import Launch, launched
from plusx.training.heartbeat import Bounds
from plusx.training.meeting import meet
from plusx.training.peers import End, Peers

TIMEOUT = timedelta(days=1)  # of one message: decoding takes long, and who is missing is noticed long before
SAME = timedelta(seconds=3)  # how long an error waits for the first process, which may have met the same
_TOLD = "told"  # key of what the first process has failed with

Rows = npt.NDArray[Any]
T = TypeVar("T")


class World:
    """`rank` of `size` processes. All of them have to ask for the same things in the same order."""

    def __init__(self, rank: int = 0, size: int = 1, peers: Peers | None = None) -> None:
        self.rank, self.size, self.peers = rank, size, peers

    def __deepcopy__(self, memo: dict[int, Any]) -> World:
        """The copy of a network is in the same world."""
        return self

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def add(self, values: Tensor) -> Tensor:
        """The sum over all processes of `values`, any shape, the same on each; computed in place."""
        if self.size > 1:
            self.enter()
            dist.all_reduce(values)
        return values

    def each(self, values: Tensor) -> Tensor:
        """The `values` of every process, of one shape [...] on all, in order of rank: [size, ...]."""
        if self.size == 1:
            return values[None]
        found = [torch.empty_like(values) for _ in range(self.size)]
        self.enter()
        dist.all_gather(found, values.contiguous())
        return torch.stack(found)

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite `tensors` by those of the first process."""
        for tensor in tensors if self.size > 1 else ():
            self.enter()
            dist.broadcast(tensor, 0)

    def tell(self, value: Any = None) -> Any:
        """What the first process says, as JSON; the `value` of the others does not count."""
        if self.size == 1:
            return value
        self.enter()
        said = _bytes(value) if self.first else None
        length = torch.tensor([0 if said is None else len(said)])
        dist.broadcast(length, 0)
        text = torch.empty(int(length), dtype=torch.uint8) if said is None else said
        dist.broadcast(text, 0)
        return json.loads(text.numpy().tobytes())

    def hear(self, value: Any) -> list[Any]:
        """What every process says, as JSON, in order of rank."""
        if self.size == 1:
            return [value]
        said = _bytes(value)
        lengths = self.each(torch.tensor([len(said)]))[:, 0].tolist()
        texts = self.each(torch.nn.functional.pad(said, (0, max(lengths) - len(said))))
        return [json.loads(text[:n].numpy().tobytes()) for text, n in zip(texts, lengths, strict=True)]

    def once(self, do: Callable[[], Any]) -> Any:
        """What `do` gives in the first process, told to all; only that one does it.

        It has to be JSON, for one process as well. An Error that it raises is raised in every process.
        """
        if self.size == 1:
            return do()
        said: Any = None
        if self.first:
            try:
                with self.alone():
                    said = {"value": do()}
            except Error as error:
                self.tell(_plain(error))
                raise
        said = self.tell(said)
        if "kind" in said:
            raise _told(said)
        return said["value"]

    def alike(self, do: Callable[[], T]) -> T:
        """What `do` gives in each process, which all of them do. An Error that it raises in one is raised in all."""
        if self.size == 1:
            return do()
        try:
            found, fault = do(), None
        except Error as error:
            fault = error
        said = self.hear(_plain(fault) if fault else None)
        if fault:
            fault.told = not self.first
            raise fault
        failed = next((rank for rank, one in enumerate(said) if one), None)
        if failed is None:
            return found
        if failed:
            said[failed]["message"] = f"{Launch(failed, self.size)}: {said[failed]['message']}"
        raise _told(said[failed], told=not self.first)

    def job(self) -> str:
        """What this start of torchrun and all its restarts are called, and nothing else is; "" without torchrun."""
        return self.peers.job() if self.peers else ""

    def gather(self, rows: Rows) -> Rows:
        """The rows of all processes, dealt out as `mine` deals them, back in one array: [n, ...] on each.

        Of n things process r has those at r, r + size, r + 2 size, ...; numbers of rows may differ by one.
        """
        if self.size == 1:
            return rows
        counts = self.each(torch.tensor([len(rows)]))[:, 0].tolist()
        padded = np.zeros((max(counts), *rows.shape[1:]), rows.dtype)
        padded[: len(rows)] = rows
        parts = self.each(torch.from_numpy(padded.reshape(-1).view(np.uint8)))
        whole = np.empty((sum(counts), *rows.shape[1:]), rows.dtype)
        for rank, part in enumerate(parts):
            whole[rank :: self.size] = part.numpy().view(rows.dtype).reshape(padded.shape)[: counts[rank]]
        return whole

    def mine(self, n: int) -> slice:
        """Which of n things this process has."""
        return slice(self.rank, n, self.size)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Do what only this process does while the others wait for it: however long it takes, it is not slow."""
        with self.peers.alone() if self.peers else nullcontext():
            yield

    def allow(self, seconds: float) -> None:
        """Wait so long for the slowest process before it is given up."""
        if self.peers:
            self.peers.bounds = replace(self.peers.bounds, slow=seconds)

    def at(self, step: int) -> None:
        """So many steps are done, and the next one begins."""
        if self.peers:
            self.peers.at(step)

    def look(self, error: BaseException, *, asked: bool = False) -> None:
        """End this process where `error` came about since another one is lost; `asked`: this one is to stop."""
        if self.peers:
            self.peers.look(error, asked=asked)

    @contextmanager
    def ended_by(self, end: End) -> Iterator[None]:
        """Within the block `end` ends this process where another one is lost, and the main thread cannot."""
        with self.peers.ended_by(end) if self.peers else nullcontext():
            yield

    def leave(self) -> None:
        """Let nobody miss this process, which ends in order."""
        if self.peers:
            self.peers.leave()

    def enter(self) -> None:
        """Count a message that this process has come to; those that are sent from here are counted here."""
        if self.peers:
            self.peers.entered += 1

    def end(self) -> None:
        """Say nothing any more: what is left to do, the first process does alone. All leave together."""
        self.leave()
        if self.size > 1:
            dist.destroy_process_group()


ALONE = World()


@contextmanager
def joined(device: torch.device | None = None, bounds: Bounds | None = None) -> Iterator[World]:
    """The world that torchrun has started this process in, for as long as the block lasts, or until its `end`.

    Messages between GPUs go where `device` is one, or where it is not said yet and there are any. Where another process
    is lost for longer than the `bounds` allow, this one ends. Raises RunError where one never comes.
    """
    launch = launched()
    if launch.size == 1:
        yield ALONE
        return
    gpus = torch.cuda.is_available() if device is None else device.type == "cuda"
    store, rank, size = next(rendezvous("env://", launch.rank, launch.size, timeout=TIMEOUT))
    name = meet(store, launch)
    store, peers = PrefixStore(name, store), Peers(launch, name, bounds or Bounds())
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    try:
        with peers.watching():
            group = PrefixStore("group", store)
            dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=TIMEOUT)
            yield World(rank, size, peers)
    except Error as error:
        # The group is left as it is: to take it down, NCCL would wait for those that are still in a message.
        _share(store, launch, error)
        raise
    if dist.is_initialized():
        dist.destroy_process_group()


def _share(store: Store, launch: Launch, error: Error) -> None:
    """Let an error that every process meets be told by the first alone."""
    if error.told:
        return
    if launch.first:
        store.set(_TOLD, error.message)
        return
    try:
        store.wait([_TOLD], SAME)
        error.told = store.get(_TOLD).decode() == error.message
    except RuntimeError:  # it has met none, or has gone and taken the store with it
        return


def _bytes(value: Any) -> Tensor:
    """JSON, uint8 [n]."""
    return torch.from_numpy(np.frombuffer(json.dumps(value).encode(), np.uint8).copy())


def _plain(error: Error) -> dict[str, str]:
    kind = next(each for each in type(error).__mro__ if getattr(errors, each.__name__, None) is each)
    return {"kind": kind.__name__, "message": error.message, "code": error.code}


def _told(said: dict[str, str], *, told: bool = True) -> Error:
    error: Error = getattr(errors, said["kind"])(said["message"], code=said["code"])
    error.told = told
    return error
