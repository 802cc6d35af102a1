"""TensorBoard logging, with the extra: the same figures as history.jsonl and timing.jsonl."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import TracebackType
from typing import Any

from plusx.errors import models as sentences
from plusx.training.events import Event, StepDone, Validated


class Board:
    """Writes losses, accuracies and rates below RUN/tensorboard where `wanted`; else does nothing.

    Raises UsageError where it is wanted and the extra is not installed.
    """

    def __init__(self, run: Path, *, wanted: bool) -> None:
        self._writer: Any = _summary_writer()(log_dir=str(run / "tensorboard")) if wanted else None

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
