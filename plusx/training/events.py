"""What a training loop tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn


@dataclass(frozen=True)
class StepDone:
    """One optimizer update is finished; `step` counts from 1, `seconds` is what it took."""

    step: int
    total: int
    epoch: int
    loss: float
    accuracy: float
    photos: int
    seconds: float


@dataclass(frozen=True)
class Validated:
    """A validation is finished; `best` tells whether it is the best so far."""

    step: int
    epoch: int
    metrics: Mapping[str, float]
    best: bool


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on the disk."""

    path: Path


@dataclass(frozen=True)
class WeightsDue:
    """The settings ask for the weights of this step to be kept; steps count from 0 within the epoch."""

    epoch: int
    step_in_epoch: int
    model: nn.Module


@dataclass(frozen=True)
class Notice:
    """Something the user should know, in one sentence."""

    text: str


Event = StepDone | Validated | Saved | WeightsDue | Notice
Listener = Callable[[Event], None]


def silent(_: object) -> None:
    """Nobody watches."""
