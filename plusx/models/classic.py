"""The networks that residual ones are contrasted with: AlexNet and VGG, layer for layer as in torchvision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

VGG_STAGES: dict[int, tuple[int, ...]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
VGG_CHANNELS = (64, 128, 256, 512, 512)
HIDDEN = 4096


class GridPool(nn.Module):
    """Average pooling to a fixed grid, as `nn.AdaptiveAvgPool2d`, whose backward pass is not deterministic on CUDA.

    Bin i of n over a side of `size` pixels spans floor(i * size / n) to ceil((i + 1) * size / n); since bins are
    rectangles, one matrix averages over rows and one over columns.
    """

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, grid, grid]."""
        height, width = x.shape[-2:]
        if (height, width) == (self.grid, self.grid):
            return x
        return averages(height, self.grid, x) @ x @ averages(width, self.grid, x).T


def averages(size: int, bins: int, like: Tensor) -> Tensor:
    """The matrix [bins, size] whose row i averages over bin i, of the dtype and on the device of `like`.

    Made anew for every batch: a tensor kept from inference mode could not be trained through, and `torch.export`
    takes plain numbers where it warns of a cache.
    """
    edges = [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]
    rows = [[1 / (end - start) if start <= j < end else 0.0 for j in range(size)] for start, end in edges]
    return like.new_tensor(rows)


class Classic(nn.Module):
    """Convolutions, an average pool to a fixed grid, and three fully connected layers."""

    def __init__(self, features: nn.Module, grid: int, classifier: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.avgpool = GridPool(grid)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits of normalised images: [B, 3, H, W] -> [B, classes]."""
        return self.head(self.features(x))

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """The maps of the last convolution, pooled: [B, 3, H, W] -> one of [B, channels, h, w]."""
        return [self.features(x)]

    def head(self, maps: Tensor) -> Tensor:
        """Logits of these maps: [B, channels, h, w] -> [B, classes]."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(maps), 1))
        return logits


def alexnet(classes: int, width: float = 1.0) -> Classic:
    """Five convolutions and three fully connected layers (Krizhevsky 2014, arXiv 1404.5997, one tower)."""
    a, b, c, d = (scaled(n, width) for n in (64, 192, 384, 256))
    hidden = scaled(HIDDEN, width)
    features = nn.Sequential(
        *(nn.Conv2d(3, a, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(c, d, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(d, d, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
    )
    classifier = nn.Sequential(
        *(nn.Dropout(0.5), nn.Linear(d * 36, hidden), nn.ReLU(inplace=True)),
        *(nn.Dropout(0.5), nn.Linear(hidden, hidden), nn.ReLU(inplace=True)),
        nn.Linear(hidden, classes),
    )
    return Classic(features, 6, classifier)


def vgg(depth: int, classes: int, width: float = 1.0, *, norm: bool = False) -> Classic:
    """VGG-11, 13, 16 or 19 (Simonyan and Zisserman 2014, arXiv 1409.1556, table 1), with or without batch norm."""
    channels = [scaled(n, width) for n in VGG_CHANNELS]
    hidden = scaled(HIDDEN, width)
    features = nn.Sequential(*_vgg_layers(VGG_STAGES[depth], channels, norm=norm))
    classifier = nn.Sequential(
        *(nn.Linear(channels[-1] * 49, hidden), nn.ReLU(inplace=True), nn.Dropout(0.5)),
        *(nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(0.5)),
        nn.Linear(hidden, classes),
    )
    model = Classic(features, 7, classifier)
    _initialise_vgg_(model)
    return model


def scaled(channels: int, width: float) -> int:
    """A channel count times the width, at least 1."""
    return max(1, round(channels * width))


def _vgg_layers(stages: Sequence[int], channels: Sequence[int], *, norm: bool) -> Iterator[nn.Module]:
    in_channels = 3
    for depth, out_channels in zip(stages, channels, strict=True):
        for _ in range(depth):
            yield nn.Conv2d(in_channels, out_channels, 3, padding=1)
            if norm:
                yield nn.BatchNorm2d(out_channels)
            yield nn.ReLU(inplace=True)
            in_channels = out_channels
        yield nn.MaxPool2d(2)


def _initialise_vgg_(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
