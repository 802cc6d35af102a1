"""Room on the disk: what a run is about to write is counted before photos are decoded for it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from plusx import durable
from plusx.config import Config
from plusx.engines.torch_engine import build
from plusx.models.registry import TIMM
from plusx.recipes.plan import Plan
from plusx.run_folder import RUNS
from plusx.training.checkpoint import KEPT
from plusx.verbs.labelled import LabelledPhotos
from plusx.verbs.network import network_arguments

OTHER = 32_000_000  # bytes for logs, remembered features and pages, which hang on the photos, not the network
LINE, DIGITS = 200, 15  # bytes of a photo in a table of answers, and of each probability there


def of_answers(photos: LabelledPhotos) -> int:
    """Bytes of validation.csv, which holds a probability for every validation photo and class."""
    return len(photos.rows("val")) * (LINE + DIGITS * len(photos.listing.classes))


def require_early(out: Path | None, config: Config, photos: LabelledPhotos) -> None:
    """Raise DiskError where a run folder at `out` has too little room, as far as that is known without a plan."""
    if config.model.startswith(TIMM):  # those may compute while they are built
        return
    with torch.device("meta"):
        network = build(network_arguments(config), len(photos.listing.classes), config.mean, config.std)
    durable.require_space(out or RUNS, bytes_of_run(network, config) + of_answers(photos))


def require(out: Path | None, network: nn.Module, config: Config, plan: Plan, photos: LabelledPhotos) -> None:
    """Raise DiskError where a run folder at `out` has too little room for everything that a run writes."""
    needed = bytes_of_run(network, config) + _saved_weights(network, config, plan) + of_answers(photos)
    durable.require_space(out or RUNS, needed)


def require_to_resume(run: Path, network: nn.Module, config: Config, photos: LabelledPhotos) -> None:
    """Raise DiskError where the folder of a run has no room for one more checkpoint and what is written at the end."""
    durable.require_space(run, _checkpoint(network, config) + _weights(network) + OTHER + of_answers(photos))


def bytes_of_run(network: nn.Module, config: Config) -> int:
    """The most that lies in a run folder at one time, without answers: checkpoints, best weights, the model."""
    best = KEPT + 2 if config.keep == "best" else 0  # one for each checkpoint, the one in hand, and the one before it
    return (KEPT + 1) * _checkpoint(network, config) + (best + 1) * _weights(network) + OTHER


def _checkpoint(network: nn.Module, config: Config) -> int:
    """Weights, momentum (of Adam two moments) and the average."""
    moments = 2 if config.optimizer == "adamw" else int(config.momentum > 0)
    return (1 + moments + (config.average == "ema")) * _weights(network)


def _saved_weights(network: nn.Module, config: Config, plan: Plan) -> int:
    """What `save_weights_every` leaves, which nobody removes."""
    if config.save_weights_every is None:
        return 0
    epochs, rest = divmod(plan.total_steps, plan.steps_per_epoch)
    times = [-(-steps // config.save_weights_every) for steps in (plan.steps_per_epoch, rest)]
    return (epochs * times[0] + times[1]) * _weights(network)


def _weights(network: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())
