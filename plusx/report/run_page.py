"""The report of a run as one HTML page: a story's numbers laid into charts and a template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plusx.metrics import percent
from plusx.report.axes import Axis
from plusx.report.curves import Points
from plusx.report.figures import Series, Svg, bar_chart, line_chart, reliability
from plusx.report.page import render
from plusx.report.story import Course, Measured, Speed, Story

MATRIX = 12  # up to so many classes the whole confusion matrix is shown
CONFUSIONS = 15  # of more classes, so many of the most frequent mistakes


@dataclass(frozen=True)
class Chart:
    """A figure and what is said below it."""

    svg: Svg
    told: str


@dataclass(frozen=True)
class Cell:
    """An entry of the confusion matrix; `kind` is its colour: right, wrong or none."""

    n: int
    kind: str
    told: str


def run_page(story: Story) -> str:
    """The whole page. What the story lacks is left out."""
    return render(
        "report.html",
        title=story.title,
        story=story,
        main=story.main,
        confusion=_confusion(story.main) if story.main else (),
        mistakes=_mistakes(story.main) if story.main else (),
        curves=_curves(story.course) if story.course else (),
        trust=_trust(story) if story.main else (),
        speed=_speed(story.speeds),
    )


def _confusion(measured: Measured) -> Sequence[tuple[str, Sequence[Cell]]]:
    """Rows (true class, cells); none where there are too many classes to look at."""
    classes, counts = measured.figures["classes"], measured.figures["confusion"]
    if len(classes) > MATRIX:
        return ()
    return [(name, [_cell(name, other, n) for other, n in zip(classes, row, strict=True)]) for name, row in
            zip(classes, counts, strict=True)]  # fmt: skip


def _cell(name: str, other: str, n: int) -> Cell:
    kind = "right" if name == other else "wrong" if n else "none"
    return Cell(n, kind, f"{n:,} of {name} answered {other}")


def _mistakes(measured: Measured) -> Sequence[tuple[int, str, str]]:
    """(how many, true class, answer), most frequent first; for more classes than a matrix has room for."""
    classes, counts = measured.figures["classes"], measured.figures["confusion"]
    if len(classes) <= MATRIX:
        return ()
    pairs = [
        (n, classes[i], classes[j]) for i, row in enumerate(counts) for j, n in enumerate(row) if n and i != j
    ]  # of thousands of classes, nearly all entries are 0
    return sorted(pairs, key=lambda pair: -pair[0])[:CONFUSIONS]


def _curves(course: Course) -> Sequence[Chart]:
    charts = [_loss(course), _accuracy(course)]
    if len(course.rate) > 1:
        rate = Series("learning rate", course.rate)
        y = Axis.around("learning rate", [0.0, *_values(course.rate)])
        charts.append(Chart(line_chart("Learning rate", _epochs(course), y, [rate], _size_marks(course)), _RATE))
    return [chart for chart in charts if chart is not None]


_RATE = "The learning rate; dotted lines mark where the training size changes."


def _loss(course: Course) -> Chart | None:
    lines = _lines(course.loss, course.validation_loss)
    if not lines:
        return None
    y = Axis.around("log loss", [v for line in lines for v in _values(line.points)], log=True)
    told = (
        "Log loss, on a logarithmic axis. Training is on augmented photos and includes label smoothing where it is on"
    )
    told += f"; validation is the half that chooses (n = {course.validated:,})." if course.validated else "."
    return Chart(line_chart("Loss during training", _epochs(course), y, lines, _size_marks(course)), told)


def _accuracy(course: Course) -> Chart | None:
    lines = _lines(course.accuracy, course.validation_accuracy)
    if not lines:
        return None
    y = Axis.around("accuracy", [v for line in lines for v in _values(line.points)], share=True)
    svg = line_chart("Accuracy during training", _epochs(course), y, lines, _size_marks(course))
    told = (
        "Accuracy. Validation is at the size trained so far and looks at each photo once; the end result by all views."
    )
    return Chart(svg, told)


def _lines(training: Points, validation: Points) -> list[Series]:
    lines = []
    if training:
        lines.append(Series("training", training, colour=1, thin=True))
    if validation:
        lines.append(Series("validation", validation, colour=2, dots=len(validation) <= 40))
    return lines


def _epochs(course: Course) -> Axis:
    points = (course.loss, course.accuracy, course.validation_loss, course.validation_accuracy)
    return Axis("epoch", 0.0, max((x for line in points for x, _ in line), default=1.0) or 1.0)


def _size_marks(course: Course) -> list[tuple[float, str]]:
    return [(epoch, f"{size} px") for epoch, size in course.sizes] if len(course.sizes) > 1 else []


def _trust(story: Story) -> Sequence[Chart]:
    assert story.main is not None, "there are answers to show"
    main = story.main
    charts = [
        Chart(
            reliability("Reliability diagram", main.figures["reliability"], main.bins_before), _reliability_told(story)
        )
    ]
    errors = [v for _, v in main.risk]
    if len(main.risk) > 1:
        x = Axis("share of the photos answered", min(c for c, _ in main.risk), 1.0, share=True)
        y = Axis.around("error of those answered", [0.0, *errors], share=True)
        svg = line_chart("Risk-coverage curve", x, y, [Series("error", main.risk)], _chosen_coverage(story.thresholds))
        charts.append(Chart(svg, "Answering only the surest photos makes fewer mistakes: error over coverage."))
    return charts


def _chosen_coverage(thresholds: Mapping[str, Any] | None) -> list[tuple[float, str]]:
    """Where the fitted thresholds lie on the curve."""
    if not thresholds or not thresholds.get("coverage"):
        return []
    return [(float(thresholds["coverage"]), f"risk {percent(thresholds['risk'], 1)}")]


def _reliability_told(story: Story) -> str:
    assert story.main is not None, "there are answers to show"
    told = f"On the dashed line, probabilities are what they say. {story.main.figures['n']:,} answers; bars count them."
    c = story.calibration
    if c and c["ece_before"] is not None:
        told += (
            f" Temperature {c['temperature']:.3f}, which took the log loss from {c['log_loss_before']:.4f} to "
            f"{c['log_loss_after']:.4f} and the calibration error from {percent(c['ece_before'])} to "
            f"{percent(c['ece_after'])}, on the {c['measured_n']:,} validation photos that it was not fitted on."
        )
    return told


def _speed(speeds: Sequence[Speed]) -> Svg | None:
    if not speeds:
        return None
    y = Axis.around("images per second", [0.0, *(s.images_per_second for s in speeds)])
    bars = [(f"{s.size} px", s.images_per_second, f"median of {s.n:,} steps") for s in speeds]
    return bar_chart("Training speed by size", y, bars)


def _values(points: Sequence[tuple[float, float]]) -> list[float]:
    return [y for _, y in points]
