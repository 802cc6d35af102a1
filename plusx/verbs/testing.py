"""Answers of a network for decoded photos: what validation, the end of training and `evaluate` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from plusx import metrics
from plusx.data.loader import in_order
from plusx.engines.views import mean_probabilities
from plusx.training.world import ALONE, World
from plusx.verbs.labelled import Indices, Pixels, Store

# what fits in training fits in testing, so no batch is larger than those of training
BATCH = 64
Probabilities = npt.NDArray[np.float32]
Validate = Callable[[nn.Module], Mapping[str, float]]


@torch.inference_mode()
def probabilities(
    network: nn.Module,
    store: Store,
    rows: Indices,
    views: tuple[str, ...],
    size: int,
    *,
    batch_size: int = BATCH,
) -> Probabilities:
    """Probabilities [n, C] for the store's photos at `rows`, averaged over views at `size` pixels."""
    device = next(network.parameters()).device
    answers = []
    for pixels in in_order(store, rows, min(BATCH, batch_size)):
        images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)  # [b, 3, S, S]
        answers.append(mean_probabilities(network, images, views, size).cpu().numpy())
    return np.concatenate(answers)


def validator(
    pixels: Pixels,
    labels: Indices,
    chooses: npt.NDArray[np.bool_],
    size: Callable[[], int],
    batch_size: int = BATCH,
    world: World = ALONE,
) -> Validate | None:
    """What is measured between epochs: accuracy and log loss on the half of validation that chooses, one view.

    While training sizes grow, a network knows things at the size it has seen so far, and is validated at the `size`
    that this means. None where there are no photos to choose by. Several processes share the photos out.
    """
    rows, right = pixels.store_rows[chooses], labels[chooses]
    if not len(rows):
        return None

    def validate(network: nn.Module) -> dict[str, float]:
        shared = len(rows) >= world.size  # of fewer, each process answers for all
        mine = rows[world.mine(len(rows))] if shared else rows
        answers = probabilities(network, pixels.store, mine, ("identity",), size(), batch_size=batch_size)
        answers = world.gather(answers) if shared else answers
        return {
            "n": len(right),
            "accuracy": metrics.accuracy(answers, right),
            "log_loss": metrics.log_loss(answers, right),
        }

    return validate
