"""The loss around trained weights, along directions whose filters are as large as the network's own.

Li, Xu, Taylor, Studer and Goldstein 2018, "Visualizing the loss landscape of neural nets" (arXiv 1712.09913), section
4: the loss of w + a d + b e over a plane, where every filter of the random directions d and e is given the norm of the
same filter of w. Without that, a network of small weights would look sharp and one of large weights flat, though batch
norm makes both compute the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from plusx import keyed

PART = 128  # photos that go through a network at a time: in training mode a batch, with statistics of its own
LARGEST = 1e9  # a loss above that, or none at all, counts as that: JSON has no infinity, and a figure no place for it

Weights = Mapping[str, Tensor]
Heights = npt.NDArray[np.float64]


def filters(network: nn.Module) -> dict[str, Tensor]:
    """The weights that a direction moves, by name: of convolutions and linear layers, [filters, ...].

    Biases and batch norms stay where they are, as Li et al. leave them.
    """
    return {name: weight.detach() for name, weight in network.named_parameters() if weight.ndim > 1}


def filter_normalised(direction: Weights, weights: Weights) -> dict[str, Tensor]:
    """`direction` with each filter, a row of its tensor, at the norm of the same filter of `weights` (section 4)."""
    return {name: _rescaled(part, weights[name]) for name, part in direction.items()}


def _rescaled(direction: Tensor, weight: Tensor) -> Tensor:
    rows = (len(weight),) + (1,) * (weight.ndim - 1)
    wanted, found = (part.flatten(1).norm(dim=1).view(rows) for part in (weight, direction))
    scaled: Tensor = direction * (wanted / found.clamp_min(torch.finfo(found.dtype).tiny))
    return scaled


def random_direction(weights: Weights, seed: int, index: int) -> dict[str, Tensor]:
    """Direction `index` of `seed`, normal numbers in the shapes of `weights`, filter-normalised.

    Networks of equal shapes, such as plain and residual twins, have the same one until it is normalised.
    """
    drawn = {}
    for place, (name, weight) in enumerate(sorted(weights.items())):
        numbers = keyed.generator(seed, index, place, "landscape").standard_normal(tuple(weight.shape))
        drawn[name] = torch.empty_like(weight).copy_(torch.from_numpy(numbers))
    return filter_normalised(drawn, weights)


def offsets(points: int, reach: float = 1.0) -> list[float]:
    """`points` numbers, evenly from -reach to reach; of an odd number the middle one is exactly zero."""
    middle = (points - 1) / 2
    return [reach * (i - middle) / middle for i in range(points)]


def mean_loss(network: nn.Module, weights: Weights, pixels: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy of `network`, in the mode it is in, with `weights` in the place of its own.

    The network stays as it is: running statistics that change in training mode are those of a copy.
    Pixels [n, 3, S, S] go through it `PART` at a time; labels [n].
    """
    tensors = {**weights, **copies_of_buffers(network)}
    total = 0.0
    with torch.no_grad():
        for some, right in zip(torch.split(pixels, PART), torch.split(labels.cpu(), PART), strict=True):
            logits = functional_call(network, tensors, (some,)).cpu().double()
            total += F.cross_entropy(logits, right, reduction="sum").item()
    return bounded(total / len(labels))


def copies_of_buffers(network: nn.Module) -> dict[str, Tensor]:
    """Buffers that a call in training mode may change without the network noticing."""
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def bounded(loss: float) -> float:
    """`loss`, or `LARGEST` where it is above that or no number."""
    return min(loss, LARGEST) if math.isfinite(loss) else LARGEST


def losses_along(
    network: nn.Module, start: Weights, direction: Weights, steps: Sequence[float], pixels: Tensor, labels: Tensor
) -> list[float]:
    """The loss at `start` + t `direction` for every t of `steps`."""
    return [mean_loss(network, moved(start, direction, t), pixels, labels) for t in steps]


def moved(start: Weights, direction: Weights, step: float) -> dict[str, Tensor]:
    """`start` + `step` `direction`."""
    return {name: torch.add(weight, direction[name], alpha=step) for name, weight in start.items()}


def surface_row(
    network: nn.Module,
    plane: tuple[Weights, Weights],
    height: float,
    steps: Sequence[float],
    pixels: Tensor,
    labels: Tensor,
) -> list[float]:
    """The losses of one row of the `plane` of two directions: `height` along the second, `steps` along the first."""
    start = moved(filters(network), plane[1], height)
    return losses_along(network, start, plane[0], steps, pixels, labels)


def local_minima(heights: Heights) -> int:
    """How many inner points of the grid [rows, columns] lie below all of their eight neighbours."""
    inner = heights[1:-1, 1:-1]
    rows, columns = heights.shape
    around = [
        heights[1 + i : rows - 1 + i, 1 + j : columns - 1 + j]
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
        if (i, j) != (0, 0)
    ]
    return int((inner < np.minimum.reduce(around)).sum())


def share_below(heights: Heights, level: float) -> float:
    """The share of the grid's points at which the function is below `level`."""
    return float((heights < level).mean())
