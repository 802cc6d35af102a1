"""The curvature of the loss at given weights, from products of its Hessian with vectors: no matrix is ever built.

A product costs about as much as two training steps (Pearlmutter 1994, "Fast exact multiplication by the Hessian");
the two ends of the spectrum follow from a few dozen products (Lanczos 1950).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from plusx import keyed
from plusx.lab.loss_surface import PART, copies_of_buffers

PRODUCTS = 15  # of the Hessian with a vector: enough for its largest eigenvalue, see `Ends.errors`

Product = Callable[[Tensor], Tensor]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ends:
    """The least and the largest eigenvalue found; within `errors` of each there is an eigenvalue for certain.

    The true ends lie no further in, and may lie further out.
    """

    least: float
    largest: float
    errors: tuple[float, float]


def filter_scales(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The norm of every filter, in the shape of its tensor: what makes a displacement relative to the weights."""
    return {name: _norms(weight).expand_as(weight) for name, weight in weights.items()}


def _norms(weight: Tensor) -> Tensor:
    norms: Tensor = weight.flatten(1).norm(dim=1)
    return norms.view(-1, *[1] * (weight.ndim - 1))


def hessian_product(
    network: nn.Module, weights: Mapping[str, Tensor], scales: Mapping[str, Tensor], pixels: Tensor, labels: Tensor
) -> Product:
    """v -> S H S v, flat vectors, where H is the Hessian of the mean cross-entropy in `weights` and S their `scales`.

    With `filter_scales` it is the curvature along filter-normalised directions, and does not change where batch norm
    undoes a change of weights. The network is called in the mode it is in; pixels [n, 3, S, S], labels [n].
    """
    names = list(weights)
    moved = [weights[name].detach().clone().requires_grad_() for name in names]
    scale = [scales[name] for name in names]

    def product(vector: Tensor) -> Tensor:
        wanted = [part * s for part, s in zip(_split(vector, moved), scale, strict=True)]
        total = [torch.zeros_like(tensor) for tensor in moved]
        for some, right in zip(torch.split(pixels, PART), torch.split(labels, PART), strict=True):
            tensors = dict(zip(names, moved, strict=True)) | copies_of_buffers(network)
            logits = functional_call(network, tensors, (some,))
            loss = F.cross_entropy(logits, right, reduction="sum") / len(labels)
            slopes = torch.autograd.grad(loss, moved, create_graph=True)
            along = torch.stack([(g * v).sum() for g, v in zip(slopes, wanted, strict=True)]).sum()
            for sum_, bend in zip(total, torch.autograd.grad(along, moved), strict=True):
                sum_ += bend
        return torch.cat([(bend * s).flatten() for bend, s in zip(total, scale, strict=True)])

    return product


def _split(vector: Tensor, like: list[Tensor]) -> list[Tensor]:
    parts = torch.split(vector, [part.numel() for part in like])
    return [part.view(like_part.shape) for part, like_part in zip(parts, like, strict=True)]


def ends(product: Product, size: int, device: torch.device, *, seed: int = 0, products: int = PRODUCTS) -> Ends:
    """The ends of the spectrum of the symmetric operator `product` on vectors of `size` numbers.

    Lanczos with every new vector made orthogonal to all before it, twice, so that rounding invents no eigenvalues.
    """
    start = keyed.generator(seed, 0, 0, "lanczos").standard_normal(size)
    basis = [_unit(torch.from_numpy(start).to(device, torch.float32))]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(products, size)):
        image = product(basis[-1])
        diagonal.append(float(image.double() @ basis[-1].double()))
        rest = _orthogonal(_orthogonal(image, basis), basis)
        beside.append(float(rest.double().norm()))
        if beside[-1] <= 1e-6 * max(map(abs, diagonal)):
            break
        basis.append(_unit(rest))
    return _of_tridiagonal(np.array(diagonal), np.array(beside))


def _of_tridiagonal(diagonal: Floats, beside: Floats) -> Ends:
    matrix = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    values, vectors = np.linalg.eigh(matrix)
    errors = beside[-1] * np.abs(vectors[-1])
    return Ends(float(values[0]), float(values[-1]), (float(errors[0]), float(errors[-1])))


def _unit(vector: Tensor) -> Tensor:
    scaled: Tensor = vector / vector.norm()
    return scaled


def _orthogonal(vector: Tensor, basis: list[Tensor]) -> Tensor:
    for known in basis:
        vector = vector - (vector @ known) * known
    return vector
