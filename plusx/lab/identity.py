"""Identity: a residual block whose branch is zero passes its input on, so a trained network is made deeper for nothing.

He et al. 2015 (arXiv 1512.03385, section 1) argue that a deeper network can be no worse, since there is a solution by
construction: copy the shallower one and let the layers added be the identity. With shortcuts it is where zero weights
are; Goyal et al. 2017 (arXiv 1706.02677, section 5.1) begin training there. Plain networks have it too, elsewhere.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from plusx import model_file
from plusx.durable import make_folder
from plusx.lab import growth
from plusx.lab import identity_told as told
from plusx.lab.answers import error_and_loss, logits
from plusx.lab.chain import blocks, keeps_shape, with_new_statistics
from plusx.lab.growth import Sameness
from plusx.lab.laboratory import Lab
from plusx.lab.network import Network
from plusx.lab.photos import Photos, shuffled
from plusx.lab.results import Result, seeds_said
from plusx.model_file import ModelFile
from plusx.models.blocks import Block
from plusx.models.normalise import Normalised
from plusx.models.resnet import ResNet
from plusx.verbs import start
from plusx.verbs.weights import as_arrays

SHALLOW, DEEP = 20, 56
KINDS = ("resnet", "plain")
SHARE = 4  # training goes on for a quarter of the steps
LOOKED_AT = 2_000  # training photos on which error and loss are measured
SEEN = 250  # test photos whose maps go through single blocks


@dataclass(frozen=True)
class Way:
    """How training goes on: the network, from which weights, and departures; `name` as in tables."""

    name: str
    model: str
    settings: tuple[tuple[str, Any], ...] = ()


KEPT_RESIDUAL = Way("residual, as it was", f"resnet{SHALLOW}")
GROWN_RESIDUAL = Way("residual, zero branches added", f"resnet{DEEP}", (("zero_init_residual", True),))
KEPT_PLAIN = Way("plain, as it was", f"plain{SHALLOW}")
FRESH_PLAIN = Way("plain, fresh blocks added", f"plain{DEEP}")
BUILT_PLAIN = Way("plain, blocks built by hand", f"plain{DEEP}")
WAYS = (KEPT_RESIDUAL, GROWN_RESIDUAL, KEPT_PLAIN, FRESH_PLAIN, BUILT_PLAIN)
OWN_FILES = (FRESH_PLAIN, BUILT_PLAIN)  # plusx train itself refuses weights that are so small a part of a network


def networks(lab: Lab) -> list[Network]:
    """Twins from scratch, which `degradation` trains as well, and those that go on from the shallower ones."""
    return [*from_scratch(lab), *(going_on(lab, way, seed) for seed in lab.seeds for way in WAYS)]


def from_scratch(lab: Lab) -> list[Network]:
    """Shallow and deep twins under every seed."""
    return [Network(f"{kind}{depth}", seed) for depth in (SHALLOW, DEEP) for seed in lab.seeds for kind in KINDS]


def going_on(lab: Lab, way: Way, seed: int) -> Network:
    """The network of a way: its weights are the run of the shallower one, or a file that is made of it."""
    weights = _file(lab, way, seed) if way in OWN_FILES else lab.run(_shallow(way, seed)).path
    on = (("weights", str(weights)), *way.settings, ("learning_rate", rate(lab)), ("log_every", 10))
    return Network(way.model, seed, on, steps=max(1, lab.steps // SHARE))


def rate(lab: Lab) -> float:
    """The rate with which training goes on, a tenth of that from scratch; it falls as there."""
    assert lab.config.learning_rate is not None, "the recipe of the lab names one"
    return lab.config.learning_rate / 10


def run(lab: Lab) -> Result:
    """Look at blocks, make networks deeper, train on, and tell what came of it."""
    lab.trained(from_scratch(lab))
    for seed in lab.sound(from_scratch(lab)):
        for way in OWN_FILES:
            _write_start(lab, way, seed)
    seeds = lab.sound(from_scratch(lab))
    lab.trained([going_on(lab, way, seed) for seed in seeds for way in WAYS])
    raw: dict[str, Any] = {
        "blocks": _blocks(lab, seeds),
        "scratch": {network.model: [] for network in from_scratch(lab)},
        "ways": {way.name: [_course(lab, way, seed) for seed in seeds] for way in WAYS},
    }
    for network in from_scratch(lab):
        if network.seed in seeds:
            raw["scratch"][network.model].append(_looked_at(lab, network))
    scene = told.Scene(lab.steps, max(1, lab.steps // SHARE), lab.full, len(lab.photos("test").labels), SHALLOW, DEEP)
    return Result(
        name="identity",
        title="Identity",
        question="Can a network be made deeper without becoming worse, and why can a plain one not?",
        conditions=_conditions(lab, seeds),
        tables=told.tables(raw),
        figures=told.figures(raw),
        findings=told.findings(raw, scene),
        raw=raw,
    )


def _shallow(way: Way, seed: int) -> Network:
    kind = way.model.removesuffix(str(DEEP)).removesuffix(str(SHALLOW))
    return Network(f"{kind}{SHALLOW}", seed)


def _file(lab: Lab, way: Way, seed: int) -> Path:
    built = "built" if way is BUILT_PLAIN else "fresh"
    return lab.folder / "starts" / f"{lab.run(_shallow(way, seed)).path.name}-{built}.safetensors"


def _write_start(lab: Lab, way: Way, seed: int) -> None:
    """The model file from which a plain network goes on: the shallower one's tensors, and those of the blocks added."""
    path = _file(lab, way, seed)
    if path.exists():
        return
    shallow, deep = lab.load(_shallow(way, seed)), lab.build(Network(way.model, seed))
    if way is BUILT_PLAIN:
        growth.construct_(deep, shallow, lab.photos("train", LOOKED_AT).pixels)
    else:
        growth.lay_in_(deep, shallow)
    header = model_file.read_header(lab.run(_shallow(way, seed)).model)
    header = replace(header, network={**header.network, "name": way.model})
    make_folder(path.parent)
    model_file.save(path, ModelFile(header, as_arrays(deep)))


def _begun(lab: Lab, way: Way, seed: int) -> Normalised:
    """A network before its first step, as training makes it; fresh blocks get statistics of what reaches them.

    Those they have are of nothing, so that answers would tell of the norms. Zero branches need none: they stay as they
    are, and so does the function, bit for bit; those built by hand have theirs.
    """
    network = going_on(lab, way, seed)
    made, settings = lab.build(network), dict(network.settings)
    start.load(made, start.find(settings["weights"]), lab.classes, network.model)
    if way is not FRESH_PLAIN:
        return made.eval()
    return with_new_statistics(made, lambda links: links, shuffled(lab.photos("train", LOOKED_AT)).pixels)


def _course(lab: Lab, way: Way, seed: int) -> dict[str, Any]:
    """One training from its start to its end: how the start differs from the shallower network, losses, errors."""
    network = going_on(lab, way, seed)

    def measure() -> dict[str, Any]:
        lab.tell(f"measuring {way.name}, seed {seed}")
        test, begun = lab.photos("test"), _begun(lab, way, seed)
        before, after = logits(lab.load(_shallow(way, seed)), test), logits(begun, test)
        return {
            "bit_equal": torch.equal(before, after),
            "largest_difference": float((before - after).abs().max()),
            "same_answers": float((before.argmax(1) == after.argmax(1)).double().mean()),
            "start": _answers(lab, begun),
            "end": _answers(lab, lab.load(network)),
        }

    losses = [[row["step"], row["loss"]] for row in lab.history(network) if "loss" in row]
    anew = "-statistics-anew" if way is FRESH_PLAIN else ""
    return {**lab.remembered(f"{lab.run(network).path.name}{anew}", measure), "losses": losses}


def _looked_at(lab: Lab, network: Network) -> dict[str, float]:
    found: dict[str, float] = lab.remembered(lab.run(network).path.name, lambda: _answers(lab, lab.load(network)))
    return found


def _answers(lab: Lab, network: Normalised) -> dict[str, float]:
    error, loss = error_and_loss(network, lab.photos("train", LOOKED_AT))
    tested, _ = error_and_loss(network, lab.photos("test"))
    return {"training_error": error, "training_loss": loss, "test_error": tested}


def _blocks(lab: Lab, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """What is known of these seeds is not measured again; of others it would say something else."""
    key = f"blocks-{'-'.join(map(str, seeds))}"
    found: dict[str, dict[str, Any]] = lab.remembered(key, lambda: _measured_blocks(lab, seeds))
    return found


def _measured_blocks(lab: Lab, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """What single blocks of the shallow twins make of maps that reach them, over all blocks and seeds."""
    photos = lab.photos("test", SEEN)
    nothing = Sameness(0, 0, 0, 0.0)
    found = dict.fromkeys(told.BLOCKS, nothing)
    for seed in seeds:
        residual, plain = (lab.load(Network(f"{kind}{SHALLOW}", seed)) for kind in KINDS)
        for block, maps in arriving(residual, photos):
            growth.silence_(block)
            found["residual"] += growth.sameness(block, maps)
            found["signed"] += growth.sameness(block, maps - maps.mean())
        for block, maps in arriving(plain, photos):
            growth.silence_(block)
            found["plain"] += growth.sameness(block, maps)
            none = maps.new_zeros(maps.shape[1])
            growth.pass_on_(block, none, none + 1 - block.last_norm.eps)
            found["built"] += growth.sameness(block, maps)
    return {name: asdict(sameness) for name, sameness in found.items()}


@torch.no_grad()
def arriving(network: Normalised, photos: Photos) -> list[tuple[Block, Tensor]]:
    """A copy of every block that keeps the shape of maps, and the maps [n, C, h, w] of photos that reach it."""
    maps, found = cast(ResNet, network.network).stem(network.normalise(photos.pixels)), []
    for block in blocks(network):
        if keeps_shape(block):
            found.append((copy.deepcopy(block), maps))
        maps = block(maps)
    return found


def _conditions(lab: Lab, seeds: Sequence[int]) -> str:
    lost = len(lab.seeds) - len(seeds)
    without = f" ({lost} more left out, since a network diverged)" if lost else ""
    return (
        f"Twins of {SHALLOW} layers, option A, {lab.config.width:g} times the published width, trained for "
        f"{lab.steps:,} steps at {lab.config.size} px; then made {DEEP} layers deep by six blocks at the end of every "
        f"stage, and trained on for {max(1, lab.steps // SHARE):,} steps from rate {rate(lab):g}, beside the same "
        f"twins trained on as they were; {seeds_said(len(seeds))}{without}; training error and loss on "
        f"{len(lab.photos('train', LOOKED_AT).labels):,} training photos as they are, without augmentation."
    )
