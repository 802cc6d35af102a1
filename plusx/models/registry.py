"""Every network by its name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypedDict, Unpack

from torch import nn

from plusx.errors import models as sentences
from plusx.models.blocks import DOWNSAMPLINGS, NORMS, SHORTCUTS, BasicBlock, Block, Bottleneck
from plusx.models.classic import VGG_STAGES, alexnet, scaled, vgg
from plusx.models.resnet import ResNet, initialise_resnet_

IMAGENET_CHANNELS = (64, 128, 256, 512)
CIFAR_CHANNELS = (16, 32, 64)
CIFAR_DEPTHS = (8, 20, 32, 44, 56, 110)  # 6n+2
KNOWN = {
    "stem": ("7x7", "3x3", "whitened"),
    "shortcut": (*SHORTCUTS, "none"),
    "downsampling": DOWNSAMPLINGS,
    "norm": tuple(NORMS),
}
TIMM = "timm/"


@dataclass(frozen=True)
class Options:
    """How a network departs from what its name says."""

    classes: int
    width: float = 1.0
    stem: str = "default"
    shortcut: str = "default"
    downsampling: str = "default"
    norm: str = "default"
    zero_init_residual: bool = False


class Departures(TypedDict, total=False):
    """The same as keyword arguments."""

    width: float
    stem: str
    shortcut: str
    downsampling: str
    norm: str
    zero_init_residual: bool


@dataclass(frozen=True)
class Entry:
    """One name: how to build it, the peak rate SGD with momentum learns well at, and the smallest input in px."""

    build: Callable[[Options], nn.Module]
    rate: float = 0.1
    minimum: int = 32


def list_models() -> tuple[str, ...]:
    """The names of all networks of plusx itself, in the order of families; `timm/NAME` comes on top."""
    return tuple(_ENTRIES)


def default_rate(name: str) -> float:
    """The peak learning rate for SGD with momentum."""
    return entry(name).rate


def minimum_size(name: str) -> int:
    """The smallest height and width of the input, in pixels."""
    return entry(name).minimum


def create_model(name: str, classes: int, **departures: Unpack[Departures]) -> nn.Module:
    """Build network `name` for normalised images [B, 3, H, W]; it returns logits [B, classes].

    `width` multiplies every channel count; `stem` (7x7, 3x3, whitened), `shortcut` (projection, identity, none),
    `downsampling` (stride, pool) and `norm` (batch, none) replace a ResNet's. Raises UsageError for an unknown name and
    for options the network does not have.
    """
    if classes < 1:
        raise sentences.no_classes(classes)
    options = Options(classes, **departures)
    for option, known in KNOWN.items():
        if (value := getattr(options, option)) not in ("default", *known):
            raise sentences.unknown_option(option, value, known)
    return entry(name).build(options)


def entry(name: str) -> Entry:
    """The registered entry. Raises UsageError for an unknown name."""
    if name.startswith(TIMM):
        return Entry(lambda options: _timm(name.removeprefix(TIMM), options), rate=0.05)
    if name not in _ENTRIES:
        raise sentences.unknown_model(name, _ENTRIES)
    return _ENTRIES[name]


def _resnet(
    block: type[Block],
    depths: Sequence[int],
    channels: Sequence[int] = IMAGENET_CHANNELS,
    *,
    stem: str = "7x7",
    shortcut: str = "projection",
    torch_defaults: bool = False,
) -> Callable[[Options], nn.Module]:
    def build(options: Options) -> nn.Module:
        kind = shortcut if options.shortcut == "default" else options.shortcut
        if kind == "none" and options.zero_init_residual:
            raise sentences.zero_without_shortcut()
        if options.norm == "none" and options.zero_init_residual:
            raise sentences.zero_without_norm()
        downsampling = "stride" if options.downsampling == "default" else options.downsampling
        norm = "batch" if options.norm == "default" else options.norm
        model = ResNet(
            partial(block, shortcut=kind, downsampling=downsampling, norm=norm),
            depths,
            [scaled(n, options.width) for n in channels],
            options.classes,
            stem=stem if options.stem == "default" else options.stem,
            norm=norm,
        )
        initialise_resnet_(model, zero_init_residual=options.zero_init_residual, torch_defaults=torch_defaults)
        return model

    return build


def _classic(name: str, build: Callable[[int, float], nn.Module]) -> Callable[[Options], nn.Module]:
    def checked(options: Options) -> nn.Module:
        plain = Options(options.classes, options.width)
        for option in (*KNOWN, "zero_init_residual"):
            if getattr(options, option) != getattr(plain, option):
                raise sentences.no_such_option(name, option)
        return build(options.classes, options.width)

    return checked


def _timm(name: str, options: Options) -> nn.Module:
    if options != Options(options.classes):
        raise sentences.no_such_option(TIMM + name, "width, stem, shortcut, downsampling, norm or zero_init_residual")
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise sentences.missing_extra(TIMM + name, "timm") from None
    if name not in timm.list_models():
        raise sentences.unknown_model(TIMM + name, [TIMM + known for known in timm.list_models()])
    model: nn.Module = timm.create_model(name, num_classes=options.classes, pretrained=False)
    return model


def _cifar(depth: int, shortcut: str) -> Callable[[Options], nn.Module]:
    """6n+2 layers in three stages of n basic blocks (He et al. 2015, section 4.2)."""
    blocks = (depth - 2) // 6
    return _resnet(BasicBlock, [blocks] * 3, CIFAR_CHANNELS, stem="3x3", shortcut=shortcut)


def _vgg(depth: int, *, norm: bool) -> Callable[[int, float], nn.Module]:
    return lambda classes, width: vgg(depth, classes, width, norm=norm)


def _entries() -> dict[str, Entry]:
    basic = {10: (1, 1, 1, 1), 16: (2, 2, 2, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
    deep = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
    made = {f"resnet{n}": Entry(_resnet(BasicBlock, d)) for n, d in basic.items()}
    made |= {f"resnet{n}": Entry(_resnet(Bottleneck, d)) for n, d in deep.items()}
    # the textbook network: PyTorch's own defaults, no pooling
    made |= {f"resnet{n}-3x3": Entry(_resnet(BasicBlock, d, stem="3x3", torch_defaults=True)) for n, d in basic.items()}
    made |= {f"plain{n}": Entry(_resnet(BasicBlock, d, shortcut="none"), rate=0.02) for n, d in basic.items()}
    made |= {f"plain{n}": Entry(_resnet(Bottleneck, d, shortcut="none"), rate=0.02) for n, d in deep.items()}
    for n, d in basic.items():
        textbook_twin = _resnet(BasicBlock, d, stem="3x3", shortcut="none", torch_defaults=True)
        made[f"plain{n}-3x3"] = Entry(textbook_twin, rate=0.02)
    for n in CIFAR_DEPTHS:
        made[f"resnet{n}"] = Entry(_cifar(n, "identity"), minimum=8)
    for n in CIFAR_DEPTHS:
        made[f"plain{n}"] = Entry(_cifar(n, "none"), rate=0.1 if n < 44 else 0.02, minimum=8)
    made["alexnet"] = Entry(_classic("alexnet", alexnet), rate=0.01, minimum=63)
    for n in VGG_STAGES:
        made[f"vgg{n}"] = Entry(_classic(f"vgg{n}", _vgg(n, norm=False)), rate=0.01)
        made[f"vgg{n}-bn"] = Entry(_classic(f"vgg{n}-bn", _vgg(n, norm=True)), rate=0.05)
    return made


_ENTRIES = _entries()
