"""The network of a run: built from its configuration, its first weights a function of the seed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plusx import keyed
from plusx.config import Config
from plusx.data.loader import Batches
from plusx.engines.torch_engine import build
from plusx.errors import models as sentences
from plusx.models import default_rate, minimum_size
from plusx.models.initialise import needs_whitening, whiten_
from plusx.models.normalise import Normalised
from plusx.recipes.plan import training_sizes

WHITENING_PHOTOS = 2_000


def network_arguments(config: Config) -> dict[str, Any]:
    """What a model file says of its network: the arguments of `create_model` besides the classes."""
    arguments: dict[str, Any] = {"name": config.model}
    departures = {"width": config.width, "stem": config.stem, "zero_init_residual": config.zero_init_residual}
    usual = {"width": 1.0, "stem": "default", "zero_init_residual": False}
    return arguments | {name: value for name, value in departures.items() if value != usual[name]}


def build_network(config: Config, classes: int, device: torch.device) -> Normalised:
    """The untrained network on its device. Raises UsageError where a training size is below what it can take."""
    smallest = min(size for _, size in training_sizes(config))
    if smallest < minimum_size(config.model):
        raise sentences.too_small(config.model, config.size, _least_size(config))
    torch.manual_seed(keyed.global_seed(config.seed, 0, rank=-1))
    return build(network_arguments(config), classes, config.mean, config.std).to(device)


def with_default_rate(config: Config) -> Config:
    """The configuration with its learning rate filled in from the model where none is set."""
    rate = config.learning_rate if config.learning_rate is not None else default_rate(config.model)
    return config.model_copy(update={"learning_rate": rate})


def whiten(network: Normalised, batches: Batches) -> None:
    """Give a whitened stem its filters from the first training photos, as the first steps see them."""
    if not needs_whitening(network):
        return
    images: list[Tensor] = []
    for step in range(batches.steps_per_epoch):
        images.append(network.normalise(batches.batch(step).images))
        if sum(map(len, images)) >= WHITENING_PHOTOS:
            break
    smallest = min(image.shape[-1] for image in images)
    whiten_(network, torch.cat([image for image in images if image.shape[-1] == smallest]))


def _least_size(config: Config) -> int:
    """The smallest --size whose smallest training size the network takes."""
    size = config.size
    while min(s for _, s in training_sizes(config.model_copy(update={"size": size}))) < minimum_size(config.model):
        size += 1
    return size
