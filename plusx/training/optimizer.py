"""Optimizers: which parameters decay, and how fast norms' biases and the layers near the input learn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from plusx.training.layers import NORMS, rate_shares
from plusx.training.schedule import learning_rate, progress
from plusx.training.settings import Settings

_SCALE = "rate_scale"


def build_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters of `model`.

    Weights decay; norms and biases do not (Goyal et al. 2017, section 5.3) unless the settings ask for it.
    Biases of norms learn `norm_bias_rate` times as fast (Jordan 2024, arXiv 2404.00498, section 3.4), and layers
    the slower the nearer they are to the input, down to `input_rate` of the head's rate.
    """
    groups = parameter_groups(model, settings)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    nesterov = settings.nesterov and settings.momentum > 0
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=nesterov)


def parameter_groups(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """Groups of (weights), (norms and biases), (biases of norms), without those that are empty or frozen.

    With an `input_rate` there is one of each for every layer.
    """
    norm_biases = [m.bias for m in model.modules() if isinstance(m, NORMS) and m.bias is not None]
    fast = set(map(id, norm_biases)) if settings.norm_bias_rate != 1.0 else set()
    trainable = [p for p in model.parameters() if p.requires_grad]
    decay = settings.weight_decay if settings.decay_norms_and_biases else 0.0
    shares = {id(model.get_parameter(n)): s for n, s in rate_shares(model, settings.input_rate).items()}
    return [
        *_groups([p for p in trainable if p.ndim > 1], settings.weight_decay, 1.0, shares),
        *_groups([p for p in trainable if p.ndim <= 1 and id(p) not in fast], decay, 1.0, shares),
        *_groups([p for p in trainable if id(p) in fast], decay, settings.norm_bias_rate, shares),
    ]


def set_rate(optimizer: torch.optim.Optimizer, settings: Settings, step: int) -> float:
    """Give every group the rate of `step`; returns the rate of the head's weights."""
    done = progress(step, settings.total_steps, settings.revisions)
    factor = learning_rate(settings.schedule, done, settings.warmup, settings.milestones)
    rate = settings.learning_rate * factor
    for group in optimizer.param_groups:
        group["lr"] = rate * group[_SCALE]
    return rate


def _groups(
    parameters: Iterable[nn.Parameter], weight_decay: float, scale: float, shares: Mapping[int, float]
) -> Iterator[dict[str, Any]]:
    """A group for each share of the rate among the parameters."""
    by_share: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        by_share.setdefault(shares[id(parameter)], []).append(parameter)
    for share, members in by_share.items():
        yield {"params": members, "weight_decay": weight_decay, _SCALE: scale * share}
