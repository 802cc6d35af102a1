"""Mixup and CutMix: photos and their labels blended within a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from plusx import keyed


@dataclass(frozen=True)
class Mix:
    """How a batch is blended with its own reverse: the share that stays, and for CutMix the box that changes."""

    share: float
    box: tuple[float, float, float, float] | None = None  # top, left, height, width as fractions; None: mixup


def draw(mixup: float, cutmix: float, seed: int, step: int) -> Mix | None:
    """The blend of the batch of `step`; one of the two at random where both are asked for, None where neither is."""
    if not mixup and not cutmix:
        return None
    numbers = keyed.generator(seed, 0, step, "mixing")
    use_cutmix = cutmix > 0 and (not mixup or numbers.random() < 0.5)
    alpha = cutmix if use_cutmix else mixup
    share = float(numbers.beta(alpha, alpha))
    if not use_cutmix:
        return Mix(share)
    side = float(np.sqrt(1.0 - share))
    top, left = numbers.random(2) * (1.0 - side)
    return Mix(share, (float(top), float(left), side, side))


def apply(images: Tensor, targets: Tensor, mix: Mix, classes: int) -> tuple[Tensor, Tensor]:
    """Blended images [B, 3, H, W] and soft targets [B, C].

    Mixup: Zhang et al. 2017 (arXiv 1710.09412). CutMix: Yun et al. 2019 (arXiv 1905.04899); the labels
    get the exact share of pixels.
    """
    soft = F.one_hot(targets, classes).float()
    if mix.box is None:
        images, share = torch.lerp(images.flip(0), images, mix.share), mix.share
    else:
        images, share = _pasted(images, mix.box)
    return images, share * soft + (1.0 - share) * soft.flip(0)


def _pasted(images: Tensor, box: tuple[float, float, float, float]) -> tuple[Tensor, float]:
    """Each photo with the box of its partner, and the share of its own pixels that stays."""
    height, width = images.shape[2:]
    top, left = round(box[0] * height), round(box[1] * width)
    bottom, right = round((box[0] + box[2]) * height), round((box[1] + box[3]) * width)
    pasted = images.clone()
    pasted[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    return pasted, 1.0 - (bottom - top) * (right - left) / (height * width)
