"""Weights saved on the way, as the textbook program does every hundred steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.torch
from torch import nn

from plusx.durable import disk_errors, write_file
from plusx.model_file import Arrays
from plusx.training.events import Event, WeightsDue


def save_weights(run: Path, event: Event) -> None:
    """Write weights/epoch-EE-step-SSSSSS.safetensors when the loop says that they are due. Raises DiskError."""
    if isinstance(event, WeightsDue):
        folder = run / "weights"
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
        name = f"epoch-{event.epoch:02d}-step-{event.step_in_epoch:06d}.safetensors"
        tensors = {key: value.detach().cpu().contiguous() for key, value in event.model.state_dict().items()}
        write_file(folder / name, safetensors.torch.save(tensors))


def as_arrays(model: nn.Module) -> Arrays:
    """The state dict as NumPy arrays, for a model file."""
    return {name: np.array(value.detach().cpu().numpy()) for name, value in model.state_dict().items()}
