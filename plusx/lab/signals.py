"""Signals: responses and gradients on their way through depth, with and without batch norm and shortcuts.

Two things that are often taken for one are told apart. Without norms signals vanish or explode on their way through
depth. With batch norm they do not vanish, and the deeper plain network is worse all the same: that is degradation
(He et al. 2015, arXiv 1512.03385, section 4.1). All of it is watched while networks are trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn

from plusx import keyed
from plusx.lab.answers import error_and_loss
from plusx.lab.capture import Values, look, responses
from plusx.lab.laboratory import Lab
from plusx.lab.network import Network
from plusx.lab.probe import signals
from plusx.lab.results import Result, seeds_said
from plusx.lab.signals_figures import figures
from plusx.lab.signals_findings import findings
from plusx.lab.signals_tables import tables

CELLS = (("plain", "batch"), ("resnet", "batch"), ("plain", "none"), ("resnet", "none"))
DEPTHS, DEEP = (20, 56), 56
BUILT = (8, 20, 32, 44, 56, 110)  # layers of the untrained networks
BATCH = 128  # photos that go through an untrained network
LOOKED_AT = 5_000  # training photos on which the final error is measured
SETTLED = 0.1  # share of the steps after which a training counts as under way

Moment = dict[str, Any]  # a row of signals.jsonl


@dataclass(frozen=True)
class Course:
    """Signals over a training: at each step the first layer's gradient over the last's, and so on."""

    step: int
    reach: float | None
    carry: float | None
    update: float | None


@dataclass(frozen=True)
class Watched:
    """One training. `start` is its first step, `middle` one under way, `end` its last: rows of signals.jsonl.

    `response` is that of the trained network to test photos, as it answers; None where it diverged.
    """

    kind: str
    norm: str
    depth: int
    seed: int
    diverged: int | None
    layers: list[str]
    start: Moment
    middle: Moment | None
    end: Moment | None
    course: list[Course]
    training_error: float
    test_error: float
    response: Values | None

    @property
    def settled(self) -> float | None:
        """The first layer's gradient over the last's, median over the moments from which it was under way."""
        known = [c.reach for c in self.course if c.reach is not None and c.step > SETTLED * self.course[-1].step]
        return median(known) if known and self.middle else None


@dataclass(frozen=True)
class Untrained:
    """A plain network without norms whose first weights are `how`: gradients at its first and its last layer."""

    how: str
    depth: int
    seed: int
    first: float | None
    last: float | None


@dataclass(frozen=True)
class Measured:
    """Everything behind tables, figures and sentences."""

    watched: tuple[Watched, ...]
    untrained: tuple[Untrained, ...]
    chance: float  # the error of guessing

    def of(self, kind: str, norm: str, depth: int) -> list[Watched]:
        """The networks of a cell, by seed."""
        return [row for row in self.watched if (row.kind, row.norm, row.depth) == (kind, norm, depth)]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def networks(lab: Lab) -> list[Network]:
    """Four cells of two depths under every seed; those that tell most come first."""
    return [_network(kind, norm, depth, seed) for seed in lab.seeds for depth in DEPTHS[::-1] for kind, norm in CELLS]


def run(lab: Lab) -> Result:
    """Train all of them under watch, and tell their signals."""
    lab.trained(networks(lab))
    measured = Measured(tuple(_watched(lab)), tuple(_untrained(lab)), 1.0 - 1.0 / len(lab.classes))
    return Result(
        name="signals",
        title="Signals and gradients through depth",
        question="Do deep plain networks fail since gradients vanish, and what do norms and shortcuts change?",
        conditions=_conditions(lab),
        tables=tables(measured),
        figures=figures(measured),
        findings=findings(measured, lab.after),
        raw=measured.to_json(),
    )


def reach(row: Moment) -> float | None:
    """How much of the gradient at the last layer's responses is there at the first's; 0 where there is none at all."""
    first, last = row["response_gradient"][0], row["response_gradient"][-1]
    if first is None or last is None:
        return None
    return float(first / last) if last else 0.0


def carry(row: Moment) -> float | None:
    """How wide the last layer's responses are beside the first's."""
    first, last = row["response"][0], row["response"][-1]
    return None if last is None or not first else float(last / first)


def course(rows: Sequence[Moment]) -> list[Course]:
    """The moments of a training in a few numbers each."""
    found = []
    for row in rows:
        updates = [value for value in row["update"] if value is not None]
        found.append(Course(row["step"], reach(row), carry(row), median(updates) if updates else None))
    return found


def default_weights_(network: nn.Module, seed: int) -> None:
    """Give convolutions PyTorch's own first weights: uniform, of variance 1 / (3 fan-in), with biases of that width."""
    torch.manual_seed(keyed.global_seed(seed, 0, rank=-2))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()


def _network(kind: str, norm: str, depth: int, seed: int) -> Network:
    return Network(f"{kind}{depth}", seed, (("norm", norm),) if norm != "batch" else ())


def _watched(lab: Lab) -> Iterator[Watched]:
    for depth in DEPTHS:
        for kind, norm in CELLS:
            for seed in lab.seeds:
                network = _network(kind, norm, depth, seed)
                rows = list(signals(lab.run(network)).records())
                later = [row for row in rows if row["step"] > SETTLED * lab.steps]
                yield Watched(
                    *(kind, norm, depth, seed, lab.diverged(network), rows[0]["layers"]),
                    *(_kept(rows[0]), _kept(_nearest(later, lab.steps // 4)), _kept(later[-1] if later else None)),
                    course(rows),
                    **_at_the_end(lab, network),
                )


def _kept(row: Moment | None) -> Any:
    return None if row is None else {name: value for name, value in row.items() if name != "layers"}


def _nearest(rows: Sequence[Moment], step: int) -> Moment | None:
    return min(rows, key=lambda row: abs(row["step"] - step), default=None)


def _at_the_end(lab: Lab, network: Network) -> dict[str, Any]:
    """Errors, and the responses of the trained network; of one that diverged those of guessing."""

    def measure() -> dict[str, Any]:
        lab.tell(f"the errors and responses of {network.name}")
        trained = lab.load(network)
        training, _ = error_and_loss(trained, lab.photos("train", LOOKED_AT))
        test, _ = error_and_loss(trained, lab.photos("test"))
        found = responses(trained, lab.photos("test", 1_000).pixels)
        return {"training_error": training, "test_error": test, "response": found}

    if lab.diverged(network) is not None:
        chance = 1.0 - 1.0 / len(lab.classes)
        return {"training_error": chance, "test_error": chance, "response": None}
    return dict(lab.remembered(network.name, measure))


def _untrained(lab: Lab) -> Iterator[Untrained]:
    for how in ("He", "PyTorch"):
        for depth in BUILT:
            for seed in lab.seeds:
                ends = lab.remembered(f"untrained-{how}-{depth}-seed-{seed}", partial(_ends, lab, how, depth, seed))
                yield Untrained(how, depth, seed, **ends)


def _ends(lab: Lab, how: str, depth: int, seed: int) -> dict[str, Any]:
    """The gradients at both ends of a plain network without norms, with one kind of first weights or the other."""
    built = lab.build(_network("plain", "none", depth, seed))
    if how == "PyTorch":
        default_weights_(built, seed)
    photos = lab.photos("train", BATCH)
    gradients = look(built, photos.pixels, photos.labels)["response_gradient"]
    return {"first": gradients[0], "last": gradients[-1]}


def _conditions(lab: Lab) -> str:
    config, counts = lab.config, lab.counts
    return (
        f"{counts['train']:,} training and {counts['test']:,} test photos of {len(lab.classes)} classes at "
        f"{config.size} px; 6n+2 networks of {config.width:g} times the published width, option A, with batch norm or "
        f"with biases instead; {lab.steps:,} steps of {config.batch_size} photos, rate {config.learning_rate:g}; "
        f"{seeds_said(len(lab.seeds))}. A response is the output of a 3x3 layer behind its norm, before ReLU and "
        "addition; its gradient is that of the loss of the batch of that step. Ranges are over seeds."
    )
