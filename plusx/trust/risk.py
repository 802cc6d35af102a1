"""Selective risk control: below which probability an answer should be "unsure", so that the others hold a risk.

For every predicted class the threshold is the lowest of an ordered list whose one-sided 95 % Clopper-Pearson bound on
the error of what is still answered is at most the risk. Taking the lowest of many that pass would not hold at 95 %.
So thresholds and their order come from one half of validation and are tested in that order on the other, up to the
first that fails: fixed-sequence testing (Angelopoulos et al. 2021, Learn then Test, arXiv 2110.01052, section 3; the
same question with a Bonferroni correction: Geifman and El-Yaniv 2017, arXiv 1705.08500). Each test is exact: given
the threshold, the errors among the n answers at or above it are binomial. docs/decisions/0013-unsure.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from plusx.metrics import Labels, Probabilities

CONFIDENCE = 0.95
RISKS = (0.01, 0.02, 0.05, 0.10)  # what "auto" chooses from
ENOUGH = 1.5  # times the fewest answers with which a risk could be shown at all
LIKELY = 0.7  # chance, by the half that chooses, with which every class should get a threshold
STEPS = 50  # thresholds in the list of a class
FIRST = 1.1  # times the fewest answers, where the list begins: the other half may have a few less
NAMED = 3  # how many classes without a threshold a sentence gives the reasons of
NEAR = 0.95  # of the best chance to pass; the strictest threshold that has it comes first

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ClassThreshold:
    """Of `n` answers that named this class, `answered` were at or above the threshold, `errors` of these wrong.

    With threshold None nothing is refused.
    """

    name: str
    threshold: float | None
    n: int
    answered: int
    errors: int


@dataclass(frozen=True)
class Thresholds:
    """Thresholds on calibrated probabilities by class, and what they did to the `n` photos they were tested on."""

    risk: float
    confidence: float
    n: int
    coverage: float
    classes: tuple[ClassThreshold, ...]
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As the model file holds it."""
        return asdict(self) | {"classes": [asdict(one) for one in self.classes]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Thresholds:
        """What `to_json` gave. Raises TypeError or KeyError for anything else."""
        return cls(**{**values, "classes": tuple(ClassThreshold(**one) for one in values["classes"])})

    def lowest(self) -> Floats:
        """The probability from which on each class is answered, [C]; 0 where nothing is refused."""
        return np.array([one.threshold or 0.0 for one in self.classes], dtype=np.float64)


@dataclass(frozen=True)
class Answers:
    """Calibrated answers: the class named, its probability, and whether it is wrong; [N] each."""

    named: Counts
    top: Floats
    wrong: Flags

    @classmethod
    def of(cls, probabilities: Probabilities, labels: Labels) -> Answers:
        """From probabilities [N, C] and labels [N]."""
        named = probabilities.argmax(axis=1)
        return cls(named, probabilities.max(axis=1).astype(np.float64), named != labels)

    def of_class(self, label: int) -> Answers:
        """The answers that name one class."""
        mine = self.named == label
        return Answers(self.named[mine], self.top[mine], self.wrong[mine])


def fit_thresholds(chosen: Answers, held: Answers, classes: Sequence[str], risk: float | Literal["auto"]) -> Thresholds:
    """Thresholds for `risk`: listed and ordered by the answers that are `chosen` for that, tested on those `held` back.

    The guarantee is for each class alone: over repeated draws of `held` the true error of what is answered as this
    class is above `risk` in at most 5 % of them.
    """
    pairs = [(chosen.of_class(label), held.of_class(label)) for label in range(len(classes))]
    asked = auto_risk([(mine, len(others.top)) for mine, others in pairs]) if risk == "auto" else risk
    found = [_threshold(name, *pair, asked) for name, pair in zip(classes, pairs, strict=True)]
    coverage = sum(one.answered for one in found) / len(held.top) if len(held.top) else 1.0
    return Thresholds(asked, CONFIDENCE, len(held.top), coverage, tuple(found), _note(found, asked))


def auto_risk(classes: Sequence[tuple[Answers, int]]) -> float:
    """The smallest of RISKS that every class can probably show, by its chosen answers and how many are held back.

    The errors of those held back are not looked at: a risk that was chosen by them would not hold.
    """
    for risk in RISKS:
        many = all(n >= ENOUGH * needed(risk) for _, n in classes)
        if many and all(_listed(chosen, n, risk)[1] >= LIKELY for chosen, n in classes):
            return risk
    return RISKS[-1]


def needed(risk: float) -> int:
    """Answers without a single error that it takes to show a risk: the least n with (1 - risk)^n <= 5 %."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-risk))


def upper_bound(errors: int, n: int) -> float:
    """One-sided 95 % upper bound on an error rate (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    return float(beta.ppf(CONFIDENCE, errors + 1, n - errors)) if errors < n else 1.0


def most_errors(n: Counts, risk: float) -> Counts:
    """How many errors among `n` answers still bound the error by `risk`, elementwise; -1 where none do."""
    from scipy.stats import binom

    level = 1 - CONFIDENCE  # the bound is at most the risk where so few errors have at most this probability
    most = np.asarray(binom.ppf(level, n, risk)).astype(np.int64)
    return np.where(binom.cdf(most, n, risk) <= level, most, most - 1)


def _threshold(name: str, chosen: Answers, held: Answers, risk: float) -> ClassThreshold:
    listed, _ = _listed(chosen, len(held.top), risk)
    answered = np.array([int((held.top >= t).sum()) for t in listed], dtype=np.int64)
    errors = np.array([int(held.wrong[held.top >= t].sum()) for t in listed], dtype=np.int64)
    passed = int(np.logical_and.accumulate(errors <= most_errors(answered, risk)).sum())
    if not passed:
        return ClassThreshold(name, None, len(held.top), len(held.top), int(held.wrong.sum()))
    last = passed - 1
    return ClassThreshold(name, float(listed[last]), len(held.top), int(answered[last]), int(errors[last]))


def _listed(chosen: Answers, n: int, risk: float) -> tuple[Floats, float]:
    """The thresholds in the order of their tests, and how likely the best of them is to pass.

    From the first one that is likely to pass down to answering all; `n` is how many answers they will be tested on.
    Where to begin is a guess by the chosen answers: it may cost coverage, and never the guarantee.
    """
    fewest = math.ceil(FIRST * needed(risk))
    if n <= fewest or not len(chosen.top):
        return np.zeros(1), 0.0
    order = np.argsort(-chosen.top, kind="stable")
    kept = np.unique(np.linspace(fewest, n, STEPS).round().astype(np.int64))  # answers there should be at each
    ranks = np.maximum(1, (kept * len(order) / n).round().astype(np.int64))
    errors = np.cumsum(chosen.wrong[order])[ranks - 1]
    chances = _chances(errors, ranks, kept, risk)
    first = int((chances >= NEAR * chances.max()).argmax())
    return np.append(chosen.top[order][ranks[first:-1] - 1], 0.0), float(chances.max())


def _chances(errors: Counts, ranks: Counts, kept: Counts, risk: float) -> Floats:
    """How likely each threshold is to pass with `kept` answers, by the `errors` among `ranks` others.

    Beta-binomial: the error rate has a beta law from the errors seen, one more added since we look for the best.
    """
    from scipy.stats import betabinom

    most = most_errors(kept, risk)
    return np.asarray(betabinom.cdf(most, kept, errors + 1.0, ranks - errors + 0.5), dtype=np.float64)


def _note(found: Sequence[ClassThreshold], risk: float) -> str | None:
    """Why some classes have no threshold; None where all have one."""
    without = [one for one in found if one.threshold is None]
    if not without:
        return None
    reasons = [_reason(one, needed(risk)) for one in without[:NAMED]]
    more = f", and {len(without) - NAMED:,} other classes" if len(without) > NAMED else ""
    what = f"No threshold can hold a risk of {share(risk)}, so nothing is refused, for {', '.join(reasons)}{more}."
    return f"{what} More validation photos or a higher --risk would help."


def _reason(one: ClassThreshold, fewest: int) -> str:
    if one.n < fewest:
        return f"{one.name} ({one.n:,} answers to test on; {fewest:,} are needed at least)"
    wrong = f"{one.errors:,} of {one.n:,} answers are wrong, too many of the surest among them"
    return f"{one.name} ({wrong}; {fewest:,} without an error are needed at least)"


def share(risk: float) -> str:
    """A risk as people write it."""
    return f"{100 * risk:g} %"
