"""What the networks of a family cost and answered, as tables, figures and sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plusx.lab.results import Figure, Finding, Table, direction, seeds_said
from plusx.metrics import interval95, percent
from plusx.report.axes import Axis
from plusx.report.figures import WIDE, Bars, Series, Spread, Svg, grouped_bars, line_chart
from plusx.trust.significance import LEVEL, discordant, mcnemar

SHOWN = {
    "alexnet": "AlexNet",
    "vgg16": "VGG-16",
    "plain34": "plain-34",
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
}
EXPECTED = {
    "shortcut": "Of equal depth and operations the residual network is better: 25.0 % top-1 error against 28.5 % on "
    "ImageNet, 10-crop (He et al. 2015, table 2, ResNet-34 and plain-34).",
    "vgg": "ResNet-34 is better than VGG nets with about a fifth of the operations of VGG-19 "
    "(He et al. 2015, section 3.3 and table 3).",
    "alexnet": "ResNets are far better than AlexNet: top-5 errors on ImageNet are 5.7 % of ResNet-34 (He et al. 2015, "
    "table 4) and 18.2 % of one AlexNet (Krizhevsky et al. 2012, table 2).",
    "deeper": "Deeper ResNets are better on ImageNet: 25.0 % top-1 error of ResNet-34 against 27.9 % of ResNet-18 "
    "(He et al. 2015, table 2).",
    "depth": "Deeper ResNets are better on ImageNet, ResNet-50 than ResNet-34 (He et al. 2015, table 3), trained until "
    "they no longer improve.",
    "time": "The published order is that of networks trained for as long as helps; of the same short time it says "
    "nothing, and networks of few operations then see more photos.",
}


@dataclass(frozen=True)
class Trained:
    """One training: epochs done, which test photos were answered rightly, None where it diverged.

    `training_accuracy` is that of the last steps, on crops.
    """

    epochs: float
    right: tuple[bool, ...] | None
    training_accuracy: float | None
    classes: int

    @property
    def accuracy(self) -> float:
        """On the test photos; of a diverged network that of guessing."""
        return 1 / self.classes if self.right is None else sum(self.right) / len(self.right)

    @property
    def n(self) -> int:
        """Test photos answered."""
        return len(self.right or ())

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the accuracy, at 95 %."""
        return None if self.right is None else interval95(sum(self.right), len(self.right))


@dataclass(frozen=True)
class Member:
    """One network and its runs; `operations` are of a photo forward, `speed` is in photos trained on a second."""

    name: str
    parameters: int
    operations: int
    rate: float
    speed: float
    by_epochs: tuple[Trained, ...]
    by_time: tuple[Trained, ...]


@dataclass(frozen=True)
class Family:
    """All of them, and what they were given."""

    members: tuple[Member, ...]
    epochs: int
    seconds: float
    size: int
    full: bool

    @property
    def seeds(self) -> int:
        """How often each was trained for each budget."""
        return len(self.members[0].by_epochs)

    def of(self, name: str) -> Member:
        """The member of that name."""
        return next(member for member in self.members if member.name == name)


Budget = Callable[[Member], tuple[Trained, ...]]


def by_epochs(member: Member) -> tuple[Trained, ...]:
    """Its runs of equal epochs."""
    return member.by_epochs


def by_time(member: Member) -> tuple[Trained, ...]:
    """Its runs of equal time."""
    return member.by_time


def tables(family: Family) -> tuple[Table, ...]:
    """What they cost; what they answered after equal epochs and after equal time."""
    costs = [
        (
            SHOWN[m.name],
            f"{m.parameters:,}",
            f"{m.operations / 1e6:,.1f}",
            f"{m.rate:g}",
            f"{m.speed:,.0f}",
        )
        for m in family.members
    ]
    header = (
        "network",
        "parameters",
        f"million operations a photo, {family.size} px",
        "rate",
        "photos trained a second",
    )
    answered = ("network", "epochs", "accuracy", _ends(family), "n", "on training crops")
    rows = [[_answered(member.name, budget(member)) for member in family.members] for budget in (by_epochs, by_time)]
    return (
        Table("What they cost (operations of a photo forward; a multiply-add is two)", header, tuple(costs)),
        Table(f"After {family.epochs} epochs", answered, tuple(rows[0])),
        Table(f"After {family.seconds:g} seconds", answered, tuple(rows[1])),
    )


def _answered(name: str, runs: Sequence[Trained]) -> tuple[str, ...]:
    low, high = _interval(runs)
    crops = [one.training_accuracy for one in runs if one.training_accuracy is not None]
    return (
        SHOWN[name],
        f"{np.mean([one.epochs for one in runs]):.1f}",
        percent(_accuracy(runs), 1) + _lost(runs) if any(one.right for one in runs) else "diverged",
        f"{percent(low, 1)} to {percent(high, 1)}" if any(one.right for one in runs) else "",
        str(_photos(runs)),
        percent(float(np.mean(crops)), 1) if crops else "",
    )


def _photos(runs: Sequence[Trained]) -> int:
    """Test photos, each counted once however many seeds answered it."""
    return max(one.n for one in runs)


def _lost(runs: Sequence[Trained]) -> str:
    """How many diverged; they count as guessing."""
    lost = sum(one.right is None for one in runs)
    if not lost:
        return ""
    return f" ({lost} of {len(runs)} diverged)" if len(runs) > 1 else " (diverged)"


def _accuracy(runs: Sequence[Trained]) -> float:
    return float(np.mean([one.accuracy for one in runs]))


def _interval(runs: Sequence[Trained]) -> tuple[float, float]:
    """Of one seed the 95 % interval of its test photos; of several, their least and greatest accuracy.

    Their answers together would tell an interval that is too narrow: the photos are the same under every seed.
    """
    if len(runs) == 1:
        return runs[0].interval or (0.0, 1.0)
    return min(one.accuracy for one in runs), max(one.accuracy for one in runs)


def _ends(family: Family) -> str:
    """What the two ends beside an accuracy are."""
    return "95 %" if family.seeds == 1 else "range over seeds"


def figures(family: Family) -> tuple[Figure, ...]:
    """Accuracy against operations, accuracy of both budgets, photos a second."""
    return (
        Figure("operations", OPERATIONS.format(_spread(family)), _against_operations(family)),
        Figure("accuracy", ACCURACY.format(_spread(family)), _both(family)),
        Figure("speed", SPEED, _speeds(family)),
    )


OPERATIONS = (
    "Accuracy after equal epochs against operations a photo, with {}. Best is the upper left; look at what "
    "a network pays for its place."
)
ACCURACY = "Accuracy after equal epochs and after equal time, with {}. Look at whose order changes."
SPEED = "Photos trained on in a second, each network with the machine for itself."


def _spread(family: Family) -> str:
    return "95 % intervals" if family.seeds == 1 else "the range over seeds"


def _against_operations(family: Family) -> Svg:
    series = []
    for colour, member in enumerate(family.members, start=1):
        point = (member.operations / 1e6, _accuracy(member.by_epochs))
        series.append(Series(SHOWN[member.name], [point], colour, dots=True, spread=[_interval(member.by_epochs)]))
    x = Axis.around("million operations a photo", [m.operations / 1e6 for m in family.members], log=True)
    y = Axis.around("accuracy on test photos", [e for m in family.members for e in _interval(m.by_epochs)], share=True)
    return line_chart("Accuracy against operations", x, y, series, size=WIDE)


def _both(family: Family) -> Svg:
    budgets = ((f"{family.epochs} epochs", by_epochs), (f"{family.seconds:g} seconds", by_time))
    bars = [
        Bars(name, [Spread(_accuracy(budget(m)), *_interval(budget(m))) for m in family.members], colour)
        for colour, (name, budget) in enumerate(budgets, start=1)
    ]
    names = [SHOWN[member.name] for member in family.members]
    y = Axis("accuracy on test photos", 0.0, 1.0, share=True)  # bars begin at nothing
    return grouped_bars("Accuracy by budget", y, names, bars, size=WIDE)


def _speeds(family: Family) -> Svg:
    speeds = [round(member.speed) for member in family.members]
    y = Axis.around("photos trained a second", [0, *speeds])
    bars = Bars("photos a second", [Spread.of([speed]) for speed in speeds], 1)
    names = [SHOWN[member.name] for member in family.members]
    return grouped_bars("Photos trained on in a second", y, names, [bars], size=WIDE)


def findings(family: Family) -> tuple[Finding, ...]:
    """What the test photos say of the pairs that the literature compares, and who wins at equal time."""
    return (
        _pair(family, ("resnet34", "plain34"), by_epochs, EXPECTED["shortcut"]),
        _pair(family, ("resnet34", "plain34"), by_time, EXPECTED["shortcut"]),
        _pair(family, ("resnet34", "vgg16"), by_epochs, EXPECTED["vgg"]),
        _pair(family, ("resnet34", "alexnet"), by_epochs, EXPECTED["alexnet"]),
        _pair(family, ("resnet34", "resnet18"), by_epochs, EXPECTED["deeper"]),
        _pair(family, ("resnet50", "resnet34"), by_epochs, EXPECTED["depth"]),
        _at_equal_time(family),
    )


def _pair(family: Family, names: tuple[str, str], budget: Budget, expected: str) -> Finding:
    """Whether the first of two is the better one, as it should be."""
    first, second = (family.of(name) for name in names)
    agrees, by, unsure = _better(budget(first), budget(second))
    better, worse = (f"{percent(_accuracy(runs), 1)}" for runs in (budget(first), budget(second)))
    sentence = (
        f"{_after(family, budget)}, {SHOWN[first.name]} answers {better}{_lost(budget(first))} of "
        f"{_photos((*budget(first), *budget(second))):,} test photos rightly, {SHOWN[second.name]} "
        f"{worse}{_lost(budget(second))}, with {first.operations / 1e6:,.0f} and {second.operations / 1e6:,.0f} "
        f"million operations a photo ({by})."
    )
    if agrees is None:
        return Finding(sentence, expected, None, unsure)
    return Finding(sentence, expected, agrees, "" if agrees else _why_not(budget(first), budget(second)))


def _better(first: Sequence[Trained], second: Sequence[Trained]) -> tuple[bool | None, str, str]:
    """Whether the first is better, by what that is told, and why it may not be told.

    Of one seed by the test photos, by McNemar's exact test. Of several by the seeds, which have to agree: their answers
    are to the same photos, and together would pass for more photos than there are.
    """
    if len(first) > 1:
        differences = [one.accuracy - other.accuracy for one, other in zip(first, second, strict=True)]
        ahead = sum(difference > 0 for difference in differences)
        by = f"the former ahead under {ahead} of {len(differences)} seeds"
        return direction(differences), by, "The seeds do not agree on which is better."
    p, sign = _difference((first[0], second[0]))
    unsure = "A difference of this size is within chance on so many photos."
    return (sign > 0 if p < LEVEL else None), f"one seed, p = {p:.2g}", unsure


def _difference(pair: tuple[Trained, Trained]) -> tuple[float, int]:
    """The p-value of equal accuracy of two runs, and which is better: 1 the first, -1 the second.

    McNemar's exact test on the photos that one of both answered rightly. One that diverged counts as answering all
    wrongly.
    """
    better, worse = discordant(*(_right(one, pair) for one in pair))
    return mcnemar(better, worse), int(np.sign(better - worse))


def _right(one: Trained, pair: tuple[Trained, Trained]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    n = max(other.n for other in pair)
    return np.zeros(n, dtype=bool) if one.right is None else np.array(one.right, dtype=bool)


def _why_not(first: Sequence[Trained], second: Sequence[Trained]) -> str:
    """How far both have learned: what was still learning may be behind only for now."""
    crops = [[one.training_accuracy for one in runs if one.training_accuracy is not None] for runs in (first, second)]
    if not all(crops) or _lost((*first, *second)):
        return "One of them diverged."
    said = [percent(float(np.mean(values)), 1) for values in crops]
    return f"On training crops they reach {said[0]} and {said[1]}: the budget is far from what the literature spends."


def _at_equal_time(family: Family) -> Finding:
    order = sorted(family.members, key=lambda member: -_accuracy(member.by_time))
    said = ", ".join(f"{SHOWN[m.name]} {percent(_accuracy(m.by_time), 1)}{_lost(m.by_time)}" for m in order)
    epochs = {m.name: np.mean([one.epochs for one in m.by_time]) for m in family.members}
    most, least = max(epochs, key=lambda name: epochs[name]), min(epochs, key=lambda name: epochs[name])
    return Finding(
        f"{_after(family, by_time)}, from the best down: {said}; {SHOWN[most]} saw the photos "
        f"{epochs[most]:.1f} times in that time and {SHOWN[least]} {epochs[least]:.1f} times "
        f"({seeds_said(len(order[0].by_time))}).",
        EXPECTED["time"],
        None,
    )


def _after(family: Family, budget: Budget) -> str:
    """How a sentence about its trainings begins, as that of a lab does."""
    spent = f"{family.epochs} epochs" if budget is by_epochs else f"{family.seconds:g} seconds"
    return f"After {spent} each" + ("" if family.full else ", at this size")
