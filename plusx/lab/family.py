"""The family: AlexNet, VGG-16, plain-34 and ResNets on the same photos, at equal time and at equal epochs.

Each has the rate its registry entry names and otherwise the fast recipe, at one size of pixels, from scratch; only
plain-34 has the rate of ResNet-34, whose twin it is: they differ by the shortcut alone. Networks that are compared at
equal time are trained one at a time, for they need the machine for themselves; those of equal epochs side by side.
Nothing is chosen on the test photos: the last weights answer, by the views of the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

from plusx.durable import Log
from plusx.lab import family_told as told
from plusx.lab.conduct import Size
from plusx.lab.family_told import Family, Member, Trained
from plusx.lab.laboratory import Lab
from plusx.lab.network import Network
from plusx.lab.photos import Amount
from plusx.lab.results import Result, seeds_said
from plusx.recipes.plan import read_plan
from plusx.verbs.answers import read_answers
from plusx.verbs.network import forward_flops, with_default_rate

NAMES = ("alexnet", "vgg16", "plain34", "resnet18", "resnet34", "resnet50")
SECONDS, FULL_SECONDS = 45.0, 900.0  # of each network at equal time
EPOCHS, FULL_EPOCHS = 12, 60
PLAIN, TWIN = "plain34", "resnet34"
ZERO_PADDED = ("resnet18", TWIN)  # as in table 2 of He et al. 2015: no parameter that a plain network lacks
# A named model keeps its own stem and rate.
_FLAGS: dict[str, Any] = {
    "recipe": "fast",
    "model": "resnet18",
    "sizes": (),
    "max_epochs": 100_000,
    "log_every": 10,
}
QUICK = Size({**_FLAGS, "size": 64, "width": 0.25}, Amount(5_000, 1_000), seeds=1)
FULL = Size({**_FLAGS, "size": 128}, Amount(), seeds=1)


def networks(lab: Lab) -> list[Network]:
    """Every network at equal epochs, then every one at equal time, under every seed."""
    return [_network(lab, name, seed, timed) for timed in (False, True) for seed in lab.seeds for name in NAMES]


def _network(lab: Lab, name: str, seed: int, timed: bool) -> Network:
    settings = _settings(lab, name)
    if timed:
        return Network(name, seed, settings, time=FULL_SECONDS if lab.full else SECONDS)
    return Network(name, seed, settings, epochs=FULL_EPOCHS if lab.full else EPOCHS)


def _settings(lab: Lab, name: str) -> tuple[tuple[str, Any], ...]:
    """What makes twins of plain-34 and ResNet-34: shortcuts without parameters, and one rate."""
    if name == PLAIN:
        return (("learning_rate", _rate(lab, Network(TWIN))),)
    return (("shortcut", "identity"),) if name in ZERO_PADDED else ()


def _rate(lab: Lab, network: Network) -> float:
    """The rate it is trained with: its own, or that of the registry, which the optimiser may scale."""
    rate = with_default_rate(network.config(lab.config)).learning_rate
    assert rate is not None, "it was just filled in"
    return rate


def run(lab: Lab) -> Result:
    """Train all of them, and lay what they answered beside what they cost."""
    lab.trained(networks(lab))
    family = Family(
        tuple(_member(lab, name) for name in NAMES),
        epochs=FULL_EPOCHS if lab.full else EPOCHS,
        seconds=FULL_SECONDS if lab.full else SECONDS,
        size=lab.config.size,
        full=lab.full,
    )
    return Result(
        name="family",
        title="The family",
        question="What do AlexNet, VGG, plain and residual networks make of the same photos and the same time?",
        conditions=_conditions(lab),
        tables=told.tables(family),
        figures=told.figures(family),
        findings=told.findings(family),
        raw={member.name: _raw(member) for member in family.members},
    )


def _member(lab: Lab, name: str) -> Member:
    by_epochs, by_time = (
        tuple(_trained(lab, _network(lab, name, seed, timed)) for seed in lab.seeds) for timed in (False, True)
    )
    network = _network(lab, name, lab.seeds[0], timed=False)
    return Member(
        name=name,
        parameters=sum(p.numel() for p in lab.build(network).parameters()),
        operations=forward_flops(network.config(lab.config), len(lab.classes), lab.config.size),
        rate=_rate(lab, network),
        speed=median(_speed(lab, _network(lab, name, seed, timed=True)) for seed in lab.seeds),
        by_epochs=by_epochs,
        by_time=by_time,
    )


def _trained(lab: Lab, network: Network) -> Trained:
    """What a run answered; one that diverged answers nothing rightly that guessing would not."""
    run = lab.run(network)
    plan = read_plan(run.plan)
    step = lab.diverged(network)
    epochs = (plan.last_step if step is None else step) / plan.steps_per_epoch
    if step is not None:
        return Trained(epochs, None, None, len(lab.classes))
    answered = read_answers(run.validation_answers)
    assert answered is not None, "a finished run has answered the test photos"
    training = [row["accuracy"] for row in lab.history(network) if "accuracy" in row]
    return Trained(epochs, tuple((~answered.wrong).tolist()), training[-1], len(lab.classes))


def _speed(lab: Lab, network: Network) -> float:
    """Photos trained on a second, of a network that had the machine for itself; the first steps are slower."""
    rows = [row["images_per_second"] for row in Log(lab.run(network).path / "timing.jsonl").records()]
    return float(median(rows[1:] or rows or [0.0]))


def _conditions(lab: Lab) -> str:
    config, counts = lab.config, lab.counts
    epochs, seconds = (FULL_EPOCHS, FULL_SECONDS) if lab.full else (EPOCHS, SECONDS)
    return (
        f"{counts['train']:,} training and {counts['test']:,} test photos of {len(lab.classes)} classes at "
        f"{config.size} px, from scratch; networks of {config.width:g} times the published width; the fast recipe with "
        "each network's own rate, but plain-34 with that of ResNet-34, its twin but for the shortcut; ResNet-18 and "
        f"ResNet-34 with zero-padded shortcuts, ResNet-50 with projections; {epochs} epochs each, and {seconds:g} "
        f"seconds each with the machine for itself, on {lab.device.type}; {seeds_said(len(lab.seeds))}; the last "
        f"weights answer by {len(config.views)} views."
    )


def _raw(member: Member) -> Mapping[str, Any]:
    values = asdict(member)
    for budget in ("by_epochs", "by_time"):
        values[budget] = [_without_photos(one) for one in getattr(member, budget)]
    return values


def _without_photos(trained: Trained) -> Mapping[str, Any]:
    return {
        "epochs": trained.epochs,
        "accuracy": trained.accuracy,
        "accuracy_ci95": list(trained.interval) if trained.interval else None,
        "n": trained.n,
        "training_accuracy": trained.training_accuracy,
        "diverged": trained.right is None,
    }
