"""Thresholds that hold a risk: the guarantee over many draws, and what happens where there can be none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom, binomtest

from plusx.trust.risk import Answers, Thresholds, auto_risk, fit_thresholds, most_errors, needed, upper_bound

CLASSES = ("cat", "dog")
DRAWS = 400
Flags = npt.NDArray[np.bool_]


def drawn(random: np.random.Generator, n: int, noise: float = 0.003) -> Answers:
    """Answers of a good network: errors grow as probability falls, and a few labels are wrong however sure it is."""
    top = 1 / (1 + np.exp(-np.abs(random.normal(6.0, 3.0, n))))
    wrong = (random.random(n) < 1 - top) | (random.random(n) < noise)
    return Answers(random.integers(0, 2, n), top, wrong)


def flat(random: np.random.Generator, n: int, error: float) -> Answers:
    """Answers whose probability says nothing: whatever is kept errs alike."""
    return Answers(random.integers(0, 2, n), random.uniform(0.5, 1, n), random.random(n) < error)


def lowest_within(held: Answers, risk: float) -> float:
    """The negative control: the lowest threshold that keeps the risk on the answers at hand, without any bound."""
    order = np.argsort(-held.top)
    good = np.flatnonzero(np.cumsum(held.wrong[order]) <= risk * np.arange(1, len(order) + 1))
    return float(held.top[order][good[-1]]) if len(good) else 1.0


def lowest_bounded(held: Answers, risk: float) -> float:
    """The other control: the lowest threshold that passes its test, of all those that were tried."""
    order = np.argsort(-held.top)
    counts = np.arange(1, len(order) + 1)
    good = np.flatnonzero(np.cumsum(held.wrong[order]) <= most_errors(counts, risk))
    return float(held.top[order][good[-1]]) if len(good) else 1.0


class World:
    """Very many answers of one class, and the error among them from any threshold on."""

    def __init__(self, answers: Answers) -> None:
        order = np.argsort(-answers.top)
        self.top, self.wrong = -answers.top[order], np.cumsum(answers.wrong[order])

    def error(self, threshold: float) -> float:
        kept = int(np.searchsorted(self.top, -threshold, side="right"))
        return float(self.wrong[kept - 1] / kept) if kept else 0.0


def most_exceeded(draws: int) -> int:
    """How often 5 % of draws can be exceeded by chance alone, up to one in a thousand."""
    return int(binom.ppf(0.999, draws, 0.05))


@pytest.mark.parametrize(("n", "risk"), [(1000, 0.02), (2000, 0.01), (400, 0.02)])
def test_the_risk_is_exceeded_in_at_most_five_percent_of_draws_and_without_the_bound_much_more_often(
    n: int, risk: float
) -> None:
    random = np.random.default_rng(1)
    world = World(drawn(random, 400_000).of_class(0))
    exceeded = without = passed = 0
    for _ in range(DRAWS):
        chosen, held = drawn(random, n), drawn(random, n)
        cat = fit_thresholds(chosen, held, CLASSES, risk).classes[0]
        if cat.threshold is not None:
            passed += 1
            exceeded += world.error(cat.threshold) > risk
        without += world.error(lowest_within(held.of_class(0), risk)) > risk
    assert exceeded <= most_exceeded(DRAWS)
    assert without > 4 * most_exceeded(DRAWS)
    assert passed > DRAWS / 20


def test_it_holds_where_probabilities_say_nothing_and_the_lowest_that_passes_does_not() -> None:
    random, risk = np.random.default_rng(2), 0.05
    exceeded = lowest = 0
    for _ in range(DRAWS):
        chosen, held = flat(random, 2000, risk * 1.01), flat(random, 2000, risk * 1.01)
        exceeded += fit_thresholds(chosen, held, CLASSES, risk).classes[0].threshold is not None
        lowest += lowest_bounded(held.of_class(0), risk) < 1
    assert exceeded <= most_exceeded(DRAWS)
    assert lowest > 2 * most_exceeded(DRAWS)


@pytest.mark.parametrize(("errors", "n"), [(0, 59), (0, 298), (3, 100), (10, 10), (250, 5000)])
def test_the_bound_is_scipys_clopper_and_pearson(errors: int, n: int) -> None:
    theirs = binomtest(errors, n, alternative="less").proportion_ci(0.95, method="exact").high
    assert upper_bound(errors, n) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("risk", [0.005, 0.01, 0.02, 0.05, 0.1])
def test_so_many_errors_pass_as_the_bound_allows(risk: float) -> None:
    counts = np.arange(0, 1200, 7)
    for n, most in zip(counts.tolist(), most_errors(counts, risk).tolist(), strict=True):
        assert most < 0 or upper_bound(most, n) <= risk
        assert upper_bound(most + 1, n) > risk
    fewest = needed(risk)
    assert most_errors(np.array([fewest - 1, fewest]), risk).tolist() == [-1, 0]


def test_a_class_with_too_few_answers_has_no_threshold_and_a_sentence_says_so() -> None:
    random = np.random.default_rng(3)
    chosen, held = drawn(random, 100), drawn(random, 100)
    found = fit_thresholds(chosen, held, CLASSES, 0.01)
    cats, dogs = (len(held.of_class(i).top) for i in (0, 1))
    assert [one.threshold for one in found.classes] == [None, None]
    assert found.lowest().tolist() == [0.0, 0.0]
    assert found.coverage == 1.0
    assert found.note == (
        f"No threshold can hold a risk of 1 %, so nothing is refused, for cat ({cats} answers to test on; 299 are "
        f"needed at least), dog ({dogs} answers to test on; 299 are needed at least). More validation photos or a "
        "higher --risk would help."
    )


def test_a_class_that_errs_too_often_has_no_threshold_either() -> None:
    random = np.random.default_rng(4)
    held = flat(random, 2000, 0.3)
    found = fit_thresholds(flat(random, 2000, 0.3), held, ("cat", "dog"), 0.02)
    cat = found.classes[0]
    assert (cat.threshold, cat.answered, cat.errors) == (None, cat.n, int(held.of_class(0).wrong.sum()))
    assert f"cat ({cat.errors} of {cat.n} answers are wrong, too many of the surest among them; 149 " in str(found.note)


def test_many_classes_without_a_threshold_are_counted() -> None:
    names = [f"c{i}" for i in range(5)]
    empty = Answers(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0, dtype=bool))
    found = fit_thresholds(empty, empty, names, "auto")
    assert (found.n, found.coverage, found.risk) == (0, 1.0, 0.1)
    assert "c2 (0 answers to test on; 29 are needed at least), and 2 other classes. More" in str(found.note)


def test_a_network_that_never_errs_answers_everything() -> None:
    random = np.random.default_rng(5)
    found = fit_thresholds(flat(random, 1000, 0.0), flat(random, 1000, 0.0), CLASSES, 0.01)
    assert [one.threshold for one in found.classes] == [0.0, 0.0]
    assert (found.coverage, found.note) == (1.0, None)


def test_the_counts_are_those_of_the_answers_at_or_above_the_threshold() -> None:
    random = np.random.default_rng(6)
    held = drawn(random, 2000)
    found = fit_thresholds(drawn(random, 2000), held, CLASSES, 0.02)
    for label, one in enumerate(found.classes):
        mine = held.of_class(label)
        assert one.threshold is not None
        kept = mine.top >= one.threshold
        assert (one.n, one.answered, one.errors) == (len(kept), int(kept.sum()), int(mine.wrong[kept].sum()))
        assert upper_bound(one.errors, one.answered) <= 0.02
        assert one.answered < one.n
    assert found.coverage == sum(one.answered for one in found.classes) / 2000
    assert Thresholds.from_json(found.to_json()) == found


def test_the_risk_left_open_follows_the_answers_at_hand_and_never_the_errors_it_is_tested_on() -> None:
    random = np.random.default_rng(7)
    good, poor = flat(random, 4000, 0.0), flat(random, 4000, 0.03)
    for n, expected in ((449, 0.01), (448, 0.02), (224, 0.02), (223, 0.05), (89, 0.05), (88, 0.1), (3, 0.1)):
        assert auto_risk([(good, n), (good, 1000)]) == expected
    assert auto_risk([(good, 1000), (poor, 1000)]) == 0.05
    chosen, held = drawn(random, 2000), drawn(random, 2000)
    worse = Answers(held.named, held.top, np.ones(2000, dtype=bool))
    assert fit_thresholds(chosen, held, CLASSES, "auto").risk == fit_thresholds(chosen, worse, CLASSES, "auto").risk


def test_a_few_wrong_labels_at_the_very_top_do_not_cost_everything() -> None:
    random, given = np.random.default_rng(8), 0
    for _ in range(50):
        chosen, held = (drawn(random, 4000, noise=0.003) for _ in range(2))
        given += all(one.threshold is not None for one in fit_thresholds(chosen, held, CLASSES, 0.02).classes)
    assert given >= 40
