"""A network together with the first operation it needs: from pixels to normalised floats."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalised(nn.Module):
    """Scales pixels from 0..255 to [0, 1], subtracts `mean`, divides by `std` (one each per channel), calls `network`.

    The state dict holds the network's tensors only, under `network.`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std)).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of pixels [B, 3, H, W], uint8 or floats on the 0..255 scale -> [B, classes]."""
        logits: Tensor = self.network(self.normalise(pixels))
        return logits

    def normalise(self, pixels: Tensor) -> Tensor:
        """The floats the network sees, [B, 3, H, W]."""
        return pixels.float().div(255).sub_(self.mean).div_(self.std)
