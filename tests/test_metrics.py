"""Numbers about answers, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as oracle

from plusx import metrics

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 3, 500)
PROBABILITIES = RANDOM.dirichlet([0.5, 0.5, 0.5], 500).astype(np.float32)


def test_accuracy_log_loss_and_confusion_are_scikit_learns() -> None:
    answers = PROBABILITIES.argmax(axis=1)
    assert metrics.accuracy(PROBABILITIES, LABELS) == oracle.accuracy_score(LABELS, answers)
    exact = PROBABILITIES.astype(np.float64) / PROBABILITIES.astype(np.float64).sum(axis=1, keepdims=True)
    assert metrics.log_loss(exact, LABELS) == pytest.approx(oracle.log_loss(LABELS, exact), rel=1e-6)
    assert np.array_equal(metrics.confusion(PROBABILITIES, LABELS), oracle.confusion_matrix(LABELS, answers))


def test_the_summary_has_recall_and_precision_of_every_class() -> None:
    summary = metrics.summary(PROBABILITIES, LABELS, ("a", "b", "c"))
    answers = PROBABILITIES.argmax(axis=1)
    recalls, precisions = (f(LABELS, answers, average=None) for f in (oracle.recall_score, oracle.precision_score))
    for i, name in enumerate("abc"):
        assert summary["per_class"][name]["accuracy"] == pytest.approx(recalls[i])
        assert summary["per_class"][name]["precision"] == pytest.approx(precisions[i])
    assert summary["n"] == 500


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (97, 100, 0.9148, 0.9938)]
)
def test_the_interval_is_clopper_and_pearsons(right: int, n: int, low: float, high: float) -> None:
    assert metrics.interval95(right, n) == pytest.approx((low, high), abs=1e-4)


def test_a_certain_wrong_answer_costs_much_but_not_infinitely_much() -> None:
    assert 30 < metrics.log_loss(np.array([[1.0, 0.0]]), np.array([1])) < 40


def test_calibration_error_is_the_gap_of_probability_and_accuracy() -> None:
    probabilities = np.tile([0.8, 0.2], (10, 1))
    labels = np.array([0] * 5 + [1] * 5)
    assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx(0.3)
    assert metrics.expected_calibration_error(np.eye(2)[[0, 1]], np.array([0, 1])) == 0.0


def test_risk_falls_as_the_unsure_are_left_out() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.55, 0.45]])
    rows = metrics.risk_coverage(probabilities, np.array([0, 0, 0, 0, 1]))
    assert [(row["coverage"], row["error"]) for row in rows] == [
        (1.0, 0.2),
        (0.95, 0.2),
        (0.9, 0.0),
        (0.85, 0.0),
        (0.8, 0.0),
    ]


def test_a_class_without_photos_has_no_accuracy() -> None:
    summary = metrics.summary(PROBABILITIES, np.zeros(500, dtype=int), ("a", "b", "c"))
    assert summary["per_class"]["b"]["accuracy"] is None
    assert summary["per_class"]["b"]["n"] == 0


def test_the_bins_of_reliability_add_up_to_the_calibration_error() -> None:
    bins = metrics.reliability(PROBABILITIES, LABELS)
    assert len(bins) == 15
    assert sum(b["n"] for b in bins) == 500
    filled = [b for b in bins if b["n"]]
    error = sum(b["n"] * abs(b["accuracy"] - b["probability"]) for b in filled) / 500
    assert error == pytest.approx(metrics.expected_calibration_error(PROBABILITIES, LABELS))
    assert all(b["low"] < b["probability"] <= b["high"] + 1e-9 for b in filled)
    assert all(b["accuracy_ci95"][0] <= b["accuracy"] <= b["accuracy_ci95"][1] for b in filled)
    assert bins[0] == {"low": 0.0, "high": 1 / 15, "n": 0, "probability": None, "accuracy": None, "accuracy_ci95": None}


def test_what_is_answered_has_its_own_error() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])
    figures = metrics.answered(probabilities, np.array([0, 1, 1, 0]), np.array([True, True, False, True]))
    assert (figures["coverage"], figures["n"], figures["unsure"]) == (0.75, 3, 1)
    assert figures["error"] == pytest.approx(1 / 3)
    assert figures["error_ci95"] == pytest.approx(metrics.interval95(1, 3))
