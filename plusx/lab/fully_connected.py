"""The fully connected networks of Balduzzi et al. 2017 (arXiv 1702.08591): small enough to check the theory with.

Widths, biases and first weights are He's (2 / fan-in). Each point must have a gradient of its own, so batch norm takes
its means and deviations from the inputs once and holds them constant: it is then a function of one input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from plusx import keyed
from plusx.lab.autocorrelation import Gradients

WIDTH = 200
POINTS, SPAN = 256, 2.0  # of the line: as many inputs from -SPAN to SPAN
INPUTS = 64  # independent ones
EPSILON = 1e-5

PLAIN, RESIDUAL, POST = "plain", "residual", "residual, ReLU behind the addition"
BATCH, SCALE, NONE = "batch norm", "division by the root mean square", "no norm"


@dataclass(frozen=True)
class Stack:
    """`depth` hidden layers or blocks behind a first layer, a function of its seed.

    PLAIN: h -> norm(W relu(h)). RESIDUAL, as in the theorems: h -> h + W relu(norm(h)). POST, as in He et al. 2015
    with two layers to a block: h -> relu(h + norm(W relu(norm(V h)))). `norm` is BATCH, SCALE, which leaves means where
    they are, or NONE.
    """

    kind: str
    depth: int
    norm: str = BATCH
    seed: int = 0

    def output(self, inputs: Tensor) -> Tensor:
        """A number for each input: [n, d] -> [n]."""
        hidden = self._first(inputs)
        for layer in range(1, self.depth + 1):
            hidden = _STEPS[self.kind](self, hidden, layer)
        return F.relu(hidden) @ self._weights((1, WIDTH), self.depth + 1, "last")[0]

    def gradients(self, inputs: Tensor) -> Gradients:
        """Gradients of the outputs with respect to the inputs, [n, d]."""
        inputs = inputs.clone().requires_grad_(True)
        (found,) = torch.autograd.grad(self.output(inputs).sum(), inputs)
        return found.numpy()

    def plain(self, hidden: Tensor, layer: int) -> Tensor:
        """A layer of a plain network: values [n, units] -> [n, units]."""
        return self._norm(self._linear(F.relu(hidden), layer))

    def residual(self, hidden: Tensor, layer: int) -> Tensor:
        """A pre-activation residual layer, H(x) = F(x) + x: [n, units] -> [n, units]."""
        return hidden + self._linear(F.relu(self._norm(hidden)), layer)

    def post(self, hidden: Tensor, layer: int) -> Tensor:
        """A residual block with its last ReLU behind the sum, as in He et al. 2015: [n, units] -> [n, units]."""
        middle = F.relu(self._norm(self._linear(hidden, layer)))
        return F.relu(hidden + self._norm(self._linear(middle, layer, "second")))

    def _first(self, inputs: Tensor) -> Tensor:
        """Inputs of one dimension need biases of their own size, or every unit would have its kink at zero."""
        if inputs.shape[1] > 1:
            return self._norm(self._linear(inputs, 0))
        random = keyed.generator(self.seed, 0, 0, "fully connected biases")
        return self._linear(inputs, 0) + torch.from_numpy(random.standard_normal(WIDTH))

    def _linear(self, values: Tensor, layer: int, which: str = "first") -> Tensor:
        out = values @ self._weights((WIDTH, values.shape[1]), layer, which).T
        return out if self.norm != NONE else out + self._weights((WIDTH, WIDTH), layer, f"{which} bias")[:, 0]

    def _norm(self, values: Tensor) -> Tensor:
        fixed = values.detach()
        if self.norm == BATCH:
            return (values - fixed.mean(dim=0)) / (fixed.std(dim=0, correction=0) + EPSILON)
        return values / (fixed.square().mean(dim=0).sqrt() + EPSILON) if self.norm == SCALE else values

    def _weights(self, shape: tuple[int, int], layer: int, which: str) -> Tensor:
        random = keyed.generator(self.seed, layer, 0, f"fully connected {which}")
        return torch.from_numpy(random.standard_normal(shape) * np.sqrt(2 / shape[1]))


_STEPS: dict[str, Callable[[Stack, Tensor, int], Tensor]] = {
    PLAIN: Stack.plain,
    RESIDUAL: Stack.residual,
    POST: Stack.post,
}


def line() -> Tensor:
    """Inputs of one dimension, evenly spaced: [POINTS, 1]."""
    return torch.linspace(-SPAN, SPAN, POINTS, dtype=torch.float64)[:, None]


def independent_inputs(seed: int) -> Tensor:
    """Standard normal inputs, [INPUTS, WIDTH]: any two are nearly at a right angle, as the theorems want them."""
    return torch.from_numpy(keyed.generator(seed, 0, 0, "independent inputs").standard_normal((INPUTS, WIDTH)))


def white_noise(seed: int) -> Gradients:
    """Independent values, [POINTS, 1]."""
    return keyed.generator(seed, 0, 0, "noise").standard_normal((POINTS, 1))


def brown_noise(seed: int) -> Gradients:
    """Their running sums: a random walk, [POINTS, 1]."""
    return np.cumsum(white_noise(seed), axis=0)
