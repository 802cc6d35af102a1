"""First weights: He et al.'s rule, zeroed residual branches, and a stem that whitens patches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_AT_A_TIME = 16  # photos whose patches are in memory at once, 75 MB at 224 px
_EPSILON = 5e-3  # added to every variance before its root is taken, so that weak directions are not blown up


class HasLastNorm(Protocol):
    """A block whose residual branch ends in a norm."""

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """That norm."""


def kaiming_(model: nn.Module) -> None:
    """Normal weights of variance 2 / fan-out for convolutions (He et al. 2015, arXiv 1502.01852, section 2.2).

    Biases of convolutions are zero.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def zero_last_norms_(blocks: Iterable[HasLastNorm]) -> None:
    """Every block starts as its shortcut: F(x) = 0 (Goyal et al. 2017, arXiv 1706.02677, section 5.1)."""
    for block in blocks:
        nn.init.zeros_(block.last_norm.weight)


def needs_whitening(model: nn.Module) -> bool:
    """Whether the model has a stem whose first convolution waits for `whiten_`."""
    return any(name.endswith("patches.weight") for name, _ in model.named_parameters())


@torch.no_grad()
def whiten_(model: nn.Module, images: Tensor) -> None:
    """Set the frozen first convolution to the leading principal directions of the patches of `images`.

    `images` are normalised training photos, float [N, 3, H, W]. Each direction is scaled to unit variance and
    used with both signs, so that ReLU loses nothing (Jordan 2024, arXiv 2404.00498, section 3.2; the idea is
    Page's, 2018).
    """
    weight = next(p for name, p in model.named_parameters() if name.endswith("patches.weight"))
    size, count = weight.shape[-1], len(weight) // 2
    variances, directions = torch.linalg.eigh(_patch_covariance(images, size))  # ascending; directions in columns
    leading = directions[:, -count:] / torch.sqrt(variances[-count:] + _EPSILON)
    filters = _with_fixed_signs(leading.T.flip(0))  # [count, 3*size*size], the strongest first
    weight.copy_(torch.cat([filters, -filters]).reshape(weight.shape))


def _patch_covariance(images: Tensor, size: int) -> Tensor:
    """Covariance of all size x size patches at stride 2, float64 [3*size*size] squared, summed a few photos a time."""
    total, products, count = torch.zeros(1), torch.zeros(1), 0
    for few in torch.split(images.cpu(), _AT_A_TIME):  # Apple's GPUs have no doubles
        patches = F.unfold(few.double(), size, stride=2)  # [n, 3*size*size, L]
        patches = patches.transpose(1, 2).flatten(0, 1)  # [n*L, 3*size*size]
        total, products = total + patches.sum(dim=0), products + patches.T @ patches
        count += len(patches)
    mean = total / count
    return products / count - torch.outer(mean, mean)


def _with_fixed_signs(rows: Tensor) -> Tensor:
    """An eigenvector's sign is arbitrary: make its largest entry positive, so that equal photos give equal weights."""
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    return rows * largest.sign()
