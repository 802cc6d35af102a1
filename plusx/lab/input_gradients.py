"""Gradients of a network's answer with respect to photos on a line between two of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from plusx.lab.autocorrelation import Gradients

POINTS = 256  # of a line, both ends included
BATCH = 128


@torch.no_grad()
def freeze_statistics(network: nn.Module, pixels: Tensor) -> None:
    """Give every batch norm the mean and deviation of these photos, uint8 [N, 3, H, W], and hold them constant.

    An untrained network's running statistics are of nothing; and with the statistics of a batch the points of a line
    would answer for each other, so that a gradient is not that of one point.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()
    network(pixels)
    network.eval()


def line_gradients(network: nn.Module, start: Tensor, end: Tensor, label: int = 0, points: int = POINTS) -> Gradients:
    """Gradients of the logit of class `label` at points from one photo to another, both uint8 [3, H, W].

    [points, 3 * H * W]; the network is one whose points do not answer for each other, such as one in eval mode.
    """
    share = torch.linspace(0, 1, points, device=start.device)[:, None, None, None]
    photos = (1 - share) * start.float() + share * end.float()
    parts = [_gradients(network, part, label) for part in torch.split(photos, BATCH)]
    return np.concatenate(parts)


def _gradients(network: nn.Module, photos: Tensor, label: int) -> Gradients:
    photos = photos.requires_grad_(True)
    (found,) = torch.autograd.grad(network(photos)[:, label].sum(), photos)
    return found.flatten(1).double().cpu().numpy()
