"""`models`: the list of networks, and the layers of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from plusx.errors import models as sentences
from plusx.models import create_model, list_models, minimum_size


@dataclass(frozen=True)
class Layer:
    """One layer: its state-dict name, its kind, the shape it gives for one photo, and its parameters."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Layers:
    """The layer table of a network, in the order in which a photo passes."""

    layers: tuple[Layer, ...]
    parameters: int
    header: tuple[str, ...] = ("layer", "kind", "output", "parameters")

    def rows(self) -> list[list[str]]:
        """The table as text, the total last."""
        rows = [[n.name, n.kind, " x ".join(map(str, n.shape)), f"{n.parameters:,}"] for n in self.layers]
        return [*rows, ["total", "", "", f"{self.parameters:,}"]]

    def to_json(self) -> dict[str, Any]:
        """The table as plain values."""
        return {"parameters": self.parameters, "layers": [vars(n) | {"shape": list(n.shape)} for n in self.layers]}


@dataclass(frozen=True)
class Network:
    """One name of the list: its parameters for a number of classes, and the smallest input in pixels."""

    name: str
    parameters: int
    smallest: int


def networks(classes: int = 2) -> tuple[Network, ...]:
    """Every network of plusx itself, in the order of families; built without memory for their weights."""
    with torch.device("meta"):
        counts = {name: _parameters(create_model(name, classes)) for name in list_models()}
    return tuple(Network(name, count, minimum_size(name)) for name, count in counts.items())


def describe(name: str, *, classes: int = 2, size: int = 224) -> Layers:
    """The layers of network `name` for photos of `size` pixels.

    Raises UsageError for an unknown name or a size below the network's smallest.
    """
    if size < minimum_size(name):
        raise sentences.too_small(name, size, minimum_size(name))
    return layers_of(create_model(name, classes), size)


@torch.no_grad()
def layers_of(network: nn.Module, size: int) -> Layers:
    """The layers of a network, found by sending one grey photo [1, 3, size, size] through it."""
    found: list[Layer] = []

    def note(name: str, layer: nn.Module) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            found.append(Layer(name, type(layer).__name__, tuple(output.shape[1:]), _parameters(layer)))

        return layer.register_forward_hook(hook)

    leaves = [(n, m) for n, m in network.named_modules() if not list(m.children())]
    hooks = [note(n, m) for n, m in leaves]
    training = network.training
    device = next(network.parameters()).device
    network.eval()(torch.zeros(1, 3, size, size, device=device))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return Layers(tuple(found), _parameters(network))


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
