"""A residual network, or its plain twin, as a chain of blocks that can be cut, exchanged and dialled.

Veit, Wilber and Belongie 2016 (arXiv 1605.06431) do this to networks that are trained already. An edit takes the
links of a chain and gives those of another; the blocks themselves, and the network, stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from plusx.models.blocks import Block, ZeroPadShortcut
from plusx.models.normalise import Normalised
from plusx.models.resnet import ResNet

Links = tuple[nn.Module, ...]
Edit = Callable[[Links], Links]
AT_A_TIME = 250  # photos whose maps before every block are in memory at once


class Dialled(nn.Module):
    """F(x) + alpha x, then ReLU: `block` with its shortcut scaled; at 1 the block, bit for bit, at 0 a plain one."""

    def __init__(self, block: Block, alpha: float) -> None:
        super().__init__()
        assert block.has_shortcut, "a plain block has nothing to scale"
        self.block, self.alpha = block, alpha

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H/stride, W/stride]."""
        shortcut = x if self.block.downsample is None else self.block.downsample(x)
        return torch.relu(self.block.residual(x) + self.alpha * shortcut)


class Bypass(nn.Module):
    """What is left where the branch of a block is cut out: its shortcut and ReLU, without F.

    A plain block has no shortcut; where maps change their shape it gets that of its residual twin (option A: every
    stride-th pixel, new channels of zeros), which has no parameters, and elsewhere nothing at all is left of it.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        channels_in, channels_out, stride = shape(block)
        changes = channels_in != channels_out or stride > 1
        twin = ZeroPadShortcut(channels_in, channels_out, stride) if changes else nn.Identity()
        self.path = block.downsample if block.downsample is not None else twin

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H/stride, W/stride]."""
        return torch.relu(self.path(x))  # changes nothing of maps behind a ReLU


def blocks(network: Normalised) -> tuple[Block, ...]:
    """All blocks from the input to the head."""
    resnet = _resnet(network)
    return tuple(cast(Block, block) for stage in resnet.stages for block in resnet.get_submodule(stage).children())


def shape(block: Block) -> tuple[int, int, int]:
    """Channels in, channels out, and by how much height and width shrink."""
    convolutions = [module for module in block.children() if isinstance(module, nn.Conv2d)]
    pooled = cast(int, block.pool.stride) if isinstance(block.pool, nn.MaxPool2d) else 1
    return convolutions[0].in_channels, convolutions[-1].out_channels, block.conv_stride * pooled


def keeps_shape(block: Block) -> bool:
    """Whether maps leave the block as large as they came."""
    channels_in, channels_out, stride = shape(block)
    return channels_in == channels_out and stride == 1


def deleted(*places: int) -> Edit:
    """Without the branches of the blocks at `places`."""
    return lambda links: tuple(Bypass(cast(Block, b)) if i in places else b for i, b in enumerate(links))


def swapped(*pairs: tuple[int, int]) -> Edit:
    """With what stands at two places exchanged, one pair after the other."""

    def edit(links: Links) -> Links:
        order = list(links)
        for a, b in pairs:
            order[a], order[b] = order[b], order[a]
        return tuple(order)

    return edit


def dialled(alpha: float, places: Collection[int] | None = None) -> Edit:
    """With the shortcuts of the blocks at `places`, or of all, scaled by `alpha`."""

    def edit(links: Links) -> Links:
        return tuple(
            Dialled(cast(Block, b), alpha) if places is None or i in places else b for i, b in enumerate(links)
        )

    return edit


def logits(network: Normalised, links: Links, pixels: Tensor) -> Tensor:
    """[n, classes] of pixels [n, 3, S, S], through `links` in the place of the network's blocks."""
    maps = _resnet(network).stem(network.normalise(pixels))
    return _resnet(network).head(_through(links, maps))


@torch.inference_mode()
def wrong(network: Normalised, edits: Sequence[Edit], pixels: Tensor, labels: Tensor) -> list[int]:
    """How many of the pixels [n, 3, S, S] with labels [n] every edited chain answers wrong; `network` is in eval mode.

    A chain is computed from its first changed link on: the maps that reach it are those of the network as it is.
    """
    links: Links = blocks(network)
    chains = [edit(links) for edit in edits]
    found = [0] * len(chains)
    for images, wanted in zip(torch.split(pixels, AT_A_TIME), torch.split(labels, AT_A_TIME), strict=True):
        for i, said in enumerate(_answers(network, chains, images)):
            found[i] += int((said.argmax(dim=1) != wanted).sum())
    return found


@torch.no_grad()
def with_new_statistics(network: Normalised, edit: Edit, pixels: Tensor) -> Normalised:
    """A copy of the network whose norms have the statistics that photos [n, 3, S, S] have in the edited chain.

    Means over batches of what batch norm computes in training, so photos come in an order without classes, as there;
    no weight is learned anew.
    """
    again = copy.deepcopy(network)
    for norm in again.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
    again.train()
    links = edit(blocks(again))
    for images in torch.split(pixels, AT_A_TIME):
        logits(again, links, images)
    return again.eval()


def _answers(network: Normalised, chains: Sequence[Links], images: Tensor) -> Iterator[Tensor]:
    links: Links = blocks(network)
    before = [_resnet(network).stem(network.normalise(images))]
    for link in links:
        before.append(link(before[-1]))  # what comes before every block, and after the last
    for chain in chains:
        first = next((i for i, (old, new) in enumerate(zip(links, chain, strict=True)) if old is not new), len(links))
        yield _resnet(network).head(_through(chain[first:], before[first]))


def _through(links: Links, maps: Tensor) -> Tensor:
    for link in links:
        maps = link(maps)
    return maps


def _resnet(network: Normalised) -> ResNet:
    assert isinstance(network.network, ResNet), "a network of blocks"
    return network.network
