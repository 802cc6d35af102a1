"""The score of novelty against scikit-learn, its threshold, and the rule that decides by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from plusx.images.preprocess import Preprocess
from plusx.model_file import Header
from plusx.trust.decide import NONE, UNSURE, Rule
from plusx.trust.novelty import WEIGHTS, Discriminant, Novelty, fit_discriminant, fit_threshold
from plusx.trust.risk import ClassThreshold, Thresholds

DIMENSIONS = 12


def descriptors(n: int, shift: float, seed: int) -> Any:
    random = np.random.default_rng(seed)
    spread = np.linspace(0.1, 30, DIMENSIONS)  # of very different sizes, as channels are
    return (random.normal(size=(n, DIMENSIONS)) + shift * np.linspace(-1, 1, DIMENSIONS)) * spread + 5


@pytest.mark.parametrize("penalty", [1.0, 100.0, 1e5])
def test_the_discriminant_is_the_logistic_regression_of_scikit_learn(penalty: float) -> None:
    known, strange = descriptors(900, 0.0, 0), descriptors(300, 0.7, 1)
    both, side = np.concatenate([known, strange]), np.repeat([0, 1], [900, 300])
    scaled = (both - both.mean(0)) / both.std(0)
    theirs = LogisticRegression(C=1 / penalty, class_weight="balanced", tol=1e-9, max_iter=10_000).fit(scaled, side)
    ours = fit_discriminant(known, strange, penalty)
    np.testing.assert_allclose(ours.score(both), theirs.decision_function(scaled), rtol=2e-3, atol=2e-4)


def test_a_channel_that_never_changes_has_no_say() -> None:
    known, strange = descriptors(100, 0.0, 0), descriptors(100, 1.0, 1)
    known[:, 3] = strange[:, 3] = 7.0
    found = fit_discriminant(known, strange)
    assert found.weights[3] == 0
    assert np.isfinite(found.score(known)).all()
    moved = known.copy()
    moved[:, 3] = 1e9
    assert np.array_equal(found.score(moved), found.score(known))


def test_strange_descriptors_score_higher_than_known_ones_that_were_never_seen() -> None:
    found = fit_discriminant(descriptors(500, 0.0, 0), descriptors(500, 1.0, 1))
    new, strange = found.score(descriptors(500, 0.0, 2)), found.score(descriptors(500, 1.0, 3))
    assert (new[:, None] < strange[None]).mean() > 0.9


def test_a_discriminant_comes_back_from_the_tensors_of_a_model_file() -> None:
    found = fit_discriminant(descriptors(50, 0.0, 0), descriptors(50, 1.0, 1))
    again = Discriminant.found({"network.fc.weight": np.zeros(3), **found.tensors()}, DIMENSIONS)
    assert again is not None
    assert np.array_equal(again.weights, found.weights)
    assert again.bias == pytest.approx(found.bias)
    assert Discriminant.found({"network.fc.weight": np.zeros(3)}, None) is None
    with pytest.raises(ValueError, match="does not fit descriptors of 7"):
        Discriminant.found(found.tensors(), 7)
    with pytest.raises(ValueError, match="does not fit"):
        Discriminant.found({WEIGHTS: found.weights}, DIMENSIONS)


def test_the_threshold_refuses_a_twenty_fifth_of_one_half_and_is_measured_on_the_other() -> None:
    chosen, held = np.arange(1000.0), np.arange(500.0, 1500.0)
    novelty = fit_threshold(chosen, held)
    assert novelty.threshold == 960.0  # rank 961 of 1,000: 40 of 1,001 places lie above it
    assert (novelty.refused, novelty.n) == (0.539, 1000)
    assert Novelty.from_json(novelty.to_json()) == novelty


def test_the_threshold_refuses_a_twenty_fifth_of_new_photos_on_average_however_few_there_are() -> None:
    random = np.random.default_rng(0)
    refused = [1 - (fit_threshold(random.random(50), np.zeros(0)).threshold or 0) for _ in range(4000)]
    assert np.mean(refused) == pytest.approx(2 / 51, abs=0.002)


def test_few_validation_photos_give_no_threshold_and_that_is_said() -> None:
    novelty = fit_threshold(np.arange(49.0), np.arange(60.0))
    assert (novelty.threshold, novelty.refused) == (None, None)
    assert novelty.note == "49 validation photos are too few to know what is strange; 50 are needed at least."
    assert fit_threshold(np.arange(50.0), np.arange(0.0)).refused is None


def header(novelty: Novelty | None) -> Header:
    classes = (ClassThreshold("cat", 0.8, 10, 9, 0), ClassThreshold("dog", None, 10, 10, 0))
    thresholds = Thresholds(0.05, 0.95, 20, 0.9, classes).to_json()
    held = novelty and novelty.to_json()
    return Header(("cat", "dog"), Preprocess(8, 8), {"name": "resnet20"}, thresholds=thresholds, novelty=held)


def test_strangeness_is_asked_before_certainty() -> None:
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.7, 0.3], [0.4, 0.6], [0.9, 0.1]], dtype=np.float32)
    novelty = np.array([0.0, 0.0, 3.0, 1.0, np.nan], dtype=np.float32)
    rule = Rule.of(header(Novelty(1.0, 0.04, 100)))
    assert rule.answers(probabilities, novelty) == ["cat", UNSURE, NONE, "dog", "cat"]
    assert rule.known(novelty).tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("novelty", [None, Novelty(None, None, 20, note="too few")])
def test_without_a_threshold_nothing_is_too_strange(novelty: Novelty | None) -> None:
    rule = Rule.of(header(novelty))
    assert rule.answers(np.array([[0.9, 0.1]]), np.array([1e30])) == ["cat"]
