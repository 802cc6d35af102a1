"""The one training step. Precision, accumulation, clipping and averaging are values, not branches."""

from __future__ import annotations

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
from plusx.training.layers import freeze_or_thaw
from plusx.training.optimizer import build_optimizer, set_rate
from plusx.training.settings import Settings

_AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Batch(Protocol):
    """Images [B, 3, H, W] as uint8 or floats on the 0..255 scale; targets int64 [B] or probabilities [B, C]."""

    images: Tensor
    targets: Tensor
    indices: npt.NDArray[np.int64]


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
    of: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def fresh(cls, model: nn.Module, settings: Settings, of: Mapping[str, Any] | None = None) -> State:
        """The state before the first step of `model`, which lies on its device already."""
        device = next(model.parameters()).device
        scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16" and device.type == "cuda")
        averaged = settings.average == "ema"
        average = Average(model, settings.average_decay, settings.average_every) if averaged else None
        return cls(model, build_optimizer(model, settings), scaler, average, of=of or {})

    @property
    def kept(self) -> nn.Module:
        """The model that is validated and, in the end, kept: the average where there is one."""
        return self.average.model if self.average else self.model

    @property
    def learning(self) -> list[nn.Parameter]:
        """The parameters that the optimizer updates, now or once they are thawed."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


@dataclass(frozen=True)
class StepResult:
    """Mean cross-entropy of the batch, share of it answered right before the update, and the rate used."""

    loss: float
    accuracy: float
    rate: float


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


def compute_gradients(state: State, batch: Batch, settings: Settings) -> StepResult:
    """The part of a step that takes long and leaves parameters, momentum and averages as they are."""
    torch.manual_seed(keyed.global_seed(settings.seed, state.step))  # for layers such as dropout
    rate = set_rate(state.optimizer, settings, state.step)
    state.model.train()
    freeze_or_thaw(state.model, state.learning, settings, state.step)
    state.optimizer.zero_grad(set_to_none=True)
    loss, right = torch.zeros((), device=batch.images.device), torch.zeros((), device=batch.images.device)
    parts = min(settings.accumulate, len(batch.images))
    for images, targets in zip(batch.images.chunk(parts), batch.targets.chunk(parts), strict=True):
        part, hits = _backward(state, images, targets, settings, len(images) / len(batch.images))
        loss, right = loss + part, right + hits
    if not bool(torch.isfinite(loss)):
        raise NotFiniteError(loss.item())
    return StepResult(loss.item(), right.item() / len(batch.images), rate)


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
    """Add the gradients of one part of the batch; returns its share of the loss and its number of right answers."""
    with autocast(images.device, settings.precision):
        logits = state.model(images)  # [b, C]
    loss = F.cross_entropy(logits.float(), targets, label_smoothing=settings.label_smoothing) * share
    state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
    return loss.detach(), (logits.argmax(dim=1) == labels).sum()


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Reduced precision for the forward pass, or a context that changes nothing for fp32."""
    context: AbstractContextManager[None] = torch.autocast(
        device.type, dtype=_AUTOCAST[precision] if precision != "fp32" else None, enabled=precision != "fp32"
    )
    return context
