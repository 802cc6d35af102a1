"""How a network answers photos: its error and its loss, in batches, with nothing learned."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from plusx.lab.photos import Photos

BATCH = 500  # photos at a time

Forward = Callable[[Tensor], Tensor]  # pixels [B, 3, S, S] -> logits [B, C]


@torch.inference_mode()
def logits(network: Forward, photos: Photos, batch: int = BATCH) -> Tensor:
    """Logits float32 [n, C] of a network as it is: whoever wants running statistics calls `.eval()` first."""
    return torch.cat([network(pixels).float() for pixels in torch.split(photos.pixels, batch)])


def error_and_loss(network: Forward, photos: Photos, batch: int = BATCH) -> tuple[float, float]:
    """Share of wrong answers, and mean cross-entropy. What is not finite is wrong, and has no finite loss."""
    answers = logits(network, photos, batch)
    right = (answers.argmax(dim=1) == photos.labels) & answers.isfinite().all(dim=1)
    return 1.0 - float(right.double().mean()), float(F.cross_entropy(answers, photos.labels))
