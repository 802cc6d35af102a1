"""What a training step asks for, counted and not measured: floating-point operations and bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Of one step. `flops` counts a multiply-add as two; `bytes` is what all operations read and write.

    Zeros in the padding of a convolution are counted like pixels. What stays in a cache between two operations
    is counted too, so a step may need less than `bytes`, never more than once each.
    """

    flops: int
    bytes: int


@dataclass(frozen=True)
class Convolution:
    """One convolution of a network at its real shapes: forward and backward as work to be timed."""

    name: str
    flops: int
    work: Callable[[], object]


def cost_of(work: Callable[[], object]) -> Cost:
    """Count what `work` does on tensors."""
    with FlopCounterMode(display=False) as flops:
        work()
    with _Bytes() as moved:
        work()
    return Cost(flops.get_total_flops(), moved.total)


def convolutions(network: nn.Module, images: Tensor, dtype: torch.dtype) -> list[Convolution]:
    """Every convolution that `images` [B, 3, H, W] meet in `network`, with random maps of the same shapes."""
    found: list[Convolution] = []
    first = True

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal first
            found.append(_convolution(name, layer, inputs[0], output, dtype, backward_to_input=not first))
            first = False

        return hook

    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return found


def _convolution(
    name: str, layer: Any, seen: Tensor, given: Tensor, dtype: torch.dtype, *, backward_to_input: bool
) -> Convolution:
    maps, gradient = (torch.randn_like(like, dtype=dtype) for like in (seen, given))
    weight = layer.weight.detach().to(dtype)
    geometry = (layer.stride, layer.padding, layer.dilation)
    mask = (backward_to_input, layer.weight.requires_grad, False)

    def work() -> None:
        torch.conv2d(maps, weight, None, *geometry, layer.groups)
        if any(mask):
            torch.ops.aten.convolution_backward(
                gradient, maps, weight, None, *geometry, False, [0, 0], layer.groups, mask
            )

    return Convolution(name, cost_of(work).flops, work)


class _Bytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the sizes of all tensors that go into and come out of every operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            self.total += sum(t.numel() * t.element_size() for t in tree_leaves((args, out)) if isinstance(t, Tensor))
        return out
