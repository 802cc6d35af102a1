"""Shattering: how alike the gradients at neighbouring inputs are, against depth, with and without shortcuts.

Balduzzi et al. 2017 (arXiv 1702.08591). Measured three times: on fully connected networks and independent inputs, where
there is a theory; on their figure, a line of inputs of one dimension; and on the networks of the lab, on lines from
photo to photo, untrained, and trained where another experiment has trained them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from plusx.lab import conduct
from plusx.lab import fully_connected as small
from plusx.lab.autocorrelation import autocorrelation, correlation, over_pairs
from plusx.lab.fully_connected import Stack
from plusx.lab.input_gradients import POINTS, freeze_statistics, line_gradients
from plusx.lab.laboratory import Lab
from plusx.lab.network import Network
from plusx.lab.photos import shuffled
from plusx.lab.results import Result, Table, seeds_said, spread
from plusx.lab.shattering_figures import figures
from plusx.lab.shattering_findings import findings
from plusx.lab.twins import TWINS
from plusx.models.normalise import Normalised

QUICK = replace(conduct.QUICK, seeds=3)
NORMS = ("batch", "none")
DEPTHS, TRAINED_DEPTHS = (8, 20, 32, 44, 56, 110), (20, 56)
LINES, STATISTICS = 4, 256  # lines for each seed; photos that norms get their statistics from
ENDS = 256  # test photos between which lines run, however many seeds there are: a seed has the same ones in all
LAGS = tuple(range(65))  # in points: up to a quarter of the way
NEAR, FAR = 4, 32  # a 64th and an eighth of the way
THEORY_KINDS = (
    (small.PLAIN, small.BATCH),
    (small.RESIDUAL, small.BATCH),
    (small.RESIDUAL, small.SCALE),
    (small.POST, small.BATCH),
)
THEORY_DEPTHS, THEORY_RUNS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48), 12
LINE_DEPTHS, LINE_RUNS = (2, 4, 10, 24, 50), 10
LINE_LAGS = tuple(range(31))


@dataclass(frozen=True)
class Shattered:
    """One network, means over its lines; `near` and `far` are cosines of gradients a fixed distance apart."""

    kind: str
    norm: str
    depth: int
    seed: int
    autocorrelation: list[float]
    near: float
    far: float


@dataclass(frozen=True)
class Theory:
    """Fully connected networks of one kind, norm and depth: the mean cosine over pairs of inputs, for each network."""

    kind: str
    norm: str
    depth: int
    correlations: list[float]


@dataclass(frozen=True)
class Noise:
    """Autocorrelation along the line of one dimension, mean over networks; noise has depth 0 and no norm."""

    name: str
    depth: int
    norm: str
    autocorrelation: list[float]


@dataclass(frozen=True)
class Measured:
    """Everything behind tables, figures and sentences. `examples` are single gradients of one dimension, by name."""

    photos: tuple[Shattered, ...]
    trained: tuple[Shattered, ...]
    theory: tuple[Theory, ...]
    line: tuple[Noise, ...]
    examples: Mapping[str, Sequence[float]]

    def of(self, kind: str, norm: str, depth: int, *, trained: bool = False) -> list[Shattered]:
        """The networks of a cell, by seed."""
        rows = self.trained if trained else self.photos
        return [row for row in rows if (row.kind, row.norm, row.depth) == (kind, norm, depth)]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def run(lab: Lab) -> Result:
    """Measure, and tell."""
    lab.tell("gradients of small fully connected networks")
    measured = Measured(
        theory=tuple(Theory(**row) for row in lab.remembered("theory", _theory)),
        line=tuple(Noise(**row) for row in lab.remembered("line", _line)),
        examples=_examples(),
        photos=tuple(_untrained(lab)),
        trained=tuple(_trained(lab)),
    )
    return Result(
        name="shattering",
        title="Shattered gradients",
        question="How alike are the gradients at neighbouring inputs, and what do depth and shortcuts do to that?",
        conditions=_conditions(lab),
        tables=tuple(_tables(measured)),
        figures=figures(measured),
        findings=findings(measured),
        raw=measured.to_json(),
    )


def _theory() -> list[dict[str, Any]]:
    rows = []
    for kind, norm in THEORY_KINDS:
        for depth in THEORY_DEPTHS:
            seeds = range(THEORY_RUNS)
            found = [over_pairs(Stack(kind, depth, norm, s).gradients(small.independent_inputs(s))) for s in seeds]
            rows.append(asdict(Theory(kind, norm, depth, found)))
    return rows


def _line() -> list[dict[str, Any]]:
    def mean(gradients: Sequence[Any]) -> list[float]:
        curves = np.mean([autocorrelation(g, LINE_LAGS) for g in gradients], axis=0)
        return [float(value) for value in curves]

    seeds, rows = range(LINE_RUNS), []
    for kind in (small.PLAIN, small.RESIDUAL):
        for norm in (small.BATCH, small.NONE):
            for depth in LINE_DEPTHS:
                found = [Stack(kind, depth, norm, seed).gradients(small.line()) for seed in seeds]
                rows.append(Noise(kind, depth, norm, mean(found)))
    rows.append(Noise("white noise", 0, small.NONE, mean([small.white_noise(seed) for seed in seeds])))
    rows.append(Noise("brown noise", 0, small.NONE, mean([small.brown_noise(seed) for seed in seeds])))
    return [asdict(row) for row in rows]


def _examples() -> dict[str, list[float]]:
    shown = {
        "1 hidden layer": Stack(small.PLAIN, 0).gradients(small.line()),
        "24 plain layers": Stack(small.PLAIN, 24).gradients(small.line()),
        "50 residual layers": Stack(small.RESIDUAL, 50).gradients(small.line()),
        "white noise": small.white_noise(0),
        "brown noise": small.brown_noise(0),
    }
    return {name: values[:, 0].tolist() for name, values in shown.items()}


def _untrained(lab: Lab) -> Iterator[Shattered]:
    for kind in TWINS:
        for norm in NORMS:
            for depth in DEPTHS:
                for seed in lab.seeds:
                    settings = (("norm", norm),) if norm != "batch" else ()
                    network = Network(f"{kind}{depth}", seed, settings)
                    cell = Shattered(kind, norm, depth, seed, [], 0.0, 0.0)
                    yield _remembered(lab, network, cell, trained=False)


def _trained(lab: Lab) -> Iterator[Shattered]:
    """Only what is trained already: this experiment is to cost no training."""
    for kind in TWINS:
        for depth in TRAINED_DEPTHS:
            for seed in lab.seeds:
                network = Network(f"{kind}{depth}", seed)
                if lab.run(network).finished:
                    cell = Shattered(kind, "batch", depth, seed, [], 0.0, 0.0)
                    yield _remembered(lab, network, cell, trained=True)


def _remembered(lab: Lab, network: Network, cell: Shattered, *, trained: bool) -> Shattered:
    def measure() -> dict[str, Any]:
        lab.tell(f"gradients of {network.name}, {'trained' if trained else 'untrained'}")
        built = lab.load(network) if trained else lab.build(network)
        if not trained:
            freeze_statistics(built, lab.photos("train", STATISTICS).pixels)
        return _along_lines(built, lab, network.seed)

    key = f"{network.name}-{'trained' if trained else 'untrained'}-of-{ENDS}"
    return Shattered(**{**asdict(cell), **lab.remembered(key, measure)})


def _along_lines(network: Normalised, lab: Lab, seed: int) -> dict[str, Any]:
    """Means over lines between test photos of any classes, other photos for each seed as far as they reach."""
    photos = shuffled(lab.photos("test", ENDS)).pixels
    curves, near, far = [], [], []
    for number in range(LINES):
        start, end = (photos[(2 * (seed * LINES + number) + side) % len(photos)] for side in (0, 1))
        gradients = line_gradients(network, start, end)
        curves.append(autocorrelation(gradients, LAGS))
        near.append(correlation(gradients, NEAR))
        far.append(correlation(gradients, FAR))
    means = {"near": float(np.mean(near)), "far": float(np.mean(far))}
    return {"autocorrelation": np.mean(curves, axis=0).tolist(), **means}


def _tables(measured: Measured) -> Iterator[Table]:
    header = ("layers", *(f"{said}, {how}" for said in TWINS.values() for how in ("batch norm", "no norm")))
    for what, how_far in (("near", "a 64th"), ("far", "an eighth")):
        rows = []
        for depth in DEPTHS:
            cells = [measured.of(kind, norm, depth) for kind in TWINS for norm in NORMS]
            rows.append((str(depth), *(_cell(cell, what) for cell in cells)))
        yield Table(
            f"Correlation of gradients {how_far} of the way from photo to photo, untrained", header, tuple(rows)
        )
    if measured.trained:
        yield _trained_table(measured)


def _trained_table(measured: Measured) -> Table:
    rows = []
    for depth in TRAINED_DEPTHS:
        found = [measured.of(kind, "batch", depth, trained=trained) for kind in TWINS for trained in (False, True)]
        rows.append((str(depth), *(_cell(cell, "near") for cell in found)))
    header = ("layers", *(f"{said}, {when}" for said in TWINS.values() for when in ("untrained", "trained")))
    return Table("The same a 64th of the way, with batch norm, before and after training", header, tuple(rows))


def _cell(rows: Sequence[Shattered], what: str) -> str:
    return spread([getattr(row, what) for row in rows], unit="", scale=1.0, digits=3) if rows else "not trained"


def _conditions(lab: Lab) -> str:
    config = lab.config
    return (
        f"6n+2 networks of {config.width:g} times the published width, option A, at {config.size} px, with their first "
        f"weights; {LINES} lines of {POINTS} points between test photos for each network; gradients of the logit of "
        f"the first class; norms hold the statistics of {STATISTICS} training photos, so that every point has a "
        f"gradient of its own; {seeds_said(len(lab.seeds))}. Fully connected networks have {small.WIDTH} units: "
        f"{THEORY_RUNS} with {small.INPUTS} inputs for each depth of the theory, {LINE_RUNS} for each of the line."
    )
