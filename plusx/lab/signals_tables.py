"""The tables of the experiment on signals."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from statistics import mean
from typing import TYPE_CHECKING

from plusx.lab.results import Table, spread
from plusx.lab.twins import TWINS

if TYPE_CHECKING:
    from plusx.lab.signals import Measured, Untrained, Watched

NORM_SAID = {"batch": "batch norm", "none": "no norm"}


def tables(measured: Measured) -> tuple[Table, ...]:
    """The four cells, the responses of figure 7, and first weights."""
    return (_cells(measured), _responses(measured), _first_weights(measured))


def about(values: Sequence[float | None]) -> str:
    """Geometric mean of ratios, and their range over seeds: '12 (8.1 to 20)'; zero is said as such."""
    known = [value for value in values if value is not None]
    if not known:
        return "not finite"
    middle = geometric(known)
    if len(known) == 1 or max(known) == min(known):
        return said(middle)
    return f"{said(middle)} ({said(min(known))} to {said(max(known))})"


def geometric(values: Sequence[float]) -> float:
    """The geometric mean; zero where one is."""
    return exp(mean(log(value) for value in values)) if min(values) > 0 else 0.0


def said(value: float) -> str:
    """A number of two digits: 3,600, 12, 0.25, 0.00002."""
    if value >= 100:
        return f"{float(f'{value:.2g}'):,.0f}"
    return f"{value:.2g}" if value >= 1e-4 or not value else f"{value:.0e}".replace("e-0", "e-")


def cell_name(row: Watched) -> str:
    """What a cell is called."""
    return f"{TWINS[row.kind]}, {NORM_SAID[row.norm]}"


def outcome(rows: Sequence[Watched]) -> str:
    """The training error, or when networks of a cell diverged."""
    steps = [row.diverged for row in rows if row.diverged is not None]
    learned = [row.training_error for row in rows if row.diverged is None]
    if not steps:
        return spread(learned)
    when = f"step {min(steps)}" if max(steps) == min(steps) else f"steps {min(steps)} to {max(steps)}"
    told = f"diverged at {when}"
    return told if not learned else f"{told} in {len(steps)} of {len(rows)}, else {spread(learned)}"


def ended(rows: Sequence[Watched]) -> str:
    """The same as the end of a sentence about these networks."""
    lost, learned = ([row for row in rows if (row.diverged is not None) == gone] for gone in (True, False))
    if not learned:
        return outcome(lost)
    error = f"have a training error of {outcome(learned)}"
    return f"{outcome(lost)} in {len(lost)} of {len(rows)} trainings and {error} otherwise" if lost else error


def _cells(measured: Measured) -> Table:
    cells = []
    keys = dict.fromkeys((row.depth, row.kind, row.norm) for row in measured.watched)
    for depth, kind, norm in sorted(keys, key=lambda key: -key[0]):
        rows = measured.of(kind, norm, depth)
        cells.append((str(depth), cell_name(rows[0]), outcome(rows), *_signals(rows)))
    header = (
        *("layers", "network", "training error", "gradient, step 1", "gradient, under way"),
        *("responses, step 1", "update / weights, step 1"),
    )
    title = (
        "Signals of a training: the gradient at the first layer's responses over that at the last's, the last layer's "
        "responses over the first's, and the largest update of a layer over its weights"
    )
    return Table(title, header, tuple(cells))


def _signals(rows: Sequence[Watched]) -> tuple[str, ...]:
    start = [row.course[0] for row in rows]
    settled = [row.settled for row in rows]
    return (
        about([moment.reach for moment in start]),
        "no training" if all(value is None for value in settled) else about(settled),
        about([moment.carry for moment in start]),
        about([largest_update(row) for row in rows]),
    )


def largest_update(row: Watched) -> float | None:
    """Of the first step, over a layer's weights; None where none is finite."""
    return max((value for value in row.start["update"] if value is not None), default=None)


def _responses(measured: Measured) -> Table:
    cells = []
    for depth in sorted({row.depth for row in measured.watched}):
        cells.append((str(depth), *(_mean_response(measured.of(kind, "batch", depth)) for kind in TWINS)))
    title = "Standard deviation of the responses of trained networks with batch norm to test photos, mean over layers"
    return Table(title, ("layers", *TWINS.values()), tuple(cells))


def _mean_response(rows: Sequence[Watched]) -> str:
    values = mean_responses(rows)
    return spread([v for v in values if v is not None], unit="", scale=1.0, digits=3) if any(values) else "diverged"


def mean_responses(rows: Sequence[Watched]) -> list[float | None]:
    """For each network the mean of its layers' deviations; None where it diverged."""
    return [mean(v or 0.0 for v in row.response) if row.response else None for row in rows]


def _first_weights(measured: Measured) -> Table:
    def shown(depth: int, how: str) -> str:
        return about([ratio(row) for row in measured.untrained if (row.how, row.depth) == (how, depth)])

    depths = sorted({row.depth for row in measured.untrained})
    cells = [(str(depth), *(shown(depth, how) for how in HOW)) for depth in depths]
    title = "Without norms, untrained, plain: the gradient at the first layer's responses over that at the last's"
    return Table(title, ("layers", *HOW.values()), tuple(cells))


HOW = {"PyTorch": "PyTorch's default weights", "He": "He's"}


def ratio(row: Untrained) -> float | None:
    """What of the gradient at the last layer is there at the first; 0 where there is none at all."""
    if row.first is None or row.last is None:
        return None
    return row.first / row.last if row.last else 0.0
