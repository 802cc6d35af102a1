"""Advice in plain words: each piece is one rule over measured numbers, shown beside what it says.

A rule about what was measured speaks only where chance alone would hardly give it: intervals are exact 95 % ones, of
several classes 95 % together. The limits are judgement, not law, and stand in the constants below; a page that has no
advice says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from plusx.metrics import interval, interval95, percent

OVERFIT = 0.03  # training accuracy above that of validation
FEW_PHOTOS = 200  # of a class
FEW_EPOCHS = 20.0
IMBALANCE = 3.0  # the largest class over the smallest
WIDE = 0.05  # an interval from end to end
MISCALIBRATED, ENOUGH_FOR_BINS = 0.05, 300
WORSE = 0.05  # a class below the others
SUSPECT, SUSPECTS = 0.02, 3  # the probability of a given label that is doubted, and how many of them are told
RARE = 0.025


@dataclass(frozen=True)
class Advice:
    """What is the matter, said with its numbers; the rule that found it; what to try."""

    title: str
    said: str
    rule: str
    remedy: str


@dataclass(frozen=True)
class Evidence:
    """The numbers that advice is drawn from; what was not measured is None or empty."""

    figures: Mapping[str, Any] | None = None  # of `plusx.metrics.summary`, the test's where there is one
    ece_by_chance: float | None = None  # that right probabilities exceed in 2.5 % of all cases
    train_accuracy: float | None = None  # mean over the last steps, on augmented photos
    train_photos_seen: int = 0  # behind it
    train_counts: Mapping[str, int] = field(default_factory=dict)  # photos per class
    epochs: float | None = None
    budget: str | None = None  # "--time 10m" or "--epochs 20"
    longer: str | None = None  # the flag that trains twice as long
    validations: tuple[tuple[float, int], ...] = ()  # (accuracy, n), in order
    stopped_early: bool = False
    suspects: int = 0
    suspects_expected: float = 0.0  # if the probabilities were right
    unreadable: int = 0
    data: str = "DATA"


def advise(evidence: Evidence) -> tuple[Advice, ...]:
    """Every rule that speaks, in the order of what it costs to leave it."""
    return tuple(found for rule in RULES if (found := rule(evidence)) is not None)


def over_fitting(e: Evidence) -> Advice | None:
    """The training photos are known by heart: their accuracy lies far above that of photos not trained on."""
    if e.figures is None or e.train_accuracy is None or not e.train_photos_seen:
        return None
    low, _ = interval95(round(e.train_accuracy * e.train_photos_seen), e.train_photos_seen)
    gap, high = e.train_accuracy - e.figures["accuracy"], e.figures["accuracy_ci95"][1]
    if gap <= OVERFIT or low <= high:
        return None
    return Advice(
        "Over-fitting",
        f"At its end the training answered {percent(e.train_accuracy, 1)} of its own photos rightly "
        f"(n = {e.train_photos_seen:,}) and only {percent(e.figures['accuracy'], 1)} of those it was not trained on "
        f"(n = {e.figures['n']:,}).",
        f"Training accuracy more than {percent(OVERFIT, 0)} above, and the intervals do not overlap.",
        "More photos help most. Else try stronger augmentation, --set policy=trivial or --set erasing=0.25, "
        "or start from weights: --weights FILE.",
    )


def few_photos(e: Evidence) -> Advice | None:
    """A class has so few photos to learn from that more of them would help more than anything else."""
    if not e.train_counts:
        return None
    name, n = min(e.train_counts.items(), key=lambda item: item[1])
    if n >= FEW_PHOTOS:
        return None
    return Advice(
        "Few photos",
        f"Class {name} has {n:,} photos to learn from.",
        f"Fewer than {FEW_PHOTOS} training photos in a class.",
        "Add photos of it, or start from a network that has seen others: --weights FILE, or --weights timm:resnet18.",
    )


def too_short(e: Evidence) -> Advice | None:
    """The budget ended while validation was still getting better.

    A rate that falls makes the end the best in any case, so the gain has to be more than the intervals; how much of it
    more time would add, only more time tells.
    """
    seen = e.validations
    if e.epochs is None or e.epochs >= FEW_EPOCHS or e.stopped_early or len(seen) < 2 or e.longer is None:
        return None
    (before, n), (last, m) = seen[max(0, 2 * len(seen) // 3 - 1)], seen[-1]
    if not n or not m or interval95(round(last * m), m)[0] <= interval95(round(before * n), n)[1]:
        return None
    return Advice(
        "Too short",
        f"Each photo was seen {e.epochs:.1f} times ({e.budget}), and in the last third of the training the accuracy on "
        f"validation still rose from {percent(before, 1)} to {percent(last, 1)} (n = {m:,}).",
        f"Fewer than {FEW_EPOCHS:.0f} epochs, not ended by a standstill, and the two intervals do not overlap.",
        f"Train longer: {e.longer}.",
    )


def imbalance(e: Evidence) -> Advice | None:
    """One class has many times the photos of another."""
    if len(e.train_counts) < 2 or min(e.train_counts.values()) == 0:
        return None
    small, large = (pick(e.train_counts.items(), key=lambda item: item[1]) for pick in (min, max))
    if large[1] < IMBALANCE * small[1]:
        return None
    return Advice(
        "Unbalanced classes",
        f"Class {large[0]} has {large[1]:,} training photos and class {small[0]} {small[1]:,}.",
        f"The largest class has at least {IMBALANCE:.0f} times the photos of the smallest.",
        "Show each class equally often: --set sampling=balanced; and judge by the accuracy of each class.",
    )


def one_class_worse(e: Evidence) -> Advice | None:
    """The worst class lies below the others, and not by chance."""
    classes = {n: c for n, c in (e.figures or {}).get("per_class", {}).items() if c["n"]}
    if e.figures is None or len(classes) < 2:
        return None
    name, worst = min(classes.items(), key=lambda item: item[1]["accuracy"])
    others = [c for other, c in classes.items() if other != name]
    n = sum(c["n"] for c in others)
    right = round(sum(c["n"] * c["accuracy"] for c in others))
    level = 0.05 / len(classes)  # the worst of many classes is below the others by chance alone
    high = interval(round(worst["n"] * worst["accuracy"]), worst["n"], level)[1]
    if right / n - worst["accuracy"] <= WORSE or high >= interval(right, n, level)[0]:
        return None
    return Advice(
        f"Class {name} is answered worse",
        f"{percent(worst['accuracy'], 1)} of {name} (n = {worst['n']:,}) and {percent(right / n, 1)} of the rest "
        f"(n = {n:,}) are right; most of its mistakes are taken for {_taken_for(e.figures, name)}.",
        f"More than {percent(WORSE, 0)} below the other classes together, and the intervals do not overlap, "
        f"at a confidence of {percent(1 - level)} each.",
        f"Look at its mistakes below, and at its photos with plusx check {e.data}; more photos of it help.",
    )


def label_suspects(e: Evidence) -> Advice | None:
    """Several photos whose given label the network all but excludes."""
    from scipy.stats import poisson

    if e.suspects < SUSPECTS or poisson.sf(e.suspects - 1, e.suspects_expected) >= RARE:
        return None
    return Advice(
        "Labels to look at",
        f"{e.suspects:,} photos have a label that the network gives less than {percent(SUSPECT, 0)}; "
        f"were its probabilities right, there would be {e.suspects_expected:.1f}.",
        f"At least {SUSPECTS} such photos, and more than chance would give in {percent(1 - RARE, 1)} of all cases.",
        f"Look at them below; plusx check {e.data} --labels looks through the training photos as well.",
    )


def uncertain_figure(e: Evidence) -> Advice | None:
    """So few photos were tested that the accuracy is known only roughly."""
    if e.figures is None:
        return None
    low, high = e.figures["accuracy_ci95"]
    if high - low <= WIDE:
        return None
    return Advice(
        "An uncertain figure",
        f"With n = {e.figures['n']:,} photos the accuracy may be from {percent(low, 1)} to {percent(high, 1)}.",
        f"The 95 % interval is wider than {percent(WIDE, 0)}.",
        "Test on more photos: plusx evaluate RUN MORE-DATA, or give a larger share with --split 60/20/20.",
    )


def miscalibrated(e: Evidence) -> Advice | None:
    """Probabilities do not mean what they say."""
    if e.figures is None or e.ece_by_chance is None or e.figures["n"] < ENOUGH_FOR_BINS:
        return None
    if e.figures["ece"] <= max(MISCALIBRATED, e.ece_by_chance):
        return None
    return Advice(
        "Probabilities are off",
        f"Probabilities differ from the share that is right by {percent(e.figures['ece'], 1)} on average "
        f"(n = {e.figures['n']:,}); were they right, chance would make that up to {percent(e.ece_by_chance, 1)}.",
        f"Expected calibration error above {percent(MISCALIBRATED, 0)} and above what right probabilities show in "
        f"97.5 % of all cases, with at least {ENOUGH_FOR_BINS} photos.",
        "Take them for an order, not for chances; more validation photos help to mend them: --split 75/15/10.",
    )


def unreadable(e: Evidence) -> Advice | None:
    """Photos that nothing could be learned from."""
    if not e.unreadable:
        return None
    return Advice(
        "Photos that cannot be read",
        f"Photos that were left out: {e.unreadable:,}.",
        "At least one.",
        f"plusx check {e.data} names every one with its reason.",
    )


def _taken_for(figures: Mapping[str, Any], name: str) -> str:
    classes = list(figures["classes"])
    row = list(figures["confusion"][classes.index(name)])
    row[classes.index(name)] = -1
    return str(classes[row.index(max(row))])


RULES: tuple[Callable[[Evidence], Advice | None], ...] = (
    unreadable,
    label_suspects,
    over_fitting,
    few_photos,
    imbalance,
    too_short,
    one_class_worse,
    miscalibrated,
    uncertain_figure,
)
