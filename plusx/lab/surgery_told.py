"""What the operations on trained networks have shown: tables, figures and sentences, from errors alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, median
from typing import Any

from plusx.lab.results import Figure, Finding, Table, direction, seeds_said, spread
from plusx.report.axes import Axis
from plusx.report.figures import WIDE, Series, Svg, line_chart, over_seeds
from plusx.report.moving import dial

Operated = dict[str, Any]  # the errors of one network, as `surgery.operate` gives them
Raw = Mapping[str, Sequence[Operated]]  # by model, one for each seed

SAID = (1.0, 0.95, 0.9, 0.8, 0.0)  # alphas in the sentence; the table has all
NOTABLE = 0.01  # an error that differs by less may do so by the photos it is measured on
LEAST_LEAD = 0.05  # a network that knows no more than this above a guess has too little to lose
VEIT = "(Veit et al. 2016, arXiv 1605.06431, section 4"
EXPECTED = {
    "deleted": f"Deleting one block hardly hurts a residual network and ruins a plain one {VEIT}.1, figure 3).",
    "swapped": f"Residual networks bear that blocks change places {VEIT}.3, figure 5); plain ones have one path only.",
    "many": f"The error of a residual network grows with the number of deleted blocks, little by little {VEIT}.2, "
    "figure 5).",
    "shape": f"Of a residual network, the blocks that change the shape of maps are missed most {VEIT}.1, figure 3).",
    "cut": "The shortcuts carry the signal and every branch only refines it (Greff et al. 2017, arXiv 1612.07771).",
    "dial": "What shortcuts carry shrinks by the product of all factors, so the error grows as alpha falls (He et al. "
    "2016, arXiv 1603.05027, equation 6, which is about training with such factors).",
}


@dataclass(frozen=True)
class Scene:
    """On how many `photos` of how many `classes` errors were measured, after how many `steps` of training."""

    photos: int
    classes: int
    steps: int
    full: bool

    @property
    def chance(self) -> float:
        """The error of guessing."""
        return 1.0 - 1.0 / self.classes

    @property
    def after(self) -> str:
        """How every sentence begins."""
        return f"After {self.steps:,} steps" + ("" if self.full else ", at this size")


@dataclass(frozen=True)
class Pair:
    """A residual network and its plain twin, seed by seed."""

    depth: int
    residual: Sequence[Operated]
    plain: Sequence[Operated]

    @property
    def both(self) -> tuple[tuple[str, Sequence[Operated]], ...]:
        """Their names and errors."""
        return (f"resnet{self.depth}", self.residual), (f"plain{self.depth}", self.plain)

    def known(self, scene: Scene) -> bool:
        """Whether both answer better than a guess, under every seed."""
        return all(scene.chance - o["untouched"] > LEAST_LEAD for o in (*self.residual, *self.plain))


def pairs(raw: Raw) -> list[Pair]:
    """The twins, the deepest first."""
    depths = sorted((int(model.removeprefix("resnet")) for model in raw if model.startswith("resnet")), reverse=True)
    return [Pair(depth, raw[f"resnet{depth}"], raw[f"plain{depth}"]) for depth in depths]


def compared(raw: Raw, scene: Scene) -> Pair:
    """The deepest twins that both have learned something; the deepest of all where there are none."""
    return next((pair for pair in pairs(raw) if pair.known(scene)), pairs(raw)[0])


def findings(raw: Raw, scene: Scene) -> tuple[Finding, ...]:
    """What the errors say, seed by seed: of the deepest twins that have learned something, and of the deepest network.

    A plain network that guesses has nothing to lose, and nothing can be seen in it.
    """
    pair, deepest = compared(raw, scene), pairs(raw)[0]
    count = list(pair.residual[0]["swapped_many"])[-1]
    blocks, neighbours = len(pair.residual[0]["deleted"]), len(pair.residual[0]["pairs"])
    deleted = _compared(pair, scene, f"with one of {blocks} blocks deleted (the median of all)", _one("deleted"))
    swapped = _compared(pair, scene, f"with two neighbours swapped (the median of {neighbours})", _one("swapped"))
    many = _compared(pair, scene, f"with {count} random pairs swapped", _many("swapped_many", count))
    passed_over = "".join(_passed_over(p) for p in pairs(raw) if p.depth > pair.depth)
    return (
        Finding(deleted[0] + passed_over, EXPECTED["deleted"], *deleted[1:]),
        _changing_shape(deepest),
        _little_by_little(deepest, scene),
        Finding(swapped[0], EXPECTED["swapped"], *swapped[1:]),
        Finding(many[0], EXPECTED["swapped"], *many[1:]),
        _cut(deepest),
        _dial(deepest),
    )


def _one(what: str) -> Callable[[Operated], float]:
    return lambda operated: median(operated[what])


def _many(what: str, count: str) -> Callable[[Operated], float]:
    return lambda operated: mean(operated[what][count])


def _compared(pair: Pair, scene: Scene, how: str, error: Callable[[Operated], float]) -> tuple[str, bool | None, str]:
    """Twins before and after, by the share that is lost of what they know above a guess: sentence, verdict, why."""
    said, lost = [], []
    for model, seeds in pair.both:
        before, after = [o["untouched"] for o in seeds], [error(o) for o in seeds]
        said.append(f"{model} from {spread(before)} to {spread(after)}")
        if pair.known(scene):
            lost.append([(a - b) / (scene.chance - b) for a, b in zip(after, before, strict=True)])
            said[-1] += f", which is {spread(lost[-1], digits=0)} of its lead over guessing"
    sentence = f"{scene.after}, the error on {scene.photos:,} test photos {how} goes in {'; in '.join(said)}"
    why = "" if lost else "A network that answers hardly better than a guess has nothing to lose."
    agrees = direction([p - r for r, p in zip(*lost, strict=True)]) if lost else None
    return f"{sentence} ({_seeds(pair)}).", agrees, why


def _passed_over(pair: Pair) -> str:
    errors = spread([o["untouched"] for o in pair.plain])
    return f" plain{pair.depth} is not compared: its error is {errors} untouched, so there is nothing to lose."


def _changing_shape(pair: Pair) -> Finding:
    """Agrees where the difference is more than NOTABLE under every seed."""
    changing = pair.residual[0]["changes_shape"]
    named = " or ".join(str(place + 1) for place in changing)
    there, elsewhere = [], []
    for operated in pair.residual:
        there.append(mean(operated["deleted"][place] for place in changing))
        elsewhere.append(mean(e for place, e in enumerate(operated["deleted"]) if place not in changing))
    sentence = (
        f"Without block {named}, which change the shape of maps, the error of resnet{pair.depth} is {spread(there)} in "
        f"the mean, without one of the others {spread(elsewhere)} ({_seeds(pair)})."
    )
    differences = [t - e for t, e in zip(there, elsewhere, strict=True)]
    agrees = direction([d if abs(d) > NOTABLE else 0.0 for d in differences])
    why = f"A difference of less than {100 * NOTABLE:g} point could be chance." if agrees is None else ""
    return Finding(sentence, EXPECTED["shape"], agrees, why)


def _little_by_little(pair: Pair, scene: Scene) -> Finding:
    """Agrees where the mean over the ways of choosing grows with the counts, and falls at none, in every seed."""
    counts = list(pair.residual[0]["deleted_many"])
    courses = [[o["untouched"], *(mean(o["deleted_many"][c]) for c in counts)] for o in pair.residual]
    means = [spread(errors, digits=1) for errors in zip(*courses, strict=True)]
    listed = [f"{error} without {count}" for count, error in zip(counts, means[1:], strict=True)]
    sentence = (
        f"With blocks deleted at random, the error of resnet{pair.depth} is {means[0]} with all, "
        f"{', '.join(listed)}; guessing gives {100 * scene.chance:.0f} % ({_seeds(pair)})."
    )
    return Finding(sentence, EXPECTED["many"], direction([_rise(course) for course in courses]))


def _rise(course: Sequence[float]) -> float:
    """By how much errors rise from the first to the last, below 0 where one falls; up to NOTABLE is chance, and 0."""
    lowest, whole = min(b - a for a, b in pairwise(course)), course[-1] - course[0]
    if lowest < -NOTABLE:
        return lowest
    return whole if abs(whole) > NOTABLE else 0.0


def _cut(pair: Pair) -> Finding:
    ways = [[median(operated[what]) for operated in pair.residual] for what in ("shortcut_cut", "deleted")]
    sentence = (
        f"Where one block of resnet{pair.depth} loses its shortcut and keeps its branch, the error is "
        f"{spread(ways[0])} in the median of all blocks; where it loses its branch and keeps its shortcut, "
        f"{spread(ways[1])} ({_seeds(pair)})."
    )
    return Finding(sentence, EXPECTED["cut"], direction([s - b for s, b in zip(*ways, strict=True)]))


def _dial(pair: Pair) -> Finding:
    alphas = pair.residual[0]["alphas"]
    shown = [place for place in reversed(range(len(alphas))) if alphas[place] in SAID]
    told = [", ".join(f"{_over_seeds(dials)[p]} at {alphas[p]:g}" for p in shown) for dials in _ways(pair)]
    sentence = (
        f"With all shortcuts of resnet{pair.depth} scaled by alpha, its error is {told[0]}; with statistics of its "
        f"norms taken anew {told[1]} ({_seeds(pair)})."
    )
    return Finding(sentence, EXPECTED["dial"], direction([o["dial"][0] - o["dial"][-1] for o in pair.residual]))


def _over_seeds(dials: Sequence[Sequence[float]]) -> list[str]:
    return [spread(errors, digits=1) for errors in zip(*dials, strict=True)]


def _ways(pair: Pair) -> tuple[list[list[float]], list[list[float]]]:
    """The dials of all seeds: norms as they are, and with statistics taken anew."""
    return [o["dial"] for o in pair.residual], [o["renewed"]["dial"] for o in pair.residual]


def tables(raw: Raw) -> tuple[Table, ...]:
    """The errors of every network, and those along the dial."""
    header = ("network", "untouched", "one deleted, median", "one deleted, worst", "neighbours swapped, median")
    several = ("4 deleted", "4 deleted, statistics anew", "4 pairs swapped")
    rows = [(model, *_row(operated)) for model, operated in raw.items()]
    return (Table("Error on test photos", (*header, *several), tuple(rows)), _dial_table(raw))


def _row(seeds: Sequence[Operated]) -> list[str]:
    measured: list[Callable[[Operated], float]] = [
        lambda o: o["untouched"],
        _one("deleted"),
        lambda o: max(o["deleted"]),
        _one("swapped"),
        _many("deleted_many", "4"),
        lambda o: o["renewed"]["deleted_many"]["4"],
        _many("swapped_many", "4"),
    ]
    return [spread([error(operated) for operated in seeds]) for error in measured]


def _dial_table(raw: Raw) -> Table:
    found = pairs(raw)
    columns = [_over_seeds(dials) for pair in found for dials in _ways(pair)]
    alphas = [f"{alpha:g}" for alpha in found[0].residual[0]["alphas"]]
    header = [f"resnet{pair.depth}{way}" for pair in found for way in ("", ", statistics anew")]
    rows = tuple(zip(alphas, *columns, strict=True))
    return Table("Error with all shortcuts scaled by alpha", ("alpha", *header), rows)


def figures(raw: Raw, scene: Scene) -> tuple[Figure, ...]:
    """Twins of every depth without one block and without several; those that are compared swapped; all dials."""
    pair = compared(raw, scene)
    return (
        *(_deleted(p) for p in pairs(raw)),
        *(_deleted_many(p) for p in pairs(raw)),
        Figure(
            "swapped",
            "Error after a block and the next one of its shape change places.",
            _by_block(pair, "Error after two neighbours are swapped", "swapped", "first block of the pair"),
        ),
        Figure(
            "swapped-many",
            "Error against the number of random pairs that changed places.",
            _by_count(pair, "swapped_many", "pairs swapped"),
        ),
        Figure(
            "dial",
            "Error of F(x) + alpha x with all shortcuts scaled at test time, against alpha: 1 is the network as it was "
            "trained, 0 has no shortcuts. Dashed with the statistics of norms taken anew.",
            _against_alpha(pairs(raw)),
        ),
    )


_ERROR = Axis("error", 0.0, 1.0, share=True)


def _deleted(pair: Pair) -> Figure:
    caption = (
        f"Error of twins of {pair.depth} layers after one block is deleted; dots are means over seeds, bars reach from "
        "the lowest to the highest. The lines are the untouched networks. Look at how far dots lie above their line."
    )
    name = f"Error after one block of {pair.depth} layers is deleted"
    return Figure(f"deleted-{pair.depth}", caption, _by_block(pair, name, "deleted", "block that is deleted"))


def _deleted_many(pair: Pair) -> Figure:
    caption = (
        f"Error of twins of {pair.depth} layers against the number of blocks deleted at random; bands reach from the "
        "lowest seed to the highest; dashed with the statistics of norms taken anew. Look at where lines reach the "
        "error of guessing."
    )
    return Figure(f"deleted-many-{pair.depth}", caption, _by_count(pair, "deleted_many", "blocks deleted"))


def _by_block(pair: Pair, name: str, what: str, label: str) -> Svg:
    some = pair.residual[0]
    places = [a for a, _ in some["pairs"]] if what == "swapped" else range(len(some["deleted"]))
    count = len(some["deleted"])
    series = []
    for colour, (model, seeds) in enumerate(pair.both, start=1):
        untouched = mean(o["untouched"] for o in seeds)
        series.append(Series(f"{model}, untouched", [(1, untouched), (count, untouched)], colour, thin=True))
        runs = [[(place + 1, e) for place, e in zip(places, o[what], strict=True)] for o in seeds]
        series.append(over_seeds(model, runs, colour, dots=True))
    borders = [(place + 0.5, f"stage {number}") for number, place in enumerate(some["changes_shape"], start=2)]
    return line_chart(name, Axis(label, 1, count), _ERROR, series, borders, WIDE)


def _by_count(pair: Pair, what: str, label: str) -> Svg:
    series = []
    for colour, (model, seeds) in enumerate(pair.both, start=1):
        runs = [[(0, o["untouched"]), *((int(c), mean(e)) for c, e in o[what].items())] for o in seeds]
        series.append(over_seeds(model, runs, colour))
        if what in seeds[0]["renewed"]:
            again = [[(int(c), e) for c, e in o["renewed"][what].items()] for o in seeds]
            series.append(over_seeds(f"{model}, statistics anew", again, colour, dashed=True))
    last = max(x for line in series for x, _ in line.points)
    return line_chart(f"Error against the number of {label}", Axis(label, 0, last), _ERROR, series)


def _against_alpha(found: Sequence[Pair]) -> Svg:
    series = []
    for colour, pair in enumerate(found, start=1):
        for way, dials in zip(("", ", statistics anew"), _ways(pair), strict=True):
            runs = [list(zip(pair.residual[0]["alphas"], dial, strict=True)) for dial in dials]
            series.append(over_seeds(f"resnet{pair.depth}{way}", runs, colour, dashed=bool(way)))
    x = Axis("alpha", 0, 1)
    return dial("Error against alpha in F(x) + alpha x", x, _ERROR, series, lambda alpha: f"F(x) + {alpha:g} x")


def _seeds(pair: Pair) -> str:
    return seeds_said(len(pair.residual))
