"""TensorBoard logging, with the extra: loss, accuracy and speed of every step, and validation."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from plusx.errors import models as sentences
from plusx.training.events import Event, StepDone, Validated


class Board:
    """Writes losses, accuracies and speeds below RUN/tensorboard where `wanted`; else does nothing.

    Raises UsageError where it is wanted and the extra is not installed.
    """

    def __init__(self, run: Path, *, wanted: bool) -> None:
        self._folder, self._wanted = run / "tensorboard", wanted
        self._writer: Any = None
        if wanted:
            require_tensorboard()

    def open(self, step: int) -> None:
        """Begin writing after `step`; what an interrupted run wrote beyond it is marked as gone."""
        if self._wanted:
            self._writer = _summary_writer()(log_dir=str(self._folder), purge_step=step + 1)

    def close(self) -> None:
        """Write what is waiting."""
        if self._writer is not None:
            self._writer.close()

    def listen(self, event: Event) -> None:
        """Write the figures of one event."""
        for name, value in _figures(event).items() if self._writer is not None else ():
            self._writer.add_scalar(name, value, getattr(event, "step", 0))


def require_tensorboard() -> None:
    """Raise UsageError where the extra is not installed."""
    _summary_writer()


def _figures(event: Event) -> dict[str, float]:
    if isinstance(event, StepDone):
        speed = event.photos / event.seconds
        return {"train/loss": event.loss, "train/accuracy": event.accuracy, "train/images_per_second": speed}
    if isinstance(event, Validated):
        return {f"validation/{name}": value for name, value in event.metrics.items()}
    return {}


def _summary_writer() -> Any:
    try:
        return importlib.import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError:
        raise sentences.missing_extra("--set tensorboard=true", "tensorboard") from None
