"""The two residual blocks of He et al. 2015 (arXiv 1512.03385) and their shortcuts.

A block computes H(x) = F(x) + x: the residual branch learns F, the shortcut carries x.
State-dict names (conv1, bn1, downsample.0 ...) are those of torchvision, the field's common file format.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

Norm = nn.BatchNorm2d | nn.Identity


NORMS: dict[str, Callable[[int], Norm]] = {"batch": nn.BatchNorm2d, "none": nn.Identity}


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, *, norm: str = "batch") -> nn.Conv2d:
    """A 3x3 convolution that keeps height and width at stride 1; it has a bias where no norm behind it holds one."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=norm == "none")


def conv1x1(in_channels: int, out_channels: int, stride: int = 1, *, norm: str = "batch") -> nn.Conv2d:
    """A 1x1 convolution; it has a bias where no norm behind it holds one."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=norm == "none")


class ZeroPadShortcut(nn.Module):
    """Option A of section 3.3: every stride-th pixel, the new channels filled with zeros; no parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = out_channels - in_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H/stride, W/stride]."""
        before = self.extra // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra - before))


def projection_shortcut(in_channels: int, out_channels: int, stride: int, norm: str) -> nn.Module:
    """Option B: a 1x1 convolution with its norm, [B, in, H, W] -> [B, out, H/stride, W/stride]."""
    return nn.Sequential(conv1x1(in_channels, out_channels, stride, norm=norm), NORMS[norm](out_channels))


SHORTCUTS = ("projection", "identity")
DOWNSAMPLINGS = ("stride", "pool")


def shortcut_of(kind: str, in_channels: int, out_channels: int, stride: int, norm: str) -> nn.Module:
    """The shortcut of `kind` where shapes change."""
    if kind == "identity":
        return ZeroPadShortcut(in_channels, out_channels, stride)
    return projection_shortcut(in_channels, out_channels, stride, norm)


def pooled_shortcut(kind: str, in_channels: int, out_channels: int, stride: int, norm: str) -> nn.Module:
    """The mean of stride x stride pixels, at the edge of those there are, then the shortcut `kind` at stride 1.

    "ResNet-D" of He, T. et al. 2018 (arXiv 1812.01187, section 4.2).
    """
    mean = nn.AvgPool2d(stride, ceil_mode=True)
    return nn.Sequential(mean, shortcut_of(kind, in_channels, out_channels, 1, norm))


class Block(nn.Module):
    """What both blocks share: the addition. `shortcut` is "projection", "identity" or "none" (a plain block).

    Where `stride` is 2, `downsampling` says how pixels go: by "stride", as in the paper, or by "pool": the branch
    takes the largest of four behind the convolution that would have skipped them, the shortcut their mean.
    `norm` is "batch", or "none": then convolutions have biases.
    """

    expansion = 1

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, shortcut: str, downsampling: str, norm: str
    ) -> None:
        super().__init__()
        pools = downsampling == "pool" and stride > 1
        self.has_shortcut = shortcut != "none"
        self.relu = nn.ReLU(inplace=True)
        self.conv_stride = 1 if pools else stride
        # an odd last row or column counts too, as where a convolution strides
        self.pool = nn.MaxPool2d(stride, ceil_mode=True) if pools else nn.Identity()
        self.downsample: nn.Module | None = None
        if self.has_shortcut and (stride != 1 or in_channels != out_channels):
            make = pooled_shortcut if pools else shortcut_of
            self.downsample = make(shortcut, in_channels, out_channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H/stride, W/stride]."""
        if not self.has_shortcut:
            plain: Tensor = self.relu(self.residual(x))
            return plain
        identity = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(self.residual(x) + identity)  # H(x) = F(x) + x
        return out

    def residual(self, x: Tensor) -> Tensor:
        """F(x)."""
        raise NotImplementedError

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm that ends F; with its weight at zero the block starts as its shortcut. Of a block with norms."""
        raise NotImplementedError


class BasicBlock(Block):
    """Two 3x3 convolutions (figure 5, left)."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        shortcut: str = "projection",
        downsampling: str = "stride",
        norm: str = "batch",
    ) -> None:
        super().__init__(in_channels, channels, stride, shortcut, downsampling, norm)
        self.conv1 = conv3x3(in_channels, channels, self.conv_stride, norm=norm)
        self.bn1 = NORMS[norm](channels)
        self.conv2 = conv3x3(channels, channels, norm=norm)
        self.bn2 = NORMS[norm](channels)

    def residual(self, x: Tensor) -> Tensor:
        """F(x): conv, norm, ReLU, conv, norm."""
        out = self.relu(self.bn1(self.pool(self.conv1(x))))
        branch: Tensor = self.bn2(self.conv2(out))
        return branch

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The second norm."""
        assert isinstance(self.bn2, nn.BatchNorm2d), "a block with norms"
        return self.bn2


class Bottleneck(Block):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many (figure 5, right).

    The stride lies in the 3x3 convolution, as in torchvision ("ResNet v1.5"); the paper has it in the first 1x1.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        shortcut: str = "projection",
        downsampling: str = "stride",
        norm: str = "batch",
    ) -> None:
        super().__init__(in_channels, channels * self.expansion, stride, shortcut, downsampling, norm)
        self.conv1 = conv1x1(in_channels, channels, norm=norm)
        self.bn1 = NORMS[norm](channels)
        self.conv2 = conv3x3(channels, channels, self.conv_stride, norm=norm)
        self.bn2 = NORMS[norm](channels)
        self.conv3 = conv1x1(channels, channels * self.expansion, norm=norm)
        self.bn3 = NORMS[norm](channels * self.expansion)

    def residual(self, x: Tensor) -> Tensor:
        """F(x): three convolutions, each with its norm, ReLU between."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.pool(self.conv2(out))))
        branch: Tensor = self.bn3(self.conv3(out))
        return branch

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The third norm."""
        assert isinstance(self.bn3, nn.BatchNorm2d), "a block with norms"
        return self.bn3
