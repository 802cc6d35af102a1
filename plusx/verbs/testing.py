"""Answers of a network for decoded photos: what validation, the end of training and `evaluate` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from plusx import metrics
from plusx.data.loader import in_order
from plusx.engines.torch_engine import mean_probabilities
from plusx.verbs.labelled import Indices, Pixels, Store

BATCH = 64
Probabilities = npt.NDArray[np.float32]
Validate = Callable[[nn.Module], Mapping[str, float]]


@torch.inference_mode()
def probabilities(
    network: nn.Module, store: Store, rows: Indices, views: tuple[str, ...], batch_size: int = BATCH
) -> Probabilities:
    """Probabilities [n, C] for the store's photos at `rows`."""
    device = next(network.parameters()).device
    answers = []
    for pixels in in_order(store, rows, batch_size):
        images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).contiguous()  # [b, 3, S, S]
        answers.append(mean_probabilities(network, images, views).cpu().numpy())
    return np.concatenate(answers)


def validator(pixels: Pixels, labels: Indices, chooses: npt.NDArray[np.bool_]) -> Validate | None:
    """What is measured between epochs: accuracy and log loss on the half of validation that chooses, one view.

    None where there are no such photos.
    """
    rows, right = pixels.store_rows[chooses], labels[chooses]
    if not len(rows):
        return None

    def validate(network: nn.Module) -> dict[str, float]:
        answers = probabilities(network, pixels.store, rows, ("identity",))
        return {"accuracy": metrics.accuracy(answers, right), "log_loss": metrics.log_loss(answers, right)}

    return validate
