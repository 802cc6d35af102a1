"""Everything the report of a run shows, as plain values: what was measured, told once, drawn elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plusx.report.advice import Advice
from plusx.report.curves import Points
from plusx.report.figures import Bin

Facts = tuple[tuple[str, str], ...]  # (name, value) as printed


@dataclass(frozen=True)
class Shown:
    """One photo on the page: its given label, the answer and its probability, and that of the label.

    `picture` and `overlay` are JPEG or PNG bytes; None where the photo or its map could not be made.
    """

    name: str
    label: str
    answer: str
    probability: float
    of_label: float
    novelty: float | None = None
    picture: bytes | None = None
    overlay: bytes | None = None


@dataclass(frozen=True)
class Gallery:
    """Photos chosen by one rule; `total` is how many it holds for, of which some are shown."""

    title: str
    told: str
    total: int
    photos: tuple[Shown, ...]


@dataclass(frozen=True)
class Decisions:
    """How many photos were answered, called "unsure" or "none of these", and how many of the answers were right."""

    n: int
    answered: int
    right: int
    unsure: int
    none: int


@dataclass(frozen=True)
class Measured:
    """Answers to one set of photos. `figures` are those of `plusx.metrics.summary`; `where` says which photos."""

    name: str  # "validation", "test" or the name of the data
    where: str
    figures: Mapping[str, Any]
    ece_by_chance: float  # that right probabilities exceed in 2.5 % of all cases
    bins_before: Sequence[Bin]  # of the reliability diagram, without the temperature; empty where there is none
    risk: Points
    decisions: Decisions
    galleries: tuple[Gallery, ...] = ()


@dataclass(frozen=True)
class Course:
    """How the training went, over epochs: (epoch, value) each; `sizes` marks (epoch, px) from where on."""

    loss: Points = ()
    accuracy: Points = ()
    rate: Points = ()
    validation_loss: Points = ()
    validation_accuracy: Points = ()
    validated: int = 0  # photos behind each validation
    sizes: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Speed:
    """Training speed at one size: median images/s of `n` measured steps."""

    size: int
    images_per_second: float
    n: int


@dataclass(frozen=True)
class Story:
    """A run, or a model tested on some data: what it is and everything measured. `main` is what the page leads with."""

    title: str
    lead: str
    main: Measured | None
    other: Measured | None = None  # validation, where the test leads
    data: Facts = ()
    model: Facts = ()
    training: Facts = ()
    machine: Facts = ()
    course: Course | None = None
    speeds: tuple[Speed, ...] = ()
    calibration: Mapping[str, Any] | None = None
    thresholds: Mapping[str, Any] | None = None
    novelty: Mapping[str, Any] | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    advice: tuple[Advice, ...] = ()
    notes: tuple[str, ...] = field(default=())
