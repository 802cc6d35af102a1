"""Signals on their way: how wide the responses of every 3x3 layer are, and how large the gradients that come back.

A response is what He et al. 2015 (arXiv 1512.03385, figure 7) look at: the output of a 3x3 layer behind its norm,
before ReLU and before the addition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

KERNEL = (3, 3)
DIGITS = 6  # that are kept
BATCH = 500  # photos at a time where nothing is learned

Values = list[float | None]  # one for each layer, in the order of the network; None where it is not finite


@dataclass(frozen=True)
class Layer:
    """A 3x3 convolution, and the module whose output is its response: the norm behind it, where there is one."""

    name: str
    convolution: nn.Conv2d
    behind: nn.Module


def layers_of(network: nn.Module) -> tuple[Layer, ...]:
    """The 3x3 layers from input to output; their names lack what is in front of the network itself."""
    return tuple(
        Layer(name.removeprefix("network."), module, _behind(network, name, module))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == KERNEL
    )


def _behind(network: nn.Module, name: str, convolution: nn.Conv2d) -> nn.Module:
    """conv1 has bn1 at its side, if it has a norm at all."""
    parent, _, own = name.rpartition(".")
    norm = getattr(network.get_submodule(parent), own.replace("conv", "bn"), convolution)
    return norm if isinstance(norm, nn.Module) else convolution


class Capture:
    """Attached to layers from one update to the next; a batch may go through in parts.

    Gradients are those of the loss that is differentiated: of a mean over the batch, and before the gradients of
    weights are clipped as far as responses are concerned.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self._weights = [layer.convolution.weight.detach().clone() for layer in layers]
        self._parts: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in layers]  # count, variance, mean
        self._squares: list[list[Tensor]] = [[] for _ in layers]
        self._handles = [self._attached(i, layer) for i, layer in enumerate(layers)]

    def detach(self) -> None:
        """Leave the network as it was."""
        for handle in self._handles:
            handle.remove()

    def responses(self) -> Values:
        """Standard deviation over photos, positions and channels."""
        return _values([_deviation(parts) for parts in self._parts])

    def response_gradients(self) -> Values:
        """Norm of the loss's gradient with respect to all responses of the batch."""
        return _values([torch.stack(squares).sum().sqrt() if squares else None for squares in self._squares])

    def weight_gradients(self) -> Values:
        """Norm of the gradient that the weights of each layer hold now."""
        return _values([_norm(layer.convolution.weight.grad) for layer in self._layers])

    def updates(self) -> Values:
        """Norm of what has been added to the weights since, over their norm before."""
        pairs = zip(self._layers, self._weights, strict=True)
        return _values([_ratio(layer.convolution.weight - before, before) for layer, before in pairs])

    def to_json(self) -> dict[str, Any]:
        """All of them by name."""
        return {
            "layers": [layer.name for layer in self._layers],
            "response": self.responses(),
            "response_gradient": self.response_gradients(),
            "weight_gradient": self.weight_gradients(),
            "update": self.updates(),
        }

    def _attached(self, number: int, layer: Layer) -> RemovableHandle:
        def came_back(gradient: Tensor) -> None:
            self._squares[number].append(_wide(gradient).square().sum())

        def passed(_: nn.Module, __: Any, output: Tensor) -> None:
            variance, mean = torch.var_mean(_wide(output.detach()), correction=0)
            self._parts[number].append((output.numel(), variance, mean))
            if output.requires_grad:
                output.register_hook(came_back)  # type: ignore[no-untyped-call]

        return layer.behind.register_forward_hook(passed)


def look(network: nn.Module, pixels: Tensor, labels: Tensor) -> dict[str, Any]:
    """Signals of one batch, forward and back, in training mode; nothing is learned, and gradients are dropped.

    `pixels` uint8 [B, 3, H, W], `labels` int64 [B]. The values are those of `Capture.to_json`, without updates.
    """
    capture = Capture(layers_of(network.train()))
    network.zero_grad(set_to_none=True)
    loss = F.cross_entropy(network(pixels), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    found = capture.to_json()
    capture.detach()
    network.zero_grad(set_to_none=True)
    return {name: values for name, values in found.items() if name != "update"} | {"loss": loss.item()}


@torch.inference_mode()
def responses(network: nn.Module, pixels: Tensor) -> Values:
    """Standard deviations of the responses to photos, uint8 [N, 3, H, W], of a network as it answers."""
    capture = Capture(layers_of(network.eval()))
    for part in torch.split(pixels, BATCH):
        network(part)
    capture.detach()
    return capture.responses()


def _deviation(parts: Sequence[tuple[int, Tensor, Tensor]]) -> Tensor | None:
    """Of the whole, from the counts, variances and means of its parts."""
    if not parts:
        return None
    counts = torch.tensor([count for count, _, _ in parts], dtype=parts[0][1].dtype, device=parts[0][1].device)
    shares = counts / counts.sum()
    variances, means = torch.stack([v for _, v, _ in parts]), torch.stack([m for _, _, m in parts])
    middle = (shares * means).sum()
    return (shares * (variances + (means - middle).square())).sum().sqrt()


def _wide(values: Tensor) -> Tensor:
    """With room for squares: those of a vanishing gradient are no 32-bit numbers. Apple's GPUs have no doubles."""
    return values.float() if values.device.type == "mps" else values.double()


def _ratio(difference: Tensor, before: Tensor) -> Tensor:
    ratio: Tensor = torch.linalg.vector_norm(_wide(difference.detach())) / torch.linalg.vector_norm(_wide(before))
    return ratio


def _norm(values: Tensor | None) -> Tensor | None:
    return None if values is None else torch.linalg.vector_norm(_wide(values.detach()))


def _values(found: Sequence[Tensor | None]) -> Values:
    """Off the device, all at once."""
    known = [value for value in found if value is not None]
    numbers = iter(torch.stack(known).tolist() if known else [])
    return [None if value is None else _rounded(next(numbers)) for value in found]


def _rounded(number: float) -> float | None:
    return float(f"{number:.{DIGITS}g}") if abs(number) < float("inf") else None
