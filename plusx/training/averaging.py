"""A running average of the weights, which is what is tested and kept (Polyak and Juditsky 1992)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain

import torch
from torch import nn


class Average:
    """An exponential moving average of a model's parameters and of its norms' statistics, which belong together.

    The decay grows from 0 to its value as (1 + n) / (10 + n), so that the first weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float, every: int) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay**every
        self.every = every

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take the weights after optimizer update number `step` (from 1) into the average."""
        if step % self.every:
            return
        count = step // self.every
        weight = 1.0 - min(self.decay, (1.0 + count) / (10.0 + count))
        for mean, new in zip(_tensors(self.model), _tensors(model), strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, weight)
            else:
                mean.copy_(new)  # norms count their batches


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    return chain(model.parameters(), model.buffers())
