"""Test-time views: the ways in which a network looks at one photo before its answers are averaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from plusx.data import geometry
from plusx.engines.looks import VIEWS


def mean_probabilities(network: nn.Module, images: Tensor, views: tuple[str, ...], size: int) -> Tensor:
    """Softmax probabilities of images [n, 3, S, S], averaged over test-time views at `size` pixels: [n, C]."""
    return averaged([network(seen) for seen in by_views(images, views, size)])


def averaged(logits: Sequence[Tensor]) -> Tensor:
    """Mean of the softmax probabilities of several looks at the same photos: [n, C] each -> [n, C]."""
    return torch.stack([look.softmax(dim=1) for look in logits]).mean(dim=0)


def by_views(images: Tensor, views: tuple[str, ...], size: int) -> Iterator[Tensor]:
    """Images [n, 3, S, S] as each of the views shows them, [n, 3, size, size]."""
    asked = [VIEWS[view] for view in views]
    seen = {share: geometry.scaled(images, size, share) for share in {view.share for view in asked}}
    for view in asked:
        yield seen[view.share].flip(3) if view.mirrored else seen[view.share]
