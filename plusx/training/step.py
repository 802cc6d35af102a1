"""The one training step. Precision, accumulation, clipping and averaging are values, not branches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plusx import keyed
from plusx.training.averaging import Average
from plusx.training.batch_norm import synchronise
from plusx.training.layers import freeze_or_thaw
from plusx.training.optimizer import build_optimizer, set_rate
from plusx.training.replica import SYNCHRONISED, Replica, agree
from plusx.training.settings import Settings
from plusx.training.world import ALONE, World

_AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Batch(Protocol):
    """Images [b, 3, H, W] as uint8 or floats on the 0..255 scale; targets int64 [b] or probabilities [b, C].

    They are the share that this process has of a batch of B photos, whose `indices` are [B]; `shares` is how many
    each process has, B together, or B each where there are too few to share. One process alone has all, and (B,).
    """

    images: Tensor
    targets: Tensor
    indices: npt.NDArray[np.int64]

    @property
    def shares(self) -> tuple[int, ...]:
        """Photos of each process, by rank."""


@dataclass
class State:
    """Everything that training changes. `step` counts finished optimizer updates.

    `of`: what is trained, as plain values by name, such as its network and classes; a checkpoint of something else is
    refused.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: Average | None
    step: int = 0
    validated: int = 0  # the last step after which a validation was finished
    best: float | None = None
    best_step: int = 0
    stale: int = 0  # validations since the best one
    agreed: int = -1  # the last step after which all processes were seen to have the same weights
    of: Mapping[str, Any] = field(default_factory=dict)
    world: World = ALONE
    replica: Replica = field(init=False)

    def __post_init__(self) -> None:
        self.replica = Replica(self.model, self.world)

    @classmethod
    def fresh(
        cls, model: nn.Module, settings: Settings, of: Mapping[str, Any] | None = None, world: World = ALONE
    ) -> State:
        """The state before the first step of `model`, which lies on its device already and is that of all processes.

        Raises UsageError where it has norms that cannot be synchronised, and they are to be.
        """
        if world.size > 1 and settings.batch_norm == SYNCHRONISED:
            synchronise(model, world)
        device = next(model.parameters()).device
        scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16" and device.type == "cuda")
        averaged = settings.average == "ema"
        average = Average(model, settings.average_decay, settings.average_every) if averaged else None
        return cls(model, build_optimizer(model, settings), scaler, average, of=of or {}, world=world)

    @property
    def kept(self) -> nn.Module:
        """The model that is validated and, in the end, kept: the average where there is one."""
        return self.average.model if self.average else self.model

    def agree(self, settings: Settings) -> None:
        """Raise RunError where processes have come to have different weights; see `replica.agree`."""
        if self.agreed != self.step:
            agree(self.world, self.model, self.kept, settings, self.step, self.agreed)
            self.agreed = self.step

    @property
    def learning(self) -> list[nn.Parameter]:
        """The parameters that the optimizer updates, now or once they are thawed."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


@dataclass(frozen=True)
class StepResult:
    """Mean cross-entropy of the batch, share of it answered right before the update, and the rate used.

    The same in every process. `asked`: one of them was asked to stop.
    """

    loss: float
    accuracy: float
    rate: float
    asked: bool = False


class NotFiniteError(Exception):
    """The loss of a batch is NaN or infinite; nothing was updated."""

    def __init__(self, loss: float) -> None:
        super().__init__(loss)
        self.loss = loss


def train_step(state: State, batch: Batch, settings: Settings) -> StepResult:
    """Forward, backward and update on one batch. Raises NotFiniteError before anything but norm statistics changed."""
    result = compute_gradients(state, batch, settings)
    apply_gradients(state, settings)
    return result


def compute_gradients(state: State, batch: Batch, settings: Settings, *, asked: bool = False) -> StepResult:
    """The part of a step that takes long and leaves parameters, momentum and averages as they are.

    `asked`: this process was asked to stop, which all of them hear.
    """
    torch.manual_seed(keyed.global_seed(settings.seed, state.step, state.world.rank))  # for layers such as dropout
    rate = set_rate(state.optimizer, settings, state.step)
    state.model.train()
    freeze_or_thaw(state.model, state.learning, settings, state.step)
    state.optimizer.zero_grad(set_to_none=True)
    loss, right = torch.zeros((), device=batch.images.device), torch.zeros((), device=batch.images.device)
    parts, photos = min(settings.accumulate, *batch.shares), sum(batch.shares)  # of as many parts in every process
    whole = photos > len(batch.indices)  # in every process
    pieces = zip(batch.images.tensor_split(parts), batch.targets.tensor_split(parts), strict=True)
    for i, (images, targets) in enumerate(pieces, start=1):
        with state.replica.part(last=i == parts, apart=whole):
            part, hits = _backward(state, images, targets, settings, len(images) / photos)
        loss, right = loss + part, right + hits
    where = batch.images.device if batch.images.is_cuda else None  # NCCL has trees, gloo a ring of 2 (W - 1) messages
    sums = state.world.add(torch.tensor([loss.item(), right.item(), asked], dtype=torch.float64, device=where))
    mean, hits_of_all, asking = sums.tolist()
    if not math.isfinite(mean):
        raise NotFiniteError(mean)
    return StepResult(mean, hits_of_all / photos, rate, asking > 0)


def apply_gradients(state: State, settings: Settings) -> None:
    """The short part: clip, update, average, count."""
    if settings.clip_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.step += 1
    if state.average is not None:
        state.average.update(state.model, state.step)


def _backward(state: State, images: Tensor, targets: Tensor, settings: Settings, share: float) -> tuple[Tensor, Tensor]:
    """Add the gradients of one part of the batch; returns its share of the loss and its number of right answers.

    The gradients of all processes are averaged, where their sum is what is wanted: hence the factor.
    """
    with autocast(images.device, settings.precision):
        logits = state.replica.forward(images)  # [b, C]
    loss = F.cross_entropy(logits.float(), targets, label_smoothing=settings.label_smoothing) * share
    state.scaler.scale(loss * state.world.size).backward()  # type: ignore[no-untyped-call]
    labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
    return loss.detach(), (logits.argmax(dim=1) == labels).sum()


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Reduced precision for the forward pass, or a context that changes nothing for fp32."""
    context: AbstractContextManager[None] = torch.autocast(
        device.type, dtype=_AUTOCAST[precision] if precision != "fp32" else None, enabled=precision != "fp32"
    )
    return context
