"""Training on noise: what a step costs on this machine, before there are photos to train on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from plusx.config import Config
from plusx.data.augment import Augment
from plusx.data.loader import Batches, Indices, Order, Part, Samples
from plusx.models.normalise import Normalised
from plusx.recipes.plan import training_sizes
from plusx.training.settings import Settings
from plusx.training.step import State
from plusx.training.world import ALONE, World
from plusx.verbs.labelled import training_preprocess
from plusx.verbs.network import build_network, whiten

CLASSES = 2
STORED = 4  # batches of noise that stand for decoded photos


@dataclass(frozen=True)
class Noise:
    """Stands for decoded photos: the pixels make no difference to the time."""

    pixels: npt.NDArray[np.uint8]

    def read(self, rows: Indices) -> npt.NDArray[np.uint8]:
        """uint8 [n, S, S, 3]."""
        return self.pixels[rows]


def noise_batches(config: Config, size: int, device: torch.device, world: World = ALONE) -> Batches:
    """Batches of noise, stored as the recipe stores photos and augmented as it does, at `size` px."""
    largest = max(size for _, size in training_sizes(config))
    side, count = training_preprocess(config, largest).crop, STORED * config.batch_size
    noise = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    rows = np.arange(count)
    samples = Samples(rows % CLASSES, rows, [str(row) for row in rows], CLASSES)
    order, part = Order(config.seed, config.batch_size), Part(device, world.rank, world.size)
    return Batches(Noise(noise), samples, order, Augment.of(config.model_dump()), lambda _: size, part)


def started_network(config: Config, batches: Batches, device: torch.device) -> Normalised:
    """The recipe's network as it is before its first step."""
    network = build_network(config, CLASSES, device)
    whiten(network, batches)
    return network


def start(config: Config, batches: Batches, device: torch.device) -> tuple[State, Settings]:
    """A training of the recipe's network that could begin."""
    values: dict[str, Any] = config.model_dump() | {"frozen": 0.0}
    settings = Settings.of(values, total_steps=1_000_000, steps_per_epoch=batches.steps_per_epoch)
    return State.fresh(started_network(config, batches, device), settings), settings
