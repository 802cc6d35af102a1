"""What `train` tells while it prepares, besides the events of the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from plusx.config import Config
from plusx.data.source import Listing
from plusx.recipes.plan import Plan
from plusx.training.events import Event


@dataclass(frozen=True)
class Decoding:
    """Photos of one split are being decoded into the cache."""

    split: str
    done: int
    total: int


@dataclass(frozen=True)
class Built:
    """Photos and network are ready."""

    config: Config
    listing: Listing
    counts: Mapping[str, int]
    network: nn.Module
    run: Path


@dataclass(frozen=True)
class Planned:
    """The length and sizes of the run are fixed."""

    plan: Plan
    config: Config


@dataclass(frozen=True)
class Started:
    """Weights lie in the network; `text` says what matched, in one line."""

    text: str


TrainEvent = Event | Decoding | Built | Planned | Started
