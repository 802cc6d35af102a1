"""Running out of memory: recognising it, and finding the batch that fits."""

from __future__ import annotations

import torch

from plusx.training.settings import Settings
from plusx.training.step import Batch, State, autocast

_CPU_MESSAGES = ("can't allocate memory", "not enough memory", "out of memory")


def out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch failed for want of memory, on whichever device."""
    return isinstance(error, torch.OutOfMemoryError) or any(m in str(error).lower() for m in _CPU_MESSAGES)


def largest_that_fits(state: State, batch: Batch, settings: Settings) -> int | None:
    """The largest halving of `batch` whose gradients can be computed; None where not even one photo fits.

    Changes norm statistics and gradients, so it is called only when the run is over.
    """
    size = len(batch.images) // 2
    while size:
        if _fits(state, batch, size, settings.precision):
            return size
        size //= 2
    return None


def _fits(state: State, batch: Batch, size: int, precision: str) -> bool:
    state.optimizer.zero_grad(set_to_none=True)
    if batch.images.is_cuda:
        torch.cuda.empty_cache()
    try:
        with autocast(batch.images.device, precision):
            logits = state.model(batch.images[:size])
        logits.float().sum().backward()
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return False
    return True
