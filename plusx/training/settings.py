"""What a training loop needs to know, besides its model and its batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Values of one training; the names are those of `plusx.config.Config`. Steps count optimizer updates."""

    total_steps: int
    steps_per_epoch: int
    learning_rate: float
    revisions: tuple[tuple[int, int], ...] = ()
    seed: int = 0
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    decay_norms_and_biases: bool = False
    norm_bias_rate: float = 1.0
    input_rate: float = 1.0
    frozen: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    milestones: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    accumulate: int = 1
    precision: str = "fp32"
    batch_norm: str = "synchronised"
    average: str = "none"
    average_decay: float = 0.999
    average_every: int = 1
    validate_every: int = 1  # epochs
    keep: str = "last"
    patience: int | None = None
    log_every: int = 100
    checkpoint_every: int = 100
    checkpoint_seconds: float = 60.0
    save_weights_every: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], **others: Any) -> Settings:
        """Settings from the fields of a configuration that bear the same names, and `others`."""
        names = {f.name for f in fields(cls)}
        return cls(**({name: value for name, value in config.items() if name in names} | others))
