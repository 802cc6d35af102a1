"""What a lab tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from plusx.training.events import Notice
from plusx.verbs.reports import Decoding


@dataclass(frozen=True)
class Told:
    """What the experiment does now, in a few words."""

    text: str


@dataclass(frozen=True)
class Stepped:
    """A network has come to `step` of `total`."""

    network: str
    step: int
    total: int
    loss: float


@dataclass(frozen=True)
class Learned:
    """A network has come to its end; `done` of `total` have. `diverged` is the step at which its loss was lost."""

    network: str
    done: int
    total: int
    diverged: int | None = None


LabEvent = Told | Stepped | Learned | Notice | Decoding
Listen = Callable[[LabEvent], None]
