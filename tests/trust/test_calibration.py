"""Temperature scaling, against scikit-learn and a grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from plusx import metrics
from plusx.trust.calibration import HIGHEST, LOWEST, Calibration, calibrate, fit_temperature, temper

Drawn = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def drawn(n: int, classes: int, spread: float, seed: int = 0) -> Drawn:
    """Answers whose logits are `spread` times too far apart: labels follow the probabilities they should have."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (n, classes))
    right = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (right.cumsum(axis=1) < random.random((n, 1))).sum(axis=1)
    return temper(right, 1 / spread), labels


class Told(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier for scikit-learn whose photos are its answers."""

    def __init__(self, classes: int = 2) -> None:
        self.classes = classes
        self.classes_ = np.arange(classes)

    def fit(self, *_: object) -> Told:
        return self

    def predict(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        return x.argmax(axis=1)

    def predict_proba(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return x


@pytest.mark.parametrize(("classes", "spread"), [(2, 3.0), (2, 0.5), (5, 2.0), (5, 1.0)])
def test_the_temperature_is_scikit_learns_and_a_grids(classes: int, spread: float) -> None:
    probabilities, labels = drawn(2000, classes, spread)
    fitted = fit_temperature(probabilities, labels)
    theirs = CalibratedClassifierCV(FrozenEstimator(Told(classes)), method="temperature", cv=2, ensemble=False)
    theirs.fit(probabilities, labels)
    assert temper(probabilities, fitted.value) == pytest.approx(theirs.predict_proba(probabilities), abs=5e-5)
    grid = np.exp(np.linspace(np.log(LOWEST), np.log(HIGHEST), 2001))
    losses = [metrics.log_loss(temper(probabilities, t), labels) for t in grid]
    assert fitted.value == pytest.approx(grid[int(np.argmin(losses))], rel=0.004)
    assert metrics.log_loss(temper(probabilities, fitted.value), labels) <= min(losses)
    assert fitted.value == pytest.approx(spread, rel=0.15)
    assert (fitted.n, fitted.note) == (2000, None)


def test_a_temperature_keeps_the_order_and_one_changes_nothing() -> None:
    probabilities, _ = drawn(100, 4, 1.0)
    assert temper(probabilities, 1.0) == pytest.approx(probabilities, abs=1e-12)
    for temperature in (LOWEST, 0.5, 3.0, HIGHEST):
        tempered = temper(probabilities, temperature)
        assert np.array_equal(tempered.argsort(axis=1)[:, -1], probabilities.argsort(axis=1)[:, -1])
        assert tempered.sum(axis=1) == pytest.approx(1.0)
    assert temper(probabilities[0], 2.0) == pytest.approx(temper(probabilities, 2.0)[0])
    assert np.isfinite(temper(np.array([[1.0, 0.0]], dtype=np.float32), LOWEST)).all()


def test_a_temperature_is_undone_by_its_inverse() -> None:
    probabilities, _ = drawn(50, 3, 1.0)
    assert temper(temper(probabilities, 1.7), 1 / 1.7) == pytest.approx(probabilities, rel=1e-6)


def test_too_few_photos_or_no_error_leave_probabilities_as_they_are() -> None:
    probabilities, labels = drawn(29, 2, 3.0)
    few = fit_temperature(probabilities, labels)
    assert (few.value, few.note) == (1.0, "29 photos are too few to calibrate by, 30 are needed at least")
    probabilities, _ = drawn(1000, 2, 3.0)
    perfect = fit_temperature(probabilities, probabilities.argmax(axis=1))
    assert perfect.value == 1.0
    assert perfect.note == "all 1,000 answers to calibrate by are right, and nothing says how sure is too sure"


def test_a_runaway_temperature_is_held() -> None:
    certain = np.tile([1 - 1e-9, 1e-9], (100, 1))
    assert fit_temperature(certain, np.tile([0, 1], 50)).value == pytest.approx(HIGHEST, rel=1e-3)
    doubtful = np.tile([0.5001, 0.4999], (1000, 1))
    assert fit_temperature(doubtful, np.array([1] + [0] * 999)).value == pytest.approx(LOWEST, rel=1e-3)


def test_calibration_is_measured_on_the_other_half_and_survives_json() -> None:
    chosen, held = drawn(2000, 2, 3.0), drawn(1500, 2, 3.0, seed=1)
    calibration = calibrate(chosen, held)
    assert (calibration.n, calibration.measured_n) == (2000, 1500)
    assert calibration.log_loss_before == metrics.log_loss(*held)
    assert calibration.log_loss_after is not None
    assert calibration.log_loss_after < calibration.log_loss_before - 0.05
    assert calibration.ece_before is not None
    assert calibration.ece_after is not None
    assert calibration.ece_after < calibration.ece_before / 3
    assert Calibration.from_json(calibration.to_json()) == calibration
    alone = calibrate(chosen, (np.zeros((0, 2)), np.zeros(0, dtype=np.int64)))
    assert alone.log_loss_after is None
