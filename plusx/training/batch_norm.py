"""Batch norm over the batch of all processes, on CPUs as on GPUs: `nn.SyncBatchNorm` refuses a CPU's tensors.

What a network learns then hangs on the batch and not on how many processes share it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from plusx.errors import processes as sentences
from plusx.training.world import World


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose statistics are those of the photos of all processes; names of tensors are the same.

    While it is `apart`, every process has the whole batch, and its own statistics are right.
    """

    world: World
    apart = False

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W], in the same precision and layout; computed in float32 at least."""
        if not self.training or self.apart:
            return super().forward(x)
        normalised, mean, variance, count = _Synchronised.apply(x, self.weight, self.bias, self.eps, self.world)
        self._remember(mean, variance, count)
        return cast("Tensor", normalised)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Move the running statistics as `nn.BatchNorm2d` does: the variance there is the unbiased one."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - share).add_(mean, alpha=share)
        self.running_var.mul_(1 - share).add_(variance * (count / (count - 1)), alpha=share)


class _Synchronised(torch.autograd.Function):
    """The differentiable part. Two messages: statistics forward, and the sums that the gradient needs backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        mean, variance, count = _statistics(x, weight, eps, world)
        if count == 1:  # in the words of PyTorch, by which the loop knows it
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.count, ctx.world = eps, count, world
        ctx.mark_non_differentiable(mean, variance)
        normalised = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        return normalised, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Ioffe and Szegedy 2015 (arXiv 1502.03167), section 3, over the photos of all processes.

        First as if mean and variance were constants, which PyTorch computes in one go; then what follows from their
        being functions of x: (x - mean) / sigma by a slope for each channel, and a shift, which is a batch norm again.
        Gradients of weight and bias are those of this process's photos: whoever averages gradients adds the others.
        """
        x, weight, mean, variance = ctx.saved_tensors
        inverse = torch.rsqrt(variance + ctx.eps)
        told = (weight, mean, variance, mean, inverse, False, ctx.eps, [True, True, True])
        dx, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(gradient, x, *told)
        ours = torch.stack([of_weight, of_bias]).to(torch.float64, copy=True)  # [2, C]
        slope, shift = (ctx.world.add(ours) / ctx.count).to(mean.dtype) * (-weight * inverse)
        dx += F.batch_norm(x, mean, variance, slope, shift, training=False, eps=ctx.eps)
        return dx, of_weight, of_bias, None, None


def _statistics(x: Tensor, weight: Tensor, eps: float, world: World) -> tuple[Tensor, Tensor, float]:
    """Mean and biased variance [C] over the photos of all processes, and of how many values.

    Each process's own, as PyTorch computes them for its batch norm, are combined (Chan, Golub and LeVeque 1979), which
    loses nothing where a mean is large; sums of squares would. In double precision, so that how photos are dealt out
    matters as little as it can.
    """
    # with weights they are in the precision of these, of a batch in bf16 too
    _, mean, inverse = torch.native_batch_norm(x, weight, weight, None, None, True, 0.0, eps)
    count = x.numel() / x.shape[1]
    squares = (inverse.double() ** -2 - eps) * count
    ours = torch.stack([mean.double(), squares, torch.full_like(squares, count)])
    means, squares, counts = world.each(ours).unbind(1)  # [processes, C] each
    total = float(counts[:, 0].sum())
    whole = (counts * means).sum(0) / total
    spread = (squares + counts * (means - whole) ** 2).sum(0) / total
    return whole.to(mean.dtype), spread.clamp(min=0).to(mean.dtype), total


def synchronise(model: nn.Module, world: World) -> list[SynchronisedBatchNorm2d]:
    """Make every batch norm of `model`, in place, one over all processes. Raises UsageError for a kind not known."""
    found = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in found:
        if type(norm) not in (nn.BatchNorm2d, SynchronisedBatchNorm2d) or not (
            norm.affine and norm.track_running_stats
        ):
            raise sentences.unknown_norm(type(norm).__name__)
        norm.__class__ = SynchronisedBatchNorm2d
        norm.world = world  # type: ignore[assignment]
    return cast("list[SynchronisedBatchNorm2d]", found)
