"""What was measured of loss surfaces, as tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean, mean
from typing import Any

import numpy as np

from plusx.lab.loss_surface import Heights, local_minima, share_below
from plusx.lab.results import Finding, Table, direction, seeds_said, spread
from plusx.lab.twins import TWINS
from plusx.metrics import percent

Kind = tuple[str, int]  # "plain" or "resnet", and the number of layers

NEARLY_CONVEX = 0.1  # downward curvature so far below the upward one hardly shows along a random direction
NO_BETTER = 0.85  # of the loss of guessing: a network above that has hardly learned
CLIFF = 10  # times as high as without it
EXPECTED = {
    "depth": "Without shortcuts the surface grows sharp and chaotic with depth, with them it hardly changes "
    "(Li et al. 2018, section 6, figure 5).",
    "twins": "Shortcuts keep the surface of a deep network from turning chaotic (Li et al. 2018, section 6, figure 1).",
    "plane": "Of 56 layers the plain network has cliffs, hollows and a narrow basin, the residual one is nearly convex "
    "over a wide region (Li et al. 2018, section 6, figures 1 and 5).",
    "convex": "Around the minimum the downward curvature is small beside the upward one, so that it looks convex "
    "(Li et al. 2018, section 6, figure 7).",
    "batch": "Li et al. keep running statistics as they are. If their picture is of the networks and not of outgrown "
    "statistics, depth should sharpen plain networks more than residual ones with batch statistics as well.",
}


@dataclass(frozen=True)
class Curvature:
    """At the weights that training ended at, with running statistics and with those of each batch.

    `sharpness` is the largest eigenvalue of the Hessian, every filter in units of its own norm, known to `error`;
    `downward` is the most negative one as a share of it, at least, and `lower_error` how far that is known.
    """

    loss: float
    sharpness: float
    downward: float
    error: float
    lower_error: float
    batch_loss: float
    batch_sharpness: float
    batch_downward: float
    batch_error: float
    batch_lower_error: float

    @property
    def downward_at_most(self) -> float:
        """`downward` with its error on top."""
        return self.downward + self.lower_error


@dataclass(frozen=True)
class Surface:
    """Losses over a plane, `heights[j][i]` at (steps[i], steps[j]); `batch`: along its middle with batch statistics."""

    steps: tuple[float, ...]
    heights: Heights
    batch: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The loss at the trained weights."""
        half = len(self.steps) // 2
        return float(self.heights[half, half])

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"steps": list(self.steps), "losses": self.heights.tolist(), "batch_losses": list(self.batch)}


@dataclass(frozen=True)
class Measured:
    """Everything that was measured: curvature under every seed, surfaces under the first; `classes` to guess among."""

    curvatures: Mapping[Kind, Sequence[Curvature]]
    surfaces: Mapping[Kind, Surface]
    classes: int

    @property
    def depths(self) -> tuple[int, int]:
        """The two numbers of layers, the smaller first."""
        shallow, deep = sorted({depth for _, depth in self.curvatures})
        return shallow, deep

    @property
    def guessing(self) -> float:
        """The loss of an answer that gives every class the same probability."""
        return math.log(self.classes)


def tables(measured: Measured) -> tuple[Table, ...]:
    """Curvature over the seeds, and the planes; none where nothing could be measured."""
    if not measured.surfaces:
        return ()
    return _curvature_table(measured), _plane_table(measured)


def _curvature_table(measured: Measured) -> Table:
    cells = []
    for (kind, depth), found in measured.curvatures.items():
        loss = spread([one.loss for one in found], "", 1.0)
        downward = percent(max(one.downward for one in found), 1)
        shown = (_range([one.sharpness for one in found]), _range([one.batch_sharpness for one in found]))
        cells.append((f"{TWINS[kind]}, {depth} layers", loss, *shown, downward))
    header = ("network", "loss", "sharpness", "with batch statistics", "downward, at least")
    title = "At the trained weights, over seeds (sharpness: geometric mean, least to most; downward: the largest)"
    return Table(title, header, tuple(cells))


def _plane_table(measured: Measured) -> Table:
    cells = []
    for (kind, depth), surface in measured.surfaces.items():
        heights = surface.heights
        basin = percent(share_below(heights, measured.guessing), 1)
        losses = (f"{surface.middle:.2f}", _size(float(np.median(heights))), _size(float(heights.max())))
        cells.append((f"{TWINS[kind]}, {depth} layers", *losses, basin, str(local_minima(heights))))
    header = ("network", "loss in the middle", "median", "highest", "better than guessing", "local minima")
    return Table("The plane of the first seed", header, tuple(cells))


def findings(measured: Measured, after: str) -> tuple[Finding, ...]:
    """What the numbers say; `after` opens the sentences."""
    if not measured.surfaces:
        lost = f"{after}, a network of every seed has diverged, so there are no weights to look around."
        return (Finding(lost, EXPECTED["depth"], None),)
    return (
        _depth(measured, after),
        _twins(measured),
        _plane(measured),
        _batch(measured),
        _convex(measured),
    )


def _depth(measured: Measured, after: str) -> Finding:
    said = [_growth(measured, kind) for kind in TWINS]
    growths = [_growths(measured, kind, "sharpness") for kind in TWINS]
    return Finding(
        f"{after}, the sharpness at the trained weights goes {said[0]}, and {said[1]} ({seeds_said(len(growths[0]))}).",
        EXPECTED["depth"],
        direction([plain - residual for plain, residual in zip(*growths, strict=True)]),
        _stuck(measured),
    )


def _growth(measured: Measured, kind: str) -> str:
    shallow, deep = measured.depths
    ends = [[one.sharpness for one in measured.curvatures[kind, depth]] for depth in (shallow, deep)]
    times = geometric_mean(ends[1]) / geometric_mean(ends[0])
    return (
        f"from {_range(ends[0])} at {shallow} layers to {_range(ends[1])} at {deep} in {TWINS[kind]} networks, "
        f"{_size(times)} times as much"
    )


def _growths(measured: Measured, kind: str, what: str) -> list[float]:
    """The logarithm of the factor from the shallow to the deep network, seed by seed."""
    pairs = zip(*(measured.curvatures[kind, depth] for depth in measured.depths), strict=True)
    return [math.log(getattr(deep, what) / getattr(shallow, what)) for shallow, deep in pairs]


def _stuck(measured: Measured) -> str:
    """Where a network has hardly learned, its surface is not that around a minimum."""
    losses = {kind: mean(one.loss for one in found) for kind, found in measured.curvatures.items()}
    return " ".join(
        f"The {TWINS[kind]} networks of {depth} layers have a loss of {loss:.2f} there, and guessing has "
        f"{measured.guessing:.2f}: the surface is that around where training got stuck, not around a minimum."
        for (kind, depth), loss in losses.items()
        if loss > NO_BETTER * measured.guessing
    )


def _twins(measured: Measured) -> Finding:
    deep = measured.depths[1]
    plain, residual = ([one.sharpness for one in measured.curvatures[kind, deep]] for kind in TWINS)
    times = geometric_mean(plain) / geometric_mean(residual)
    return Finding(
        f"Of {deep} layers, the plain network is {_size(times)} times as sharp as its residual twin: {_range(plain)} "
        f"against {_range(residual)} ({seeds_said(len(plain))}).",
        EXPECTED["twins"],
        direction([math.log(p / r) for p, r in zip(plain, residual, strict=True)]),
    )


def _plane(measured: Measured) -> Finding:
    shallow, deep = measured.depths
    by_kind = {kind: [measured.surfaces[kind, depth].heights for depth in measured.depths] for kind in TWINS}
    basins = {kind: [share_below(h, measured.guessing) for h in heights] for kind, heights in by_kind.items()}
    changes = [f"from {percent(before, 1)} to {percent(after, 1)}" for before, after in basins.values()]
    hollows = [local_minima(heights[1]) for heights in by_kind.values()]
    tops = [float(heights[1].max()) for heights in by_kind.values()]
    said = (
        f"In the plane, from {shallow} to {deep} layers the part that is better than guessing goes {changes[0]} in the "
        f"plain network and {changes[1]} in the residual one; of {deep} layers the plain one has local minima at "
        f"{hollows[0]} points and losses up to {_size(tops[0])}, the residual one at {hollows[1]} and up to "
        f"{_size(tops[1])} (one plane, one seed)."
    )
    narrower = [before - after for before, after in basins.values()]
    signs = [narrower[0] - narrower[1], float(hollows[0] - hollows[1]), math.log(tops[0] / tops[1])]
    return Finding(said, EXPECTED["plane"], direction(signs))


def _batch(measured: Measured) -> Finding:
    shallow, deep = measured.depths
    sharp = {kind: _range([one.batch_sharpness for one in found]) for kind, found in measured.curvatures.items()}
    changes = [f"from {sharp[kind, shallow]} to {sharp[kind, deep]} in {TWINS[kind]} ones" for kind in TWINS]
    growths = [_growths(measured, kind, "batch_sharpness") for kind in TWINS]
    tops = [_tops(measured.surfaces[kind, deep]) for kind in TWINS]
    cliffs = [f"from {_size(running)} to {_size(batch)}" for running, batch in tops]
    outgrown = tops[0][1] < tops[0][0] / CLIFF
    return Finding(
        f"With the statistics of each batch in the place of running ones the sharpness goes {changes[0]}, {changes[1]} "
        f"({seeds_said(len(growths[0]))}); they change the highest loss along the first direction {cliffs[0]} in the "
        f"plain network of {deep} layers, {cliffs[1]} in the residual one (one seed).",
        EXPECTED["batch"],
        direction([plain - residual for plain, residual in zip(*growths, strict=True)]),
        "Its cliffs, then, are mostly activations that have outgrown the running statistics." if outgrown else "",
    )


def _tops(surface: Surface) -> tuple[float, float]:
    """The highest loss along the first direction, with running statistics and with those of each batch."""
    return float(surface.heights[len(surface.steps) // 2].max()), max(surface.batch)


def _convex(measured: Measured) -> Finding:
    """Agrees where it is small with the error of the measurement on top: what Lanczos finds is a lower bound."""
    found = measured.curvatures
    least = {kind: max(one.downward for one in some) for kind, some in found.items()}
    most = [max(one.downward_at_most for one in some) for some in found.values()]
    said = ", ".join(f"{percent(share, 1)} ({TWINS[kind]}, {depth})" for (kind, depth), share in least.items())
    return Finding(
        "At the trained weights the strongest downward curvature, as a share of the strongest upward one, is at least "
        f"{said}; with the error of each measurement on top {percent(max(most), 1)} at most (the largest of "
        f"{seeds_said(len(next(iter(found.values()))))}).",
        EXPECTED["convex"],
        direction([NEARLY_CONVEX - share for share in most]),
    )


def _range(values: Sequence[float]) -> str:
    """The geometric mean, and over several seeds the least and the largest."""
    middle = _size(geometric_mean(values))
    return middle if len(values) == 1 else f"{middle} ({_size(min(values))} to {_size(max(values))})"


def _size(value: float) -> str:
    """A number of any size, to about two digits."""
    if value >= 1e5:
        return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
