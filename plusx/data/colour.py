"""Colour and pixel operations on whole batches, each with one strength per photo."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
Operation = Callable[[Tensor, Tensor], Tensor]  # images [B, 3, H, W] on 0..255, strengths [B, 1, 1, 1] in [-1, 1]


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scale towards black (0) or away from it (over 1)."""
    return (images * factor).clamp(0, 255)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale around each photo's mean grey."""
    mean = grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(images), images, factor).clamp(0, 255)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scale around each pixel's grey."""
    return torch.lerp(grey(images).expand_as(images), images, factor).clamp(0, 255)


def grey(images: Tensor) -> Tensor:
    """Luma of ITU-R BT.601, [B, 1, H, W]."""
    luma = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    return (images * luma).sum(dim=1, keepdim=True)


def jitter(images: Tensor, numbers: Tensor, strength: float) -> Tensor:
    """Brightness, contrast and saturation, each by a factor in 1 +- strength; `numbers` uniform, [B, 3]."""
    factors = 1.0 + strength * (2.0 * numbers - 1.0)
    for column, operation in enumerate((brightness, contrast, saturation)):
        images = operation(images, factors[:, column].view(-1, 1, 1, 1))
    return images


def trivial(images: Tensor, choice: Tensor, strength: Tensor) -> Tensor:
    """TrivialAugment (Mueller and Hutter 2021, arXiv 2103.10158): one operation of random strength per photo.

    `choice` [B] picks the operation, `strength` [B] is uniform in [-1, 1].
    """
    out = images.clone()
    for number, operation in enumerate(OPERATIONS):
        chosen = torch.nonzero(choice == number)[:, 0]
        if len(chosen):
            out[chosen] = operation(images[chosen], strength[chosen].view(-1, 1, 1, 1))
    return out


def _sharpness(images: Tensor, strength: Tensor) -> Tensor:
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]], device=images.device) / 13
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    blurred = F.conv2d(padded, kernel.expand(3, 1, 3, 3), groups=3)
    return torch.lerp(blurred, images, 1.0 + 0.9 * strength).clamp(0, 255)


def _posterize(images: Tensor, strength: Tensor) -> Tensor:
    step = 2.0 ** torch.round(6.0 * strength.abs())
    return torch.floor(images / step) * step


def _solarize(images: Tensor, strength: Tensor) -> Tensor:
    threshold = 255.0 * (1.0 - strength.abs())
    return torch.where(images >= threshold, 255.0 - images, images)


def _autocontrast(images: Tensor, _strength: Tensor) -> Tensor:
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    stretched = (images - low) * (255.0 / (high - low).clamp(min=1.0))
    return torch.where(high > low, stretched, images)


def _affine(images: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, shift: tuple[Tensor, Tensor]) -> Tensor:
    rows = [torch.stack([a, b, shift[0]], dim=-1), torch.stack([c, d, shift[1]], dim=-1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _rotate(images: Tensor, strength: Tensor) -> Tensor:
    angle = strength.flatten() * math.radians(135.0)
    zero = torch.zeros_like(angle)
    return _affine(images, angle.cos(), -angle.sin(), angle.sin(), angle.cos(), (zero, zero))


def _shear_x(images: Tensor, strength: Tensor) -> Tensor:
    one, zero, shear = _ones_zeros(strength)
    return _affine(images, one, shear, zero, one, (zero, zero))


def _shear_y(images: Tensor, strength: Tensor) -> Tensor:
    one, zero, shear = _ones_zeros(strength)
    return _affine(images, one, zero, shear, one, (zero, zero))


def _translate_x(images: Tensor, strength: Tensor) -> Tensor:
    one, zero, shift = _ones_zeros(strength)
    return _affine(images, one, zero, zero, one, (shift, zero))


def _translate_y(images: Tensor, strength: Tensor) -> Tensor:
    one, zero, shift = _ones_zeros(strength)
    return _affine(images, one, zero, zero, one, (zero, shift))


def _ones_zeros(strength: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    flat = strength.flatten()
    return torch.ones_like(flat), torch.zeros_like(flat), 0.99 * flat


OPERATIONS: tuple[Operation, ...] = (
    lambda images, _strength: images,
    lambda images, strength: brightness(images, 1.0 + 0.99 * strength),
    lambda images, strength: contrast(images, 1.0 + 0.99 * strength),
    lambda images, strength: saturation(images, 1.0 + 0.99 * strength),
    _sharpness,
    _posterize,
    _solarize,
    _autocontrast,
    _rotate,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
)
