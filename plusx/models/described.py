"""A network that also tells what it saw on the way to its logits: by that, strange photos are told from known ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from plusx.models.classic import Classic
from plusx.models.resnet import ResNet

STAGES = 2  # the last ones: what lies before them tells light and texture, not what a photo shows


class Staged(Protocol):
    """A network whose forward pass is stages of maps, then a head."""

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> [B, channels, h, w] for every stage."""

    def head(self, maps: Tensor) -> Tensor:
        """The last stage's maps -> [B, classes]."""


class Described(nn.Module):
    """`network` on normalised images [B, 3, H, W], giving logits [B, C], a descriptor [B, D] and activity [B, h, w].

    The activity is the mean square over the last stage's channels at every place; it and the descriptor are float32.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] -> [B, C], [B, D], [B, h, w]."""
        staged = cast(Staged, self.network)
        maps = staged.stage_maps(x)
        return staged.head(maps[-1]), descriptor(maps), maps[-1].float().square().mean(1)


def descriptor(maps: Sequence[Tensor]) -> Tensor:
    """log(1 + mean) and log(1 + largest) of every channel of the last two stages' maps: [B, D], float32."""
    floats = [stage.float() for stage in maps[-STAGES:]]
    pooled = [part for m in floats for part in (m.mean((2, 3)), m.amax((2, 3)))]
    return torch.cat(pooled, dim=1).clamp_min(0.0).log1p()


def descriptor_size(network: nn.Module) -> int | None:
    """How many numbers describe a photo; None of a network that `Described` does not take.

    Those of plusx have stages, each with as many channels as its last convolution; timm's are as timm wrote them.
    """
    if not isinstance(network, ResNet | Classic):
        return None
    names = network.stages[-STAGES:] if isinstance(network, ResNet) else ["features"]
    convolutions = [[m for m in network.get_submodule(name).modules() if isinstance(m, nn.Conv2d)] for name in names]
    return 2 * sum(found[-1].out_channels for found in convolutions)
