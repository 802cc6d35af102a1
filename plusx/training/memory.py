"""Running out of memory: recognising it, and finding the batch that fits."""

from __future__ import annotations

import traceback

import torch

from plusx.errors import RunError, processes
from plusx.errors import training as sentences
from plusx.training.settings import Settings
from plusx.training.step import Batch, State, autocast

_CPU_MESSAGES = ("can't allocate memory", "not enough memory", "out of memory")


def out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch failed for want of memory, on whichever device."""
    return isinstance(error, torch.OutOfMemoryError) or any(m in str(error).lower() for m in _CPU_MESSAGES)


def explained(error: RuntimeError, state: State, batch: Batch, settings: Settings) -> RunError:
    """The sentence for a step that ran out of memory, after trying which batch fits. The state cannot be used again."""
    if state.world.size > 1:  # nothing can be tried: the others do not take part
        return processes.out_of_memory(len(batch.images), len(batch.indices))
    traceback.clear_frames(error.__traceback__)  # they still hold the activations of the failed step
    return sentences.out_of_memory(len(batch.images), largest_that_fits(state, batch, settings))


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
    except ValueError:  # batch norm has no spread over a single value
        return False
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return False
    return True
