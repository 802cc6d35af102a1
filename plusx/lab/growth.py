"""The identity as a block, and networks made deeper by it.

He et al. 2015 (arXiv 1512.03385, section 1) argue from a constructed solution: a deeper network that copies a
shallower one and passes the maps on in the layers it has more can be no worse. A residual block passes them on when
its branch is zero; a plain one needs kernels and norms set by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from plusx.models.blocks import Block
from plusx.models.normalise import Normalised
from plusx.models.resnet import ResNet


@dataclass(frozen=True)
class Sameness:
    """How many `values` came out of a block as they went in, how many as zeros, and the largest difference."""

    values: int
    equal: int
    zeros: int
    largest: float

    def __add__(self, other: Sameness) -> Sameness:
        return Sameness(
            self.values + other.values,
            self.equal + other.equal,
            self.zeros + other.zeros,
            max(self.largest, other.largest),
        )


@torch.inference_mode()
def sameness(block: nn.Module, x: Tensor) -> Sameness:
    """What `block` makes of `x`, compared value by value, bit for bit but for the sign of zero."""
    out = block(x)
    return Sameness(x.numel(), int((out == x).sum()), int((out == 0).sum()), float((out - x).abs().max()))


@torch.no_grad()
def silence_(block: Block) -> None:
    """F(x) = 0: the norm that ends the branch gives nothing but zeros."""
    nn.init.zeros_(block.last_norm.weight)
    nn.init.zeros_(block.last_norm.bias)


@torch.no_grad()
def pass_on_(block: Block, mean: Tensor, variance: Tensor) -> None:
    """Make a plain basic block the identity of maps without negative values: unit kernels, norms that undo themselves.

    `mean` and `variance` [channels] are those of the maps it gets: each norm takes them out and puts them back, so
    that the block passes its maps on in training, too, as far as a batch has the statistics of all.
    """
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        nn.init.dirac_(convolution.weight)
    for norm in (module for module in block.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)
        cast(Tensor, norm.running_mean).copy_(mean)
        cast(Tensor, norm.running_var).copy_(variance)


def lay_in_(deep: Normalised, shallow: Normalised) -> None:
    """Give `deep` every tensor of `shallow`: its first blocks of each stage are those, the others stay as they were."""
    deep.load_state_dict({**deep.state_dict(), **shallow.state_dict()}, strict=True)


def added(deep: Normalised, shallow: Normalised) -> Iterator[tuple[int, Block]]:
    """The blocks that `deep` has more, with the number of their stage."""
    less, more = cast(ResNet, shallow.network), cast(ResNet, deep.network)
    for number, stage in enumerate(more.stages):
        first = len(cast(nn.Sequential, less.get_submodule(stage)))
        for block in cast(Any, more.get_submodule(stage))[first:]:
            yield number, block


@torch.no_grad()
def construct_(deep: Normalised, shallow: Normalised, pixels: Tensor) -> None:
    """The constructed solution for plain networks: `shallow` in `deep`, the blocks in between pass their maps on.

    `pixels` [n, 3, S, S] are training photos; `shallow` is in eval mode.
    """
    lay_in_(deep, shallow)
    maps = cast(ResNet, shallow.network).stage_maps(shallow.normalise(pixels))
    for number, block in added(deep, shallow):
        of_channels = maps[number].transpose(0, 1).flatten(1)  # [channels, n * h * w]
        pass_on_(block, of_channels.mean(dim=1), of_channels.var(dim=1))
