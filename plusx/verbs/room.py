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
from plusx.verbs.network import network_arguments

OTHER = 32_000_000  # bytes for logs, answers, remembered features and pages, which hang on the photos, not the network


def require_early(out: Path | None, config: Config, classes: int) -> None:
    """Raise DiskError where a run folder at `out` has too little room, as far as that is known without a plan."""
    if config.model.startswith(TIMM):  # those may compute while they are built
        return
    with torch.device("meta"):
        network = build(network_arguments(config), classes, config.mean, config.std)
    durable.require_space(out or RUNS, bytes_of_run(network, config))


def require(out: Path | None, network: nn.Module, config: Config, plan: Plan) -> None:
    """Raise DiskError where a run folder at `out` has too little room for everything that a run writes."""
    durable.require_space(out or RUNS, bytes_of_run(network, config) + _saved_weights(network, config, plan))


def require_to_resume(run: Path, network: nn.Module, config: Config) -> None:
    """Raise DiskError where the folder of a run has no room for one more checkpoint and what is written at the end."""
    durable.require_space(run, _checkpoint(network, config) + _weights(network) + OTHER)


def bytes_of_run(network: nn.Module, config: Config) -> int:
    """The most that lies in a run folder at one time: checkpoints, one of them unfinished, best weights, the model."""
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
