"""What blocks of zeros and networks made deeper have shown: tables, figures and sentences, from numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plusx.lab.degradation import grouped
from plusx.lab.results import Figure, Finding, Table, direction, seeds_said, spread
from plusx.report.axes import Axis
from plusx.report.figures import WIDE, Bars, Series, Spread, Svg, grouped_bars, line_chart, over_seeds

Raw = Mapping[str, Any]  # as `identity.run` gives it
Courses = Sequence[Mapping[str, Any]]  # of one way, one for each seed

BLOCKS = {
    "residual": "residual, F(x) = 0, maps as they arrive",
    "signed": "residual, F(x) = 0, their mean taken off",
    "plain": "plain, F(x) = 0, maps as they arrive",
    "built": "plain, unit kernels and norms set by hand, maps as they arrive",
}
KEPT, GROWN = "residual, as it was", "residual, zero branches added"
PLAIN, FRESH, BUILT = "plain, as it was", "plain, fresh blocks added", "plain, blocks built by hand"
MARGIN = 0.01  # of the loss of the shallower network
SHORT = {KEPT: "residual", GROWN: "+ zero branches", PLAIN: "plain", FRESH: "+ fresh blocks", BUILT: "+ built by hand"}
POINTS = 20  # of a curve
HE = "He et al. 2015 (arXiv 1512.03385, section 1)"
EXPECTED = {
    "block": "With F(x) = 0 a residual block is the identity, behind ReLU of what is not negative (He et al. 2016, "
    "arXiv 1603.05027, section 2); a plain block of zero weights gives zeros.",
    "grown": "Blocks whose last norm starts at zero add layers without changing the function (Goyal et al. 2017, arXiv "
    "1706.02677, section 5.1).",
    "on": f"A deeper network should be no worse than the shallower one in it, {HE}: with shortcuts that holds.",
    "fresh": "Without shortcuts zero weights are no identity, so a plain network that is made deeper loses its "
    "function and has to learn anew.",
    "built": f"The solution by construction exists for plain networks too, and solvers do not find it, {HE}.",
}


@dataclass(frozen=True)
class Scene:
    """Steps of training from scratch, and of going on; on how many test photos answers were compared; layers."""

    steps: int
    more: int
    full: bool
    photos: int
    shallow: int = 20
    deep: int = 56

    @property
    def size(self) -> str:
        """What every sentence of a smaller experiment says."""
        return "" if self.full else ", at this size"


def findings(raw: Raw, scene: Scene) -> tuple[Finding, ...]:
    """What the numbers say, seed by seed: the whole network first, then its blocks."""
    ways = raw["ways"]
    return (
        _grown(ways, scene),
        _block(raw["blocks"], scene),
        _goes_on(ways, scene),
        _fresh(ways, scene),
        _built(ways, raw["scratch"][f"plain{scene.deep}"], scene),
    )


def _block(blocks: Mapping[str, Mapping[str, Any]], scene: Scene) -> Finding:
    residual, signed, plain, built = (blocks[name] for name in BLOCKS)
    sentence = (
        f"With F(x) = 0, {residual['equal']:,} of {residual['values']:,} values leave the residual blocks of "
        f"{scene.shallow} layers as they came, the largest difference is {residual['largest']:g}; with the mean taken "
        f"off, so that some are negative, {_share(signed, 'equal')} do. Of plain blocks {_share(plain, 'zeros')} come "
        f"out as zeros and {_share(plain, 'equal')} as they came; with kernels and norms set by hand "
        f"{_share(built, 'equal')} do."
    )
    identity = residual["equal"] == residual["values"] and residual["largest"] == 0
    return Finding(sentence, EXPECTED["block"], identity and plain["zeros"] == plain["values"] > plain["equal"])


def _grown(ways: Mapping[str, Courses], scene: Scene) -> Finding:
    """Agrees where logits, and the loss of the first step in training mode, are equal bit for bit under every seed."""
    grown = ways[GROWN]
    first = [g["losses"][0] == k["losses"][0] for g, k in zip(grown, ways[KEPT], strict=True)]
    equal = [course["bit_equal"] for course in grown]
    largest = max(course["largest_difference"] for course in grown)
    sentence = (
        f"With zero branches added, from {scene.shallow} layers to {scene.deep}, the logits of {scene.photos:,} test "
        f"photos are equal bit for bit in {sum(equal)} of {len(grown)} networks (largest difference {largest:g}), and "
        f"so is the loss of the first training step in {sum(first)}."
    )
    return Finding(sentence, EXPECTED["grown"], all(equal) and all(first))


def _goes_on(ways: Mapping[str, Courses], scene: Scene) -> Finding:
    """Agrees where the deeper network is no worse, but for MARGIN of the loss, under every seed."""
    (grown, its), (kept, other) = (
        [_at(ways[way], "end", name) for name in ("training_loss", "training_error")] for way in (GROWN, KEPT)
    )
    sentence = (
        f"After {scene.more:,} more steps{scene.size}, the residual network made {scene.deep} layers deep has a "
        f"training loss of {_loss(grown)} and a training error of {spread(its)}, the one of {scene.shallow} layers "
        f"that was trained on {_loss(kept)} and {spread(other)}; both began at "
        f"{_loss(_at(ways[KEPT], 'start', 'training_loss'))} ({_seeds(ways[GROWN])}; losses within {100 * MARGIN:g} % "
        "count as equal)."
    )
    allowed = [(1 + MARGIN) * loss for loss in kept]
    return Finding(sentence, EXPECTED["on"], direction(_differences(allowed, grown)))


def _fresh(ways: Mapping[str, Courses], scene: Scene) -> Finding:
    """Agrees where the error jumps at once, and is still higher after training on, under every seed."""
    before, jumped = (_at(ways[way], "start", "training_error") for way in (PLAIN, FRESH))
    kept, after = (_at(ways[way], "end", "training_error") for way in (PLAIN, FRESH))
    sentence = (
        f"With fresh blocks added, and statistics of norms taken anew, the training error of the plain network jumps "
        f"from {spread(before)} to {spread(jumped)}; after {scene.more:,} more steps{scene.size}, it is "
        f"{spread(after)}, and {spread(kept)} of the plain {scene.shallow} layers that were trained on "
        f"({_seeds(ways[FRESH])})."
    )
    jumps, stays = _differences(jumped, before), _differences(after, kept)
    return Finding(sentence, EXPECTED["fresh"], direction([min(j, s) for j, s in zip(jumps, stays, strict=True)]))


def _built(ways: Mapping[str, Courses], scratch: Courses, scene: Scene) -> Finding:
    """Agrees where training from scratch ends above the loss of the built network, under every seed."""
    built, end = _at(ways[BUILT], "start", "training_loss"), _at(ways[BUILT], "end", "training_loss")
    found = [course["training_loss"] for course in scratch]
    sentence = (
        f"Plain {scene.deep} layers built by hand answer as the {scene.shallow} layers in them, but for "
        f"{spread([1 - course['same_answers'] for course in ways[BUILT]])} of {scene.photos:,} test photos, with a "
        f"training loss of {_loss(built)}; trained on for {scene.more:,} steps they come to {_loss(end)}. SGD from "
        f"scratch ends at {_loss(found)} after {scene.steps:,} steps{scene.size} ({_seeds(scratch)})."
    )
    return Finding(sentence, EXPECTED["built"], direction(_differences(found, built)))


def tables(raw: Raw) -> tuple[Table, ...]:
    """What single blocks do, and how training goes on."""
    blocks = [
        (BLOCKS[name], f"{b['values']:,}", _share(b, "equal"), _share(b, "zeros"), f"{b['largest']:g}")
        for name, b in raw["blocks"].items()
    ]
    header = ("block and input", "values", "as they came", "zeros", "largest difference")
    on = [(name, *_row(courses)) for name, courses in raw["ways"].items()]
    measured = ("training error", "training loss", "test error")
    ends = [f"{what}, {when}" for when in ("start", "end") for what in measured]
    more = Table("Training goes on", ("way", "logits as before", *ends), tuple(on))
    scratch = [
        (model, *(f(_values(found, name)) for f, name in zip((spread, _loss, spread), _MEASURED, strict=True)))
        for model, found in raw["scratch"].items()
    ]
    return (
        Table("Values that leave a block", header, tuple(blocks)),
        more,
        Table("From scratch", ("network", *measured), tuple(scratch)),
    )


_MEASURED = ("training_error", "training_loss", "test_error")


def _row(courses: Courses) -> list[str]:
    cells = [f"{max(course['largest_difference'] for course in courses):.2g} off"]
    if all(course["bit_equal"] for course in courses):
        cells = ["bit for bit"]
    for when in ("start", "end"):
        said = zip((spread, _loss, spread), _MEASURED, strict=True)
        cells += [say(_at(courses, when, name)) for say, name in said]
    return cells


def figures(raw: Raw) -> tuple[Figure, ...]:
    """The loss while training goes on, and the training error before and after."""
    return (
        Figure(
            "going-on",
            "Training loss while training goes on, as batches are seen, mean over seeds with a band from the lowest to "
            "the highest. Look at where each line begins: zero branches change nothing, fresh plain blocks everything.",
            _losses(raw["ways"]),
        ),
        Figure(
            "before-and-after",
            "Error on training photos when training goes on and when it ends; bars show means, their lines the lowest "
            "and the highest seed.",
            _bars(raw["ways"]),
        ),
    )


def _losses(ways: Mapping[str, Courses]) -> Svg:
    series: list[Series] = []
    for colour, (name, courses) in enumerate(ways.items(), start=1):
        runs = [[tuple(c["losses"][0]), *grouped(c["losses"][1:], POINTS)] for c in courses]
        series.append(over_seeds(name, runs, colour))
    x = Axis("further step", 0, max(at for line in series for at, _ in line.points))
    y = Axis.around("training loss", [0.0, *(high for line in series for _, high in (*line.points, *line.spread))])
    return line_chart("Training loss while training goes on", x, y, series, (), WIDE)


def _bars(ways: Mapping[str, Courses]) -> Svg:
    bars = [
        Bars(said, [Spread.of(_at(courses, when, "training_error")) for courses in ways.values()], colour)
        for colour, (when, said) in enumerate((("start", "when training goes on"), ("end", "when it ends")), start=1)
    ]
    y = Axis("training error", 0.0, 1.0, share=True)
    names = [SHORT[name] for name in ways]
    return grouped_bars("Training error before and after training goes on", y, names, bars, "", WIDE)


def _at(courses: Courses, when: str, name: str) -> list[float]:
    return _values([course[when] for course in courses], name)


def _values(found: Courses, name: str) -> list[float]:
    return [float(values[name]) for values in found]


def _differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]


def _loss(values: Sequence[float]) -> str:
    return spread(values, unit="", scale=1.0, digits=3)


def _share(found: Mapping[str, Any], what: str) -> str:
    """Rounded to a tenth of a percent, but never to all or nothing where it is not."""
    count, values = found[what], found["values"]
    if count in (0, values):
        return "all" if count else "none"
    return f"{min(99.9, max(0.1, 100 * count / values)):.1f} %"


def _seeds(courses: Courses) -> str:
    return seeds_said(len(courses))
