"""Optimizers: which parameters decay, and how fast the biases of norms learn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from plusx.training.schedule import learning_rate, progress
from plusx.training.settings import Settings

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
_SCALE = "rate_scale"


def build_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters of `model`.

    Weights decay; norms and biases do not (Goyal et al. 2017, section 5.3) unless the settings ask for it.
    Biases of norms learn `norm_bias_rate` times as fast (Jordan 2024, arXiv 2404.00498, section 3.4).
    """
    groups = parameter_groups(model, settings)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    nesterov = settings.nesterov and settings.momentum > 0
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=nesterov)


def parameter_groups(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """Groups of (weights), (norms and biases), (biases of norms), without those that are empty or frozen."""
    norm_biases = [m.bias for m in model.modules() if isinstance(m, _NORMS) and m.bias is not None]
    fast = set(map(id, norm_biases)) if settings.norm_bias_rate != 1.0 else set()
    trainable = [p for p in model.parameters() if p.requires_grad]
    decay = settings.weight_decay if settings.decay_norms_and_biases else 0.0
    return [
        *_group([p for p in trainable if p.ndim > 1], settings.weight_decay, 1.0),
        *_group([p for p in trainable if p.ndim <= 1 and id(p) not in fast], decay, 1.0),
        *_group([p for p in trainable if id(p) in fast], decay, settings.norm_bias_rate),
    ]


def set_rate(optimizer: torch.optim.Optimizer, settings: Settings, step: int) -> float:
    """Give every group the rate of `step`; returns the rate of the weights."""
    done = progress(step, settings.total_steps, settings.revisions)
    factor = learning_rate(settings.schedule, done, settings.warmup, settings.milestones)
    rate = settings.learning_rate * factor
    for group in optimizer.param_groups:
        group["lr"] = rate * group[_SCALE]
    return rate


def _group(parameters: Iterable[nn.Parameter], weight_decay: float, scale: float) -> Iterator[dict[str, Any]]:
    members = list(parameters)
    if members:
        yield {"params": members, "weight_decay": weight_decay, _SCALE: scale}
