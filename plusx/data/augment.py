"""Keyed augmentation of whole batches: what is done to a photo is a pure function of (seed, epoch, photo).

Augmenting is two pure functions: `draw` gives parameters, `apply` gives images. Training only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plusx import keyed
from plusx.data import colour, geometry, mixing

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

MAX_ERASED = 0.33  # share of the area, as in Zhong et al. 2017


@dataclass(frozen=True)
class Augment:
    """Which augmentations a run uses; the names are those of `plusx.config.Config`."""

    flip: str = "none"
    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (0.75, 1.3333)
    pad: float = 0.0
    colour: float = 0.0
    erasing: float = 0.0
    policy: str = "none"
    mixup: float = 0.0
    cutmix: float = 0.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # what is padded with: normalised, it is zero
    precision: str = "fp32"  # of training: "bf16" scales and crops in bfloat16, as the network computes

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Augment:
        """The augmentation fields of a configuration."""
        return cls(**{f.name: config[f.name] for f in fields(cls)})


@dataclass(frozen=True)
class Parameters:
    """What happens to one batch; arrays have one row per photo, None where nothing happens."""

    window: geometry.Window
    shift: Floats | None = None  # [B, 2] uniform: where a padded photo is cropped
    colour: Floats | None = None  # [B, 3] uniform
    policy: Floats | None = None  # [B, 2] uniform: operation, strength
    erased: Floats | None = None  # [B, 5] uniform: whether, area, aspect, place
    mix: mixing.Mix | None = None


def draw(augment: Augment, seed: int, epoch: int, indices: Indices, step: int) -> Parameters:
    """The parameters of the batch of photos `indices` in `epoch`; mixing goes by the `step`."""

    def numbers(purpose: str, count: int) -> Floats:
        return keyed.uniform(seed, epoch, indices, purpose, count)

    mirrored = geometry.mirrored(augment.flip, seed, epoch, indices)
    window = geometry.whole(mirrored)
    if augment.crop_scale is not None:
        window = geometry.random_windows(numbers("crop", 4), augment.crop_scale, augment.crop_ratio, mirrored)
    return Parameters(
        window,
        shift=numbers("pad", 2) if augment.pad else None,
        colour=numbers("colour", 3) if augment.colour else None,
        policy=numbers("policy", 2) if augment.policy != "none" else None,
        erased=numbers("erasing", 5) if augment.erasing else None,
        mix=mixing.draw(augment.mixup, augment.cutmix, seed, step),
    )


def apply(
    images: Tensor, targets: Tensor, augment: Augment, parameters: Parameters, size: int, classes: int
) -> tuple[Tensor, Tensor]:
    """Augmented images and targets: uint8 or floats on 0..255 [B, 3, size, size]; int64 [B] or float32 [B, C].

    Where nothing is asked for and the size is right, the uint8 pixels come back as they are.
    """
    images = _geometry(images, augment, parameters.window, size)
    if parameters.shift is not None:
        colour_of_zero = [255 * mean for mean in augment.mean]
        images = geometry.padded_crop(images, round(augment.pad * size), parameters.shift, colour_of_zero)
    if parameters.policy is not None:
        numbers = torch.from_numpy(parameters.policy).float().to(images.device)
        choice = (numbers[:, 0] * len(colour.OPERATIONS)).long()
        images = colour.trivial(images.float(), choice, 2.0 * numbers[:, 1] - 1.0)
    if parameters.colour is not None:
        numbers = torch.from_numpy(parameters.colour).float().to(images.device)
        images = colour.jitter(images.float(), numbers, augment.colour)
    if parameters.erased is not None:
        images = _erase(images, parameters.erased, augment.erasing)
    if parameters.mix is not None:
        return mixing.apply(images.float(), targets, parameters.mix, classes)
    return images, targets


def _geometry(images: Tensor, augment: Augment, window: geometry.Window, size: int) -> Tensor:
    if augment.crop_scale is not None or images.shape[2] != size:
        dtype = torch.bfloat16 if augment.precision == "bf16" else torch.float32
        return geometry.resample(images, window, size, dtype)
    if window.mirrored.any():
        flags = torch.from_numpy(window.mirrored).to(images.device).view(-1, 1, 1, 1)
        return torch.where(flags, images.flip(3), images)
    return images


def _erase(images: Tensor, numbers: Floats, probability: float) -> Tensor:
    """Random erasing (Zhong et al. 2017, arXiv 1708.04896): a rectangle of mid-grey over some photos."""
    images = images.clone()
    height, width = images.shape[2:]
    for row in np.nonzero(numbers[:, 0] < probability)[0]:
        _, area, aspect, y, x = numbers[row]
        share, ratio = 0.02 + area * (MAX_ERASED - 0.02), np.exp((2 * aspect - 1) * np.log(3.3))
        tall = min(height, round(height * np.sqrt(share * ratio)))
        wide = min(width, round(width * np.sqrt(share / ratio)))
        top, left = round(y * (height - tall)), round(x * (width - wide))
        images[row, :, top : top + tall, left : left + wide] = 128
    return images
