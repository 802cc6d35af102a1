"""The class-activation map, which global average pooling followed by one linear layer gives exactly; no gradient.

The logit of class c is w_c . mean f(x, y) + b_c, so it is the mean over places of w_c . f(x, y) + b_c
(Zhou et al. 2016, arXiv 1512.04150, section 2). That is the map: what every place contributes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plusx import keyed
from plusx.engines.features import head_name, pooled_features


@dataclass(frozen=True)
class PooledHead:
    """Names of the layer whose maps are averaged, and of the linear layer that reads the averages."""

    maps: str
    linear: str


def pooled_head(network: nn.Module, size: int) -> PooledHead | None:
    """Where `network` averages maps for one linear layer; None where it does otherwise.

    It is found by showing it a picture of noise of `size` px: the head's input equals the mean of some layer's maps.
    """
    if not any(isinstance(module, nn.Linear) for module in network.modules()):
        return None
    noise = keyed.uniform(0, 0, np.arange(3), "noise", size * size).astype(np.float32)
    images = torch.from_numpy(255 * noise).view(1, 3, size, size).to(next(network.parameters()).device)
    with torch.inference_mode():
        head = pooled_features(network, images, size)
        found = [(name, maps) for name, maps in _all_maps(network, images).items() if _averages_to(maps, head)]
    if not found or len(network.get_submodule(head_name(network)).weight) != network(images).shape[1]:  # type: ignore[arg-type]
        return None
    most = max(maps[0, 0].numel() for _, maps in found)
    last = [name for name, maps in found if maps[0, 0].numel() == most][-1]  # not the pooled values themselves
    return PooledHead(last, head_name(network))


def class_activation(network: nn.Module, head: PooledHead, images: Tensor, contrast: Tensor) -> Tensor:
    """Maps [n, h, w] of images [n, 3, S, S]; the mean of each is `contrast` [n, C] times the logits, exactly."""
    with torch.inference_mode():
        maps = _maps_of(network, images, [head.maps])[head.maps].float()
        linear: Any = network.get_submodule(head.linear)
        weights = contrast @ linear.weight  # [n, D]
        evidence = torch.einsum("ndhw,nd->nhw", maps, weights)
        return evidence if linear.bias is None else evidence + (contrast @ linear.bias)[:, None, None]


def _averages_to(maps: Tensor, head: Tensor) -> bool:
    return maps.shape[1] == head.shape[1] and torch.allclose(maps.float().mean((2, 3)), head, rtol=1e-4, atol=1e-5)


def _all_maps(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    return _maps_of(network, images, [name for name, _ in network.named_modules() if name])


def _maps_of(network: nn.Module, images: Tensor, names: list[str]) -> dict[str, Tensor]:
    """The outputs [n, d, h, w] of the layers called `names`, in the order in which they are computed."""
    kept: dict[str, Tensor] = {}

    def keeping(name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                kept.pop(name, None)  # a module used again counts where it is used last
                kept[name] = output

        return keep

    hooks = [network.get_submodule(name).register_forward_hook(keeping(name)) for name in names]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return kept
