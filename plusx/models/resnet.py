"""ResNet (He, Zhang, Ren, Sun 2015, arXiv 1512.03385) and its plain twin, from stem to head.

    stem -> stage 1 -> stage 2 -> stage 3 (-> stage 4) -> global average pool -> fully connected

`shortcut="none"` takes the "+ x" away and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from plusx.models.blocks import NORMS, Block, conv3x3
from plusx.models.initialise import kaiming_, zero_last_norms_

PATCH_FILTERS = 48  # 24 directions of a whitened stem, each with both signs
PATCH_SIZE = 4


class ResNet(nn.Module):
    """A residual network on normalised images [B, 3, H, W]; returns logits [B, classes].

    `block` makes a block from (input channels, channels, stride). There are `depths` blocks per stage, of
    `channels` before expansion; every stage but the first halves height and width. `stem` is "7x7" (stride 2 and
    max pool, as for ImageNet), "3x3" (stride 1, as for CIFAR-10) or "whitened"; `norm` is that of the stem, "batch" or
    "none". The first weights are `initialise_resnet_`'s.
    """

    def __init__(
        self,
        block: Callable[[int, int, int], Block],
        depths: Sequence[int],
        channels: Sequence[int],
        classes: int,
        *,
        stem: str = "7x7",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.stem_kind = stem
        self._build_stem(channels[0], norm)
        in_channels = channels[0]
        self.stages: list[str] = []
        for index, (depth, width) in enumerate(zip(depths, channels, strict=True)):
            first = block(in_channels, width, 1 if index == 0 else 2)
            in_channels = width * first.expansion
            others = [block(in_channels, width, 1) for _ in range(depth - 1)]
            self.stages.append(f"layer{index + 1}")
            self.add_module(self.stages[-1], nn.Sequential(first, *others))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(in_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of normalised images: [B, 3, H, W] -> [B, classes]."""
        logits: Tensor = self.fc(self.pooled(x))
        return logits

    def pooled(self, x: Tensor) -> Tensor:
        """What the head sees: [B, 3, H, W] -> [B, features]."""
        return torch.flatten(self.avgpool(self.features(x)), 1)

    def features(self, x: Tensor) -> Tensor:
        """The last stage's maps: [B, 3, H, W] -> [B, features, h, w]."""
        x = self.stem(x)
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return x

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """The maps of every stage, in order: [B, 3, H, W] -> [B, channels, h, w] each."""
        maps = [self.stem(x)]
        for name in self.stages:
            maps.append(self.get_submodule(name)(maps[-1]))
        return maps[1:]

    def stem(self, x: Tensor) -> Tensor:
        """What the first block sees: [B, 3, H, W] -> [B, channels, h, w]."""
        if self.stem_kind == "whitened":
            x = self.relu(self.patches(x))
        x = self.relu(self.bn1(self.conv1(x)))
        pooled: Tensor = self.maxpool(x)
        return pooled

    def head(self, maps: Tensor) -> Tensor:
        """Logits of the last stage's maps: [B, features, h, w] -> [B, classes]."""
        logits: Tensor = self.fc(torch.flatten(self.avgpool(maps), 1))
        return logits

    def _build_stem(self, channels: int, norm: str) -> None:
        self.relu = nn.ReLU(inplace=True)
        if self.stem_kind == "whitened":
            self.patches = nn.Conv2d(3, PATCH_FILTERS, PATCH_SIZE, stride=2, padding=1, bias=False)
            self.patches.weight.requires_grad_(False)
            self.conv1 = conv3x3(PATCH_FILTERS, channels, norm=norm)
        elif self.stem_kind == "7x7":
            self.conv1 = nn.Conv2d(3, channels, kernel_size=7, stride=2, padding=3, bias=norm == "none")
        else:
            self.conv1 = conv3x3(3, channels, norm=norm)
        self.bn1 = NORMS[norm](channels)
        pools = {"7x7": nn.MaxPool2d(3, stride=2, padding=1), "whitened": nn.MaxPool2d(2)}
        self.maxpool = pools.get(self.stem_kind, nn.Identity())


def initialise_resnet_(model: ResNet, *, zero_init_residual: bool, torch_defaults: bool) -> None:
    """Fill the weights: He et al.'s rule, or PyTorch's own layer defaults; then, if asked, zero the last norms."""
    if not torch_defaults:
        kaiming_(model)
    if zero_init_residual:
        zero_last_norms_(m for m in model.modules() if isinstance(m, Block))
