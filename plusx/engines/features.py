"""Features: what the last layer of a network, which tells the classes apart, gets to see of a photo."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from plusx.data import geometry
from plusx.errors import explain as sentences


def head_name(network: nn.Module) -> str:
    """The name of the last fully connected layer. Raises UsageError where there is none."""
    found = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not found:
        raise sentences.no_head()
    return str(found[-1])


def pooled_features(network: nn.Module, images: Tensor, size: int) -> Tensor:
    """The input of the head for `images` [n, 3, S, S], as `network` takes them, seen whole at `size` px: [n, D].

    Of a ResNet these are the last stage's maps, averaged over height and width. `network` is in evaluation mode, and
    may be one of `engines.folded`.
    """
    kept: list[Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        kept.append(torch.flatten(inputs[0], 1))

    hook = network.get_submodule(head_name(network)).register_forward_pre_hook(keep)
    try:
        network(geometry.scaled(images, size))
    finally:
        hook.remove()
    return kept[0]
