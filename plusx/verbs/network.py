"""The network of a run: built from its configuration, its first weights a function of the seed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from plusx import keyed
from plusx.config import Config
from plusx.data.loader import Batches
from plusx.engines.torch_engine import build
from plusx.errors import models as sentences
from plusx.errors import usage
from plusx.models import default_rate, minimum_size
from plusx.models.initialise import needs_whitening, whiten_
from plusx.models.normalise import Normalised
from plusx.models.registry import TIMM
from plusx.recipes.plan import training_sizes
from plusx.recipes.resolve import ADAMW_SHARE

WHITENING_PHOTOS = 2_000


def network_arguments(config: Config) -> dict[str, Any]:
    """What a model file says of its network: the arguments of `create_model` besides the classes."""
    arguments: dict[str, Any] = {"name": config.model}
    usual = {"width": 1.0, "stem": "default", "shortcut": "default"}
    usual |= {"downsampling": "default", "norm": "default", "zero_init_residual": False}
    return arguments | {name: value for name in usual if (value := getattr(config, name)) != usual[name]}


def refuse_network(config: Config) -> None:
    """Raise UsageError where there can be no such network, or it cannot take the sizes; before a photo is read."""
    least = minimum_size(config.model)
    if min(size for _, size in training_sizes(config)) < least:
        raise sentences.too_small(config.model, config.size, least)
    if config.test_size is not None and config.test_size < least:
        raise usage.bad_setting("test_size", config.test_size, f"{config.model} needs at least {least}", "--set")
    if not config.model.startswith(TIMM):  # those may compute while they are built
        with torch.device("meta"):
            build(network_arguments(config), 2, config.mean, config.std)


def forward_flops(config: Config, classes: int, size: int) -> int:
    """Floating-point operations of one photo of `size` px forward; counted without computing."""
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        network = build(network_arguments(config), classes, config.mean, config.std).eval()
        network(torch.zeros((1, 3, size, size)))
    return int(counted.get_total_flops())


def build_network(config: Config, classes: int, device: torch.device) -> Normalised:
    """The untrained network on its device."""
    torch.manual_seed(keyed.global_seed(config.seed, 0, rank=-1))
    network = build(network_arguments(config), classes, config.mean, config.std).to(device)
    return network.to(memory_format=torch.channels_last)  # convolutions are fastest so, on CPUs and GPUs


def with_default_rate(config: Config) -> Config:
    """The configuration with its learning rate filled in from the model where none is set."""
    if config.learning_rate is not None:
        return config
    share = ADAMW_SHARE if config.optimizer == "adamw" else 1.0
    return config.model_copy(update={"learning_rate": share * default_rate(config.model)})


def whiten(network: Normalised, batches: Batches) -> None:
    """Give a whitened stem its filters from the first training photos, as the first steps see them."""
    if not needs_whitening(network):
        return
    images: list[Tensor] = []
    for step in range(batches.steps_per_epoch):
        images.append(network.normalise(batches.whole(step).images))
        if sum(map(len, images)) >= WHITENING_PHOTOS:
            break
    smallest = min(image.shape[-1] for image in images)
    whiten_(network, torch.cat([image for image in images if image.shape[-1] == smallest]))
