"""How long a step takes on this machine, measured before a timed run is planned."""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass

import torch

from plusx.config import Config
from plusx.models.normalise import Normalised
from plusx.recipes.plan import training_sizes
from plusx.training.settings import Settings
from plusx.training.step import State, train_step

WARM_UP, MEASURED = 2, 5


@dataclass
class Noise:
    """A batch of random pixels: as much work as photos."""

    images: torch.Tensor
    targets: torch.Tensor
    indices: object = None


def seconds_per_step(network: Normalised, config: Config, device: torch.device) -> dict[int, float]:
    """Median seconds of a training step at every size of the recipe, on a copy of the network."""
    settings = Settings.of(config.model_dump(), total_steps=10_000, steps_per_epoch=100)
    state = State.fresh(copy.deepcopy(network), settings)
    sizes = sorted({size for _, size in training_sizes(config)})
    return {size: _median_step(state, settings, _noise(config.batch_size, size, device)) for size in sizes}


def seconds_per_photo_tested(network: Normalised, size: int, device: torch.device) -> float:
    """Seconds to answer for one photo of `size` pixels, in batches."""
    network.eval()
    images = _noise(64, size, device).images
    with torch.inference_mode():
        network(images)
        started = time.perf_counter()
        network(images)[0, 0].item()
    return (time.perf_counter() - started) / len(images)


def _median_step(state: State, settings: Settings, batch: Noise) -> float:
    taken = []
    for _ in range(WARM_UP + MEASURED):
        started = time.perf_counter()
        train_step(state, batch, settings)  # type: ignore[arg-type]
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[WARM_UP:])


def _noise(count: int, size: int, device: torch.device) -> Noise:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return Noise(images.to(device), (torch.arange(count) % 2).to(device))
