"""Degradation: deeper plain networks have a higher training error, deeper residual networks do not.

He et al. 2015 (arXiv 1512.03385), figures 1 and 6 and section 4.2. Twins differ by `shortcut="none"` alone: the
shortcuts are option A, so both have the same parameters, and they see the same photos in the same order and crops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from plusx.lab import conduct
from plusx.lab.answers import error_and_loss
from plusx.lab.laboratory import Lab
from plusx.lab.network import Network
from plusx.lab.results import Figure, Finding, Result, Table, direction, seeds_said, spread
from plusx.lab.twins import COLOURS, TWINS
from plusx.recipes import cifar
from plusx.report.axes import Axis
from plusx.report.figures import WIDE, Svg, line_chart, over_seeds

QUICK = replace(conduct.QUICK, seeds=3)
QUICK_DEPTHS, FULL_DEPTHS = (8, 20, 56), (20, 32, 44, 56, 110)
SHALLOW, DEEP = 20, 56  # the pair of figure 1, trained first
# Test error in percent of residual networks on CIFAR-10: table 6 of the paper, and the reproduction of Y. Idelbayev,
# "Proper ResNet implementation for CIFAR10/CIFAR100 in PyTorch", which reports the best test error of a run.
PUBLISHED = {20: (8.75, 8.27), 32: (7.51, 7.37), 44: (7.17, 6.90), 56: (6.97, 6.61), 110: (6.43, 6.32)}
LOOKED_AT = 5_000  # training photos on which the final training error is measured
GROUPS = 40  # points of a training curve
EXPECTED = {
    "plain": "Plain networks: 56 layers have a higher training error than 20 all along (He et al. 2015, figure 1).",
    "resnet": "Residual networks: 56 layers have a lower error than 20 (He et al. 2015, figure 6 and table 6).",
    "twins": "Of equal depth, 56 layers, the residual twin has the lower training error (He et al. 2015, section 4.2).",
    "fit": "The deeper plain network is worse on the photos it learns from, so this is no over-fitting "
    "(He et al. 2015, section 1).",
}

LATE = (
    "{passes:.1f} passes over the photos are few, the paper makes 182: deep residual networks are behind at first, and "
    "with more steps the gap narrows."
)
ENOUGH = 100  # passes after which that is no reason any more

Rows = Mapping[tuple[str, int], list["Course"]]
Errors = Mapping[tuple[str, int], Sequence[float]]


@dataclass(frozen=True)
class Course:
    """One training. Errors are shares; `training` and `test` are (step, error); the last two are of its end.

    A network that diverged answers no better than chance from `diverged` on.
    """

    network: str
    parameters: int
    training: tuple[tuple[float, float], ...]
    test: tuple[tuple[float, float], ...]
    training_error: float
    test_error: float
    n_training: int
    n_test: int
    diverged: int | None = None


def depths(lab: Lab) -> tuple[int, ...]:
    """The numbers of layers."""
    return FULL_DEPTHS if lab.full else QUICK_DEPTHS


def networks(lab: Lab) -> list[Network]:
    """Twins of every depth under every seed; those that tell most come first."""
    first = [depth for depth in (SHALLOW, DEEP) if depth in depths(lab)]
    order = [*first, *(depth for depth in depths(lab) if depth not in first)]
    return [_network(kind, depth, seed) for seed in lab.seeds for depth in order for kind in TWINS]


def _network(kind: str, depth: int, seed: int) -> Network:
    """As the recipe has it: 110 layers begin with a smaller rate (He et al. 2015, section 4.2)."""
    warmup = cifar(f"{kind}{depth}").warmup
    return Network(f"{kind}{depth}", seed, (("warmup", warmup),) if warmup else ())


def run(lab: Lab) -> Result:
    """Train all of them and tell their errors."""
    lab.trained(networks(lab))
    rows: dict[tuple[str, int], list[Course]] = {}
    for kind in TWINS:
        for depth in depths(lab):
            rows[kind, depth] = [_course(lab, _network(kind, depth, seed)) for seed in lab.seeds]
    return Result(
        name="degradation",
        title="Degradation",
        question="Do more layers make a network better, and what does the shortcut change about that?",
        conditions=_conditions(lab),
        tables=_tables(rows, full=lab.full),
        figures=_figures(rows),
        findings=findings(rows, lab.after, _passes(lab)),
        raw={f"{kind}{depth}": [vars(course) for course in rows[kind, depth]] for kind, depth in rows},
    )


def findings(rows: Rows, after: str, passes: float) -> tuple[Finding, ...]:
    """What the final errors say, seed by seed; `after` opens each sentence, after so many `passes` over the photos."""
    training = {key: [course.training_error for course in courses] for key, courses in rows.items()}
    test = {key: [course.test_error for course in courses] for key, courses in rows.items()}
    found = [_deeper(after, training, kind) for kind in TWINS]
    if found[1].agrees is not True:
        found[1] = replace(found[1], why=LATE.format(passes=passes) if passes < ENOUGH else "")
    told = [*found, _twins(after, training), _no_overfitting(after, training, test)]
    photos = min(course.n_training for courses in rows.values() for course in courses)
    pairs = (*([(kind, SHALLOW), (kind, DEEP)] for kind in TWINS), [("plain", DEEP), ("resnet", DEEP)])
    told = [
        finding if _clear(training[one], training[other], photos) else _by_chance(finding, photos)
        for finding, (one, other) in zip(told, (*pairs, pairs[0]), strict=True)
    ]
    plain, residual = ([*rows[kind, SHALLOW], *rows[kind, DEEP]] for kind in TWINS)
    of = (plain, residual, [*rows["plain", DEEP], *rows["resnet", DEEP]], plain)
    return tuple(_unless_diverged(finding, courses) for finding, courses in zip(told, of, strict=True))


def _passes(lab: Lab) -> float:
    return lab.steps * lab.config.batch_size / lab.counts["train"]


def _deeper(after: str, errors: Errors, kind: str) -> Finding:
    shallow, deep = errors[kind, SHALLOW], errors[kind, DEEP]
    points = 100 * (mean(deep) - mean(shallow))
    how = "higher" if points > 0 else "lower"
    said = (
        f"{after}, {TWINS[kind]} networks of {DEEP} layers have a training error of {spread(deep)}, those of "
        f"{SHALLOW} layers {spread(shallow)}: deeper is {abs(points):.2f} points {how} ({seeds_said(len(deep))})."
    )
    pair = ((kind, SHALLOW), (kind, DEEP))
    better, worse = pair if kind == "plain" else pair[::-1]
    return Finding(said, EXPECTED[kind], _worse(errors, better, worse))


def _clear(one: Sequence[float], other: Sequence[float], photos: int) -> bool:
    """Whether two mean errors, each a share of so many photos, differ by more than twice the error of their difference.

    Photos are the same under every seed, so seeds do not add to them.
    """
    a, b = mean(one), mean(other)
    return abs(a - b) > 2 * math.sqrt((a * (1 - a) + b * (1 - b)) / photos)


def _by_chance(finding: Finding, photos: int) -> Finding:
    return replace(finding, agrees=None, why=f"On {photos:,} training photos so small a difference could be chance.")


def _unless_diverged(finding: Finding, courses: Sequence[Course]) -> Finding:
    """A network that blew up answers no better than a guess, which is another matter than degradation."""
    lost = [f"{course.network} diverged at step {course.diverged:,}" for course in courses if course.diverged]
    if not lost:
        return finding
    return replace(finding, agrees=None, why=f"{', '.join(lost)}: it counts as a guess here, and is no degradation.")


def _worse(errors: Errors, better: tuple[str, int], worse: tuple[str, int]) -> bool | None:
    return direction([w - b for b, w in zip(errors[better], errors[worse], strict=True)])


def _twins(after: str, errors: Errors) -> Finding:
    plain, residual = errors["plain", DEEP], errors["resnet", DEEP]
    points = 100 * (mean(plain) - mean(residual))
    said = (
        f"{after}, the shortcuts alone change the training error of {DEEP} layers from {spread(plain)} to "
        f"{spread(residual)}, by {points:.2f} points ({seeds_said(len(plain))})."
    )
    return Finding(said, EXPECTED["twins"], _worse(errors, ("resnet", DEEP), ("plain", DEEP)))


def _no_overfitting(after: str, training: Errors, test: Errors) -> Finding:
    """Over-fitting would be a deeper network that is better on its training photos and worse on others."""
    gaps = {depth: mean(test["plain", depth]) - mean(training["plain", depth]) for depth in (SHALLOW, DEEP)}
    rises = [mean(errors["plain", DEEP]) - mean(errors["plain", SHALLOW]) for errors in (training, test)]
    said = (
        f"{after}, from {SHALLOW} to {DEEP} plain layers the training error changes by {100 * rises[0]:+.2f} points "
        f"and the test error by {100 * rises[1]:+.2f}; test error less training error is {100 * gaps[SHALLOW]:.2f} "
        f"points at {SHALLOW} layers and {100 * gaps[DEEP]:.2f} at {DEEP}."
    )
    worse = _worse(training, ("plain", SHALLOW), ("plain", DEEP))
    over_fits = gaps[DEEP] - gaps[SHALLOW] > max(0.0, rises[0])  # then the gap is what grows
    return Finding(said, EXPECTED["fit"], None if worse and over_fits else worse)


def _course(lab: Lab, network: Network) -> Course:
    """What the run of a network says, and its training error at the end, measured without augmentation."""
    history = lab.history(network)
    steps = [(row["step"], 1.0 - row["accuracy"]) for row in history if "accuracy" in row]
    test = tuple((row["step"], 1.0 - row["validation"]["accuracy"]) for row in history if "validation" in row)
    parameters = sum(p.numel() for p in lab.build(network).parameters())
    curves = (network.name, parameters, grouped(steps), test)
    diverged, looked_at = lab.diverged(network), min(LOOKED_AT, lab.counts["train"])
    if diverged is not None:
        chance = 1.0 - 1.0 / len(lab.classes)
        return Course(*curves, chance, chance, looked_at, lab.counts["test"], diverged)
    end = lab.remembered(network.name, lambda: _at_the_end(lab, network))
    return Course(*curves, end["training_error"], end["test_error"], looked_at, end["n_test"])


def _at_the_end(lab: Lab, network: Network) -> dict[str, Any]:
    lab.tell(f"the errors of {network.name}")
    trained = lab.load(network)
    training, _ = error_and_loss(trained, lab.photos("train", LOOKED_AT))
    test, _ = error_and_loss(trained, lab.photos("test"))
    return {"training_error": training, "test_error": test, "n_test": lab.counts["test"]}


def grouped(points: Sequence[tuple[float, float]], groups: int = GROUPS) -> tuple[tuple[float, float], ...]:
    """Means of neighbouring points, at most `groups` of them: the error of a single batch is too noisy to look at."""
    size = max(1, -(-len(points) // groups))
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return tuple((mean(x for x, _ in part), mean(y for _, y in part)) for part in parts)


def _tables(rows: Rows, *, full: bool) -> tuple[Table, ...]:
    kept = sorted({depth for _, depth in rows})
    cells = []
    for depth in kept:
        plain, residual = rows["plain", depth], rows["resnet", depth]
        shown = [_cell(kind, what) for kind in (plain, residual) for what in _ERRORS]
        cells.append((str(depth), f"{plain[0].parameters:,}", *shown))
    header = ("layers", "parameters", "plain, training", "plain, test", "residual, training", "residual, test")
    table = Table("Error at the end of training", header, tuple(cells))
    return (table, _beside_the_paper(rows, kept)) if full else (table,)


_ERRORS = ("training_error", "test_error")


def _cell(courses: Sequence[Course], what: str) -> str:
    lost = sum(course.diverged is not None for course in courses)
    return spread([getattr(c, what) for c in courses]) + (f", {lost} of {len(courses)} diverged" if lost else "")


def _beside_the_paper(rows: Rows, kept: Sequence[int]) -> Table:
    cells = []
    for depth in kept:
        paper, again = PUBLISHED[depth]
        cells.append((str(depth), spread([c.test_error for c in rows["resnet", depth]]), f"{paper} %", f"{again} %"))
    header = ("layers", "here, last step", "He et al. 2015, table 6", "Idelbayev, best of a run")
    return Table("Test error of residual networks on CIFAR-10", header, tuple(cells))


def _figures(rows: Rows) -> tuple[Figure, ...]:
    curves = [
        Figure(
            f"curves-{said}",
            f"Error of {said} networks while they learn, mean and range over seeds; dashed on training photos as they "
            "are seen, cropped and flipped, several batches a point; solid on test photos as they are. Look at which "
            "depth is lowest.",
            _curves(rows, kind, said),
        )
        for kind, said in TWINS.items()
    ]
    caption = "Training error at the end against depth. Look at which way each line goes."
    return (*curves, Figure("depth", caption, _against_depth(rows)))


def _curves(rows: Rows, kind: str, said: str) -> Svg:
    series = []
    for colour, depth in enumerate(sorted(d for k, d in rows if k == kind), start=1):
        courses = rows[kind, depth]
        few = len(courses[0].test) < 2  # a line of one point is not seen
        series.append(over_seeds(f"{depth} layers", [c.test for c in courses], colour, dots=few))
        training = [c.training for c in courses]
        series.append(over_seeds(f"{depth} layers, training", training, colour, dashed=True))
    steps = max(x for line in series for x, _ in line.points)
    y = Axis("error", 0.0, 1.0, share=True)
    return line_chart(f"Error of {said} networks against steps", Axis("step", 0, steps), y, series, size=WIDE)


def _against_depth(rows: Rows) -> Svg:
    series = []
    for kind, said in TWINS.items():
        kept = sorted(d for k, d in rows if k == kind)
        seeds = range(len(rows[kind, kept[0]]))
        runs = [[(d, rows[kind, d][seed].training_error) for d in kept] for seed in seeds]
        series.append(over_seeds(said, runs, COLOURS[kind], dots=True))
    x = Axis.around("layers", [0, *(d for _, d in rows)])
    errors = [c.training_error for courses in rows.values() for c in courses]
    y = Axis.around("training error", [0.0, *errors], share=True)
    return line_chart("Final training error against depth", x, y, series)


def _conditions(lab: Lab) -> str:
    config, counts = lab.config, lab.counts
    return (
        f"{counts['train']:,} training and {counts['test']:,} test photos of {len(lab.classes)} classes at "
        f"{config.size} px; 6n+2 networks of {config.width:g} times the published width, option A; {lab.steps:,} steps "
        f"of {config.batch_size} photos, SGD as in section 4.2; {seeds_said(len(lab.seeds))}; the last weights count, "
        "and no photo chose anything."
    )
