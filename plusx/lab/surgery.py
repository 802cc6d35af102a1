"""Surgery: blocks of trained networks are deleted, exchanged and dialled, and nothing is learned anew.

Veit, Wilber and Belongie 2016 (arXiv 1605.06431): a residual network behaves like an ensemble of the many shorter
networks that its shortcuts open, so that it hardly misses one block, while in a plain one every block is on the only
path. The norms keep the statistics of the whole network, as published, unless it is said that they were taken anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from plusx import keyed
from plusx.lab import surgery_told as told
from plusx.lab.chain import (
    Edit,
    blocks,
    deleted,
    dialled,
    keeps_shape,
    shape,
    swapped,
    with_new_statistics,
    wrong,
)
from plusx.lab.laboratory import Lab
from plusx.lab.network import Network
from plusx.lab.photos import Photos, shuffled
from plusx.lab.results import Result, seeds_said
from plusx.models.blocks import Block
from plusx.models.normalise import Normalised

DEPTHS = (56, 20)  # the deeper twins first: they tell more
KINDS = ("resnet", "plain")
COUNTS = (1, 2, 4, 8, 16)  # blocks deleted, or pairs exchanged, at once
DRAWS = 5  # ways to choose them
ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)  # close to 1: factors of many blocks multiply
PHOTOS = 1_000  # of the test, in quick mode; all of them in full
LOOKED_AT = 2_000  # training photos for statistics taken anew


def networks(lab: Lab) -> list[Network]:
    """Twins of two depths under every seed, which `degradation` trains as well."""
    return [Network(f"{kind}{depth}", seed) for depth in DEPTHS for seed in lab.seeds for kind in KINDS]


def run(lab: Lab) -> Result:
    """Train what is not trained, operate on every network, and tell the errors."""
    lab.trained(networks(lab))
    photos = lab.photos("test", None if lab.full else PHOTOS)
    raw: dict[str, list[told.Operated]] = {}
    for network in networks(lab):
        if network.seed in lab.sound(networks(lab)):
            raw.setdefault(network.model, []).append(_measured(lab, network, photos))
    scene = told.Scene(len(photos.labels), len(lab.classes), lab.steps, lab.full)
    return Result(
        name="surgery",
        title="Surgery",
        question="What becomes of a trained network that loses a block, or gets its blocks in another order?",
        conditions=_conditions(lab, len(photos.labels)),
        tables=told.tables(raw),
        figures=told.figures(raw, scene),
        findings=told.findings(raw, scene),
        raw=raw,
    )


def _measured(lab: Lab, network: Network, photos: Photos) -> told.Operated:
    def measure() -> told.Operated:
        lab.tell(f"operating on {network.name}")
        trained, others = lab.load(network), shuffled(lab.photos("train", LOOKED_AT))
        return operate(trained, photos, others, network.seed)

    key = f"{lab.run(network).path.name}-mixed"  # without the word: statistics of batches of one class
    found: told.Operated = lab.remembered(key, measure)
    return found


def operate(network: Normalised, photos: Photos, others: Photos, seed: int) -> told.Operated:
    """The errors on `photos` of a trained network, as it is and after every operation, as JSON values.

    `deleted` has one for each block, `swapped` one for each pair of neighbours (`pairs`) of one shape; `deleted_many`
    and `swapped_many` one for each way of choosing (`DRAWS`) so many; `dial` one for each alpha, `shortcut_cut` one for
    each block of which F(x) alone is left, both empty for a plain network. `renewed` are the same with statistics of
    norms taken anew on `others`, for the first way of choosing.
    """
    found = blocks(network)
    pairs = [(a, b) for a, b in exchangeable(found) if b == a + 1]
    many = several(found, seed)
    alphas = list(ALPHAS) if found[0].has_shortcut else []
    named: dict[str, list[Edit]] = {
        "untouched": [lambda links: links],
        "deleted": [deleted(place) for place in range(len(found))],
        "swapped": [swapped(pair) for pair in pairs],
        "dial": [dialled(alpha) for alpha in alphas],
        "shortcut_cut": [dialled(0.0, [place]) for place in range(len(found)) if alphas],
    }
    errors = _errors(network, named | {f"{kind}_many {n}": many[kind][n] for kind in many for n in many[kind]}, photos)
    return {
        "untouched": errors["untouched"][0],
        "changes_shape": [place for place, block in enumerate(found) if not keeps_shape(block)],
        "pairs": [list(pair) for pair in pairs],
        "alphas": alphas,
        **{name: errors[name] for name in named if name != "untouched"},
        **{f"{kind}_many": {str(n): errors[f"{kind}_many {n}"] for n in many[kind]} for kind in many},
        "renewed": {
            "deleted_many": {str(n): _renewed(network, ways[0], photos, others) for n, ways in many["deleted"].items()},
            "dial": [_renewed(network, edit, photos, others) for edit in named["dial"]],
        },
    }


def exchangeable(found: Sequence[Block]) -> list[tuple[int, int]]:
    """All pairs of blocks that keep the shape of maps of one shape."""
    kept = [(place, shape(block)) for place, block in enumerate(found) if keeps_shape(block)]
    return [(a, b) for (a, one), (b, other) in combinations(kept, 2) if one == other]


def several(found: Sequence[Block], seed: int) -> dict[str, dict[int, list[Edit]]]:
    """Edits that delete so many blocks that keep their shape, or exchange so many pairs, each chosen in DRAWS ways.

    A way is an order of all of them, of which the first so many are taken: more includes fewer.
    """
    kept = [place for place, block in enumerate(found) if keeps_shape(block)]
    pairs = exchangeable(found)
    counts = [count for count in COUNTS if count <= min(len(kept), len(pairs))]
    cut = [[kept[i] for i in keyed.permutation(seed, draw, len(kept), "lab.deleted")] for draw in range(DRAWS)]
    moved = [[pairs[i] for i in keyed.permutation(seed, draw, len(pairs), "lab.swapped")] for draw in range(DRAWS)]
    return {
        "deleted": {count: [deleted(*order[:count]) for order in cut] for count in counts},
        "swapped": {count: [swapped(*order[:count]) for order in moved] for count in counts},
    }


def _errors(network: Normalised, named: Mapping[str, Sequence[Edit]], photos: Photos) -> dict[str, list[float]]:
    """Errors of all edits, by the names of their lists, in one pass over the photos."""
    flat = [edit for edits in named.values() for edit in edits]
    shares = iter([count / len(photos.labels) for count in wrong(network, flat, photos.pixels, photos.labels)])
    return {name: [next(shares) for _ in edits] for name, edits in named.items()}


def _renewed(network: Normalised, edit: Edit, photos: Photos, others: Photos) -> float:
    again = with_new_statistics(network, edit, others.pixels)
    return wrong(again, [edit], photos.pixels, photos.labels)[0] / len(photos.labels)


def _conditions(lab: Lab, tested: int) -> str:
    lost = len(lab.seeds) - len(lab.sound(networks(lab)))
    without = f" {lost} more left out, since a network diverged," if lost else ""
    seeds = seeds_said(len(lab.seeds) - lost)
    return (
        f"Twins of {' and '.join(map(str, sorted(DEPTHS)))} layers, option A, {lab.config.width:g} times the published "
        f"width, trained for {lab.steps:,} steps at {lab.config.size} px, {seeds},{without} "
        f"errors on {tested:,} test photos. Nothing is trained after an operation, and norms keep their statistics. Of "
        "a deleted residual block the shortcut stays, of a plain one nothing; where shapes change, plain ones get the "
        "shortcut of option A, which has no parameters."
    )
