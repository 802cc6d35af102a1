"""The network of one process among those of the others: gradients are averaged, and all stay alike to the last bit."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from plusx.errors import processes as sentences
from plusx.training.batch_norm import SynchronisedBatchNorm2d
from plusx.training.settings import Settings
from plusx.training.world import World

SYNCHRONISED = "synchronised"


class Replica:
    """Computes with `model`, whose parameters all learn, or will; what is checkpointed and kept is `model` itself.

    Of DistributedDataParallel only the sums of gradients are used. Parameters that no process has used are left
    without a gradient, so that layers may be frozen and thawed on the way. With `find_unused_parameters` the
    gradients are also summed in the buckets of the first step for good: without it PyTorch makes new buckets after
    one step (`should_rebuild_buckets` in reducer.hpp, torch 2.15), of which three processes and more add up
    in another order, and a resumed run would differ from an unbroken one in its last bits.
    """

    def __init__(self, model: nn.Module, world: World) -> None:
        self.world = world
        self._norms = [module for module in model.modules() if isinstance(module, SynchronisedBatchNorm2d)]
        self.forward: Callable[[Tensor], Tensor] = model  # the answers to photos [b, ...]
        self._summing: DistributedDataParallel | None = None
        if world.size > 1:
            with warnings.catch_warnings():  # newer versions call `broadcast_buffers` by another name
                warnings.simplefilter("ignore", FutureWarning)
                self._summing = DistributedDataParallel(
                    _WithUnused(model), broadcast_buffers=False, find_unused_parameters=True
                )
            self._summing.register_comm_hook(None, lambda _, bucket: _averaged(world, bucket))
            self.forward = self._summing

    @contextmanager
    def part(self, *, last: bool, apart: bool) -> Iterator[None]:
        """Around the forward and backward pass of a part of a batch: gradients are summed with the `last`.

        `apart`: every process has all of the batch, so that norms need nothing from the others.
        """
        for norm in self._norms:
            norm.apart = apart
        with nullcontext() if last or self._summing is None else self._summing.no_sync():
            yield


def _averaged(world: World, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """What DistributedDataParallel does with gradients, to the last bit, and counted, so that others see who hangs.

    It multiplies by 1 / size (reducer.cpp, `mark_variable_ready_dense`), where the hooks of PyTorch divide.
    """
    world.enter()
    gradients = bucket.buffer().mul_(1 / world.size)
    sent = dist.all_reduce(gradients, async_op=True)
    assert sent is not None
    found: torch.futures.Future[Tensor] = sent.get_future().then(lambda done: done.value()[0])
    return found


class _WithUnused(nn.Module):
    """The model beside a parameter on which nothing hangs: where all are used, PyTorch advises not to look for others.

    It does so in every process, past the filters of Python's warnings.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.unused = nn.Parameter(torch.zeros(1, device=next(model.parameters()).device))

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.model(images)
        return answer


def agree(world: World, model: nn.Module, kept: nn.Module, settings: Settings, step: int, before: int) -> None:
    """Make sure that every process has the weights of the first, bit for bit. Raises RunError naming one that has not.

    `before`: the last step after which they had; -1 where none is known.

    Norms of each process's own photos have statistics of their own: those of the first are the ones that are kept.
    """
    if world.size == 1:
        return
    if settings.batch_norm != SYNCHRONISED:
        for module in (model, kept):
            world.follow(module.buffers())
    digest = hashlib.sha256()
    for value in (*model.state_dict().values(), *kept.state_dict().values()):
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    rank = differing(world, digest.hexdigest())
    if rank is not None:
        raise sentences.drifted(rank, world.size, step, max(0, before))


def differing(world: World, digest: str) -> int | None:
    """The lowest rank whose digest is not that of the first process; None where all are equal."""
    said = world.hear(digest)
    return next((rank for rank, one in enumerate(said) if one != said[0]), None)
