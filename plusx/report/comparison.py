"""What a comparison of runs tells, as plain values, lines for a terminal and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from plusx.metrics import percent
from plusx.report.axes import Axis
from plusx.report.curves import Points
from plusx.report.figures import SERIES, Series, Svg, line_chart
from plusx.report.page import duration, render
from plusx.report.story import Course

OVERLAID = SERIES  # more lines could not be told apart


@dataclass(frozen=True)
class Contender:
    """One run in a comparison. `seconds` is what its training steps took, None where nothing says so."""

    name: str
    seed: int
    n: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    log_loss: float
    ece: float
    epochs: float
    images_per_second: float | None
    seconds: float | None
    parameters: int
    settings: Mapping[str, Any]  # those that are not the same in all runs, the seed left out
    course: Course


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone; `spread` is the sample standard deviation of their accuracies."""

    name: str
    runs: tuple[str, ...]
    accuracy: float
    spread: float | None


@dataclass(frozen=True)
class Verdict:
    """One pair. `difference` is the second's accuracy minus the first's; `p` is None where no test could be made."""

    first: str
    second: str
    difference: float
    p: float | None
    method: str
    differs: bool

    def sentence(self) -> str:
        """The verdict in words."""
        better, worse = (self.second, self.first) if self.difference > 0 else (self.first, self.second)
        said = f"{better} is better than {worse}" if self.differs else f"{self.first} and {self.second}: no difference"
        chance = "" if self.p is None else f", p = {self.p:.2g}"
        return f"{said} ({100 * self.difference:+.2f} points; {self.method}{chance})"


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other. `basis` says on which photos the figures were measured."""

    basis: str
    runs: tuple[Contender, ...]
    groups: tuple[Group, ...]
    verdicts: tuple[Verdict, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `compare --json`; curves are left to the page."""
        runs = [{name: value for name, value in asdict(run).items() if name != "course"} for run in self.runs]
        verdicts = [asdict(v) | {"sentence": v.sentence()} for v in self.verdicts]
        return {
            "basis": self.basis,
            "runs": runs,
            "groups": [asdict(group) for group in self.groups],
            "verdicts": verdicts,
        }

    def seeds(self) -> tuple[Group, ...]:
        """Groups of more than one run."""
        return tuple(group for group in self.groups if len(group.runs) > 1)


HEADER = (
    "run",
    "seed",
    "accuracy",
    "95 % interval",
    "n",
    "log loss",
    "ECE",
    "epochs",
    "images/s",
    "time",
    "parameters",
)


def row(run: Contender) -> tuple[str, ...]:
    """A run as cells under HEADER."""
    low, high = run.accuracy_ci95
    return (
        run.name,
        str(run.seed),
        percent(run.accuracy),
        f"{percent(low)} to {percent(high)}",
        f"{run.n:,}",
        f"{run.log_loss:.4f}",
        percent(run.ece),
        f"{run.epochs:.1f}",
        "" if run.images_per_second is None else f"{run.images_per_second:,.0f}",
        "" if run.seconds is None else duration(run.seconds),
        f"{run.parameters:,}",
    )


def differing(runs: Sequence[Contender]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all runs: (name, value of each run)."""
    names = sorted({name for run in runs for name in run.settings})
    return [(name, [str(run.settings.get(name)) for run in runs]) for name in names]


def spread_line(group: Group) -> str:
    """A group of seeds in words."""
    spread = "" if group.spread is None else f", spread {100 * group.spread:.2f} points (standard deviation)"
    return f"{group.name}: mean accuracy {percent(group.accuracy)}{spread}, n = {len(group.runs)} seeds"


def comparison_page(comparison: Comparison) -> str:
    """The comparison as one HTML page, with the curves of the first runs over each other."""
    return render(
        "compare.html",
        title="Comparison of runs",
        comparison=comparison,
        header=HEADER,
        rows=[row(run) for run in comparison.runs],
        settings=differing(comparison.runs),
        spreads=[spread_line(group) for group in comparison.seeds()],
        charts=_charts(comparison.runs[:OVERLAID]),
        overlaid=min(OVERLAID, len(comparison.runs)),
    )


def _charts(runs: Sequence[Contender]) -> list[Svg]:
    accuracy = [(run.name, run.course.validation_accuracy) for run in runs]
    loss = [(run.name, run.course.validation_loss) for run in runs]
    charts = (_overlaid("accuracy", accuracy, share=True), _overlaid("log loss", loss, log=True))
    return [chart for chart in charts if chart is not None]


def _overlaid(what: str, lines: Sequence[tuple[str, Points]], *, share: bool = False, log: bool = False) -> Svg | None:
    points = [point for _, line in lines for point in line]
    if not points:
        return None
    x = Axis("epoch", 0.0, max(epoch for epoch, _ in points))
    y = Axis.around(what, [value for _, value in points], share=share, log=log)
    series = [Series(name, line, colour=i + 1) for i, (name, line) in enumerate(lines)]
    return line_chart(f"Validation {what} during training", x, y, series)
