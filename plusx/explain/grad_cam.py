"""Grad-CAM, for networks whose head is more than one linear layer behind global average pooling.

Each map of the last convolution is weighted by the mean gradient of what is explained with respect to it, and what is
left above zero counts (Selvaraju et al. 2017, arXiv 1610.02391, section 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def last_convolution(network: nn.Module) -> str | None:
    """The name of the convolution that comes last; None where there is none."""
    found = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    return found[-1] if found else None


def grad_cam(network: nn.Module, layer: str, images: Tensor, contrast: Tensor) -> Tensor:
    """Maps [n, h, w], nowhere negative, of images [n, 3, S, S] at `layer`; what is explained is `contrast` [n, C] times
    the logits."""
    kept: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        """Gradients are wanted from here on; what follows may work in place, and does so on a copy."""
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()

    hook = network.get_submodule(layer).register_forward_hook(cut)
    try:
        with torch.enable_grad():
            score = (network(images) * contrast).sum()
            (gradient,) = torch.autograd.grad(score, kept[0])
    finally:
        hook.remove()
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * kept[0].detach()).sum(1).relu()
