"""From the tensors of somebody's file to those of a network of ours: names and shapes only, no numbers.

Our residual networks, AlexNet and VGG have torchvision's names. timm's residual networks have the same ones, and its
VGG calls the fully connected layers otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from plusx.models.blocks import Block
from plusx.models.registry import create_model, list_models

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

PREFIXES = ("module.", "model.", "backbone.", "network.", "encoder.", "state_dict.", "_orig_mod.")  # of wrappers
_TIMM_VGG = {"pre_logits.fc1.": "classifier.0.", "pre_logits.fc2.": "classifier.3.", "head.fc.": "classifier.6."}
_SAME_IN_TIMM = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
ENOUGH = 0.5  # share of the parameters outside the head below which weights are no start


@dataclass(frozen=True)
class Match:
    """Which tensor of a file goes where. `pairs`: ours -> theirs; `new`, `unused`: what has no partner.

    `misfits` are ours -> theirs of one name and different shapes. `share` is that of the network's parameters, `body`
    the same without the head.
    """

    pairs: Mapping[str, str]
    new: tuple[str, ...]
    unused: tuple[str, ...]
    misfits: Mapping[str, str]
    share: float
    body: float


def match(network: nn.Module, theirs: Shapes, head: Collection[str], *, keep_head: bool = False) -> Match:
    """Lay the tensors `theirs` beside those of `network`. The `head`'s are new unless it is kept."""
    ours = shapes(network)
    named = _named(theirs, ours)
    wanted = {name: named[name] for name in ours if name in named and (keep_head or name not in head)}
    pairs = {name: other for name, other in wanted.items() if _fits(ours[name], theirs[other])}
    used = set(pairs.values())
    sizes = {name: value.numel() for name, value in network.named_parameters()}
    body = {name: size for name, size in sizes.items() if name not in head}
    return Match(
        pairs,
        tuple(name for name in ours if name not in pairs),
        tuple(sorted(other for other in theirs if other not in used)),
        {name: other for name, other in wanted.items() if name not in pairs},
        _share(pairs, sizes),
        _share(pairs, body),
    )


def deepens(network: nn.Module, new: Collection[str], head: Collection[str]) -> bool:
    """Whether what is `new`, besides the `head`, is whole blocks that begin as the identity, with a last norm of zeros.

    The network then computes what the shallower one did that the others are from, however few of its parameters
    those hold (Goyal et al. 2017, arXiv 1706.02677, section 5.1, begin training so).
    """
    fresh = set(new) - set(head)
    for name, block in network.named_modules():
        if isinstance(block, Block) and block.has_shortcut and block.downsample is None and _ends_in_zeros(block):
            tensors = {f"{name}.{own}" for own in block.state_dict()}
            fresh -= tensors if tensors <= fresh else set()
    return not fresh


def made_for(theirs: Shapes) -> str | None:
    """The network of ours whose tensors are most nearly those of a file; None where none has half of them."""
    overlaps = {name: _overlap(shapes(empty), theirs) for name, empty in _empty_networks()}
    best = max(overlaps, key=lambda name: overlaps[name])
    return best if overlaps[best] >= ENOUGH else None


def of_timm(architecture: str) -> str:
    """The name of timm's network here: ours where it is the same, else `timm/NAME`."""
    return architecture if architecture in _SAME_IN_TIMM else f"timm/{architecture}"


def shapes(network: nn.Module) -> dict[str, Shape]:
    """Shapes by state-dict name."""
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _named(theirs: Shapes, ours: Collection[str]) -> dict[str, str]:
    """Theirs under our names; where two claim one of ours, the shorter does, such as not the average beside it."""
    found: dict[str, str] = {}
    for other in sorted(theirs, key=lambda name: (len(name), name)):
        name = next((name for name in _readings(other) if name in ours), None)
        if name is not None:
            found.setdefault(name, other)
    return found


def _readings(name: str) -> Iterator[str]:
    """A name as it stands, and without the wrappers' prefixes one after the other, each also as ours of timm's."""
    while True:
        yield name
        yield from (our + name.removeprefix(timm) for timm, our in _TIMM_VGG.items() if name.startswith(timm))
        prefix = next((p for p in PREFIXES if name.startswith(p)), None)
        if prefix is None:
            return
        name = name.removeprefix(prefix)


def _fits(ours: Shape, theirs: Shape) -> bool:
    """Equal; or one number as a list of one; or a convolution over the whole map for a fully connected layer."""
    as_linear = len(theirs) == 4 and ours == (theirs[0], prod(theirs[1:]))
    return ours == theirs or (ours, theirs) == ((), (1,)) or as_linear


def _ends_in_zeros(block: Block) -> bool:
    norms = [module for module in block.children() if isinstance(module, nn.BatchNorm2d)]
    return bool(norms) and not bool(norms[-1].weight.any() or norms[-1].bias.any())


def _share(pairs: Collection[str], sizes: Mapping[str, int]) -> float:
    return sum(size for name, size in sizes.items() if name in pairs) / max(1, sum(sizes.values()))


def _overlap(ours: Shapes, theirs: Shapes) -> float:
    """Parameters in both over those in either."""
    named = _named(theirs, ours)
    both = sum(prod(ours[name]) for name, other in named.items() if _fits(ours[name], theirs[other]))
    return both / max(1, sum(map(prod, ours.values())) + sum(map(prod, theirs.values())) - both)


def _empty_networks() -> Iterator[tuple[str, nn.Module]]:
    """Every network of ours, built without memory for its weights."""
    for name in list_models():
        with torch.device("meta"):
            yield name, create_model(name, 1000)
