"""Each rule of advice speaks where its numbers say so, and is silent where they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from plusx.metrics import expected_calibration_error, interval95
from plusx.report import advice
from plusx.report.advice import MISCALIBRATED, Evidence, advise, miscalibrated, one_class_worse
from plusx.trust.calibration import error_by_chance


def figures(right: tuple[int, int] = (490, 490), n: tuple[int, int] = (500, 500), ece: float = 0.01) -> dict[str, Any]:
    classes = ("cat", "dog")
    rows = [[right[0], n[0] - right[0]], [n[1] - right[1], right[1]]]
    per_class = {
        name: {"n": n[i], "accuracy": right[i] / n[i], "accuracy_ci95": interval95(right[i], n[i])}
        for i, name in enumerate(classes)
    }
    return {
        "n": sum(n),
        "accuracy": sum(right) / sum(n),
        "accuracy_ci95": interval95(sum(right), sum(n)),
        "ece": ece,
        "per_class": per_class,
        "confusion": rows,
        "classes": classes,
    }


def many(right: npt.NDArray[np.int64], n: int) -> dict[str, Any]:
    names = [f"c{i}" for i in range(len(right))]
    per_class = {
        name: {"n": n, "accuracy": r / n, "accuracy_ci95": interval95(int(r), n)}
        for name, r in zip(names, right, strict=True)
    }
    confusion = np.diag(right) + np.roll(np.diag(n - right), 1, axis=1)
    return {"n": n * len(right), "per_class": per_class, "classes": names, "confusion": confusion.tolist()}


FINE = Evidence(
    figures=figures(),
    train_accuracy=0.985,
    train_photos_seen=1000,
    train_counts={"cat": 5000, "dog": 5100},
    epochs=25.0,
    budget="--time 10m",
    longer="--time 20m",
    validations=((0.7, 1000), (0.9, 1000), (0.97, 1000)),
    ece_by_chance=0.03,
)


def changed(**values: Any) -> Evidence:
    return Evidence(**(vars(FINE) | values))


def test_where_nothing_is_the_matter_there_is_no_advice() -> None:
    assert advise(FINE) == ()
    assert advise(Evidence()) == ()


@pytest.mark.parametrize(
    ("evidence", "title", "numbers"),
    [
        (
            changed(figures=figures((4000, 4000), (5000, 5000)), train_accuracy=0.99),
            "Over-fitting",
            ("99.0 %", "80.0 %", "n = 1,000"),
        ),
        (changed(train_counts={"cat": 199, "dog": 400}), "Few photos", ("cat", "199")),
        (changed(epochs=5.6), "Too short", ("5.6 times", "--time 10m", "from 90.0 % to 97.0 % (n = 1,000)")),
        (changed(train_counts={"cat": 900, "dog": 300}), "Unbalanced classes", ("cat has 900", "dog 300")),
        (
            changed(figures=figures((4950, 4000), (5000, 5000)), train_accuracy=None),
            "Class dog is answered worse",
            ("80.0 % of dog", "99.0 %", "for cat"),
        ),
        (changed(suspects=9, suspects_expected=3.5), "Labels to look at", ("9 photos", "2 %", "would be 3.5")),
        (changed(figures=figures((49, 49), (50, 50))), "An uncertain figure", ("n = 100", "93.0 % to 99.8 %")),
        (changed(figures=figures(ece=0.051)), "Probabilities are off", ("5.1 %", "n = 1,000", "up to 3.0 %")),
        (changed(unreadable=1), "Photos that cannot be read", ("left out: 1",)),
    ],
)
def test_a_rule_speaks_alone_with_its_numbers(evidence: Evidence, title: str, numbers: tuple[str, ...]) -> None:
    found = advise(evidence)
    assert [a.title for a in found] == [title]
    assert all(number in found[0].said for number in numbers)
    assert found[0].rule
    assert found[0].remedy


def test_every_rule_is_tried_above() -> None:
    assert len(advice.RULES) == 9


@pytest.mark.parametrize(
    "evidence",
    [
        changed(train_accuracy=1.0),  # 2 % above
        changed(figures=figures((45, 45), (50, 50)), train_accuracy=0.96, train_photos_seen=100),  # too few to tell
        changed(train_counts={"cat": 899, "dog": 300}),
        changed(epochs=5.6, validations=((0.7, 1000), (0.9, 1000), (0.93, 1000))),  # better, within the intervals
        changed(figures=figures(ece=0.2), ece_by_chance=0.21),
        changed(epochs=5.6, stopped_early=True),
        changed(epochs=5.6, validations=((0.9, 1000),)),
        changed(suspects=2),
        changed(suspects=8, suspects_expected=3.5),
        changed(figures=figures((145, 145), (149, 149), ece=0.2)),
        changed(figures=figures((495, 474))),  # dogs are worse, by less than 5 %
    ],
)
def test_a_rule_is_silent_at_its_limit(evidence: Evidence) -> None:
    assert [a.title for a in advise(evidence) if a.title != "An uncertain figure"] == []


def test_the_worst_of_many_equal_classes_is_hardly_ever_called_worse() -> None:
    random, called = np.random.default_rng(0), 0
    for _ in range(200):
        right = random.binomial(30, 0.85, size=20)
        called += one_class_worse(changed(figures=many(right, 30))) is not None
    assert called / 200 <= 0.05


def test_probabilities_that_are_right_are_hardly_ever_said_to_be_off() -> None:
    random, said = np.random.default_rng(0), 0
    for _ in range(40):
        p = random.dirichlet([2, 2, 2], size=300)
        labels = (p.cumsum(1) > random.random((300, 1))).argmax(1)
        found = figures() | {"n": 300, "ece": expected_calibration_error(p, labels)}
        said += miscalibrated(changed(figures=found, ece_by_chance=error_by_chance(p))) is not None
    assert said <= 3
    assert error_by_chance(p) > MISCALIBRATED  # a fixed limit alone would not do


def test_advice_names_the_flag_that_trains_twice_as_long() -> None:
    assert advise(changed(epochs=3.0))[0].remedy == "Train longer: --time 20m."
