"""Label errors: confident learning against a re-computation in plain loops, and on planted noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plusx.trust.label_errors import confident_classes, label_errors, normalised_margins, thresholds


def drawn(seed: int, n: int, classes: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Answers of a network that is often right, and the classes they are about."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    scores = rng.normal(0, 1, (n, classes))
    scores[np.arange(n), truth] += sharpness
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True), truth


def mislabelled(seed: int, truth: np.ndarray, classes: int, share: float) -> tuple[np.ndarray, set[int]]:
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(truth), round(share * len(truth)), replace=False)
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return labels, set(wrong.tolist())


def by_hand(p: list[list[float]], labels: list[int]) -> tuple[list[list[float]], list[int]]:
    """The calibrated joint and the ranked suspects, one photo after the other."""
    classes = range(len(p[0]))
    limits = []
    for c in classes:
        own = [row[c] for row, label in zip(p, labels, strict=True) if label == c]
        limits.append(math.fsum(own) / len(own))
    counts = [[0.0 for _ in classes] for _ in classes]
    suspects = []
    for i, (row, label) in enumerate(zip(p, labels, strict=True)):
        sure = [c for c in classes if row[c] >= limits[c]]
        if sure:
            best = max(sure, key=lambda c: row[c])
            counts[label][best] += 1
            if best != label:
                margin = row[label] - max(row[c] for c in classes if c != label)
                suspects.append((margin, i))
    joint = []
    for c in classes:
        n, total = labels.count(c), sum(counts[c])
        joint.append([count * n / total for count in counts[c]])
    return joint, [i for _, i in sorted(suspects)]


@pytest.mark.parametrize(("seed", "classes"), [(0, 2), (1, 3), (2, 7)])
def test_suspects_and_joint_are_those_of_the_paper(seed: int, classes: int) -> None:
    p, truth = drawn(seed, 900, classes, 2.5)
    labels, _ = mislabelled(seed, truth, classes, 0.05)
    joint, suspects = by_hand(p.tolist(), labels.tolist())
    found = label_errors(p, labels)
    assert len(suspects) > 20
    others = set(np.flatnonzero(p.argmax(axis=1) != labels).tolist()) - set(suspects)
    assert set(found.doubtful.tolist()) == others
    assert np.all(np.diff(found.margins[found.doubtful]) >= 0)
    assert all(found.suggested[i] == p[i].argmax() for i in others)
    assert found.suspects.tolist() == suspects
    np.testing.assert_allclose(found.joint, joint, rtol=1e-12)
    assert found.joint.sum() == pytest.approx(900)


def test_planted_errors_come_first() -> None:
    p, truth = drawn(3, 3000, 2, 6.0)
    labels, wrong = mislabelled(3, truth, 2, 0.03)
    found = label_errors(p, labels)
    first = set(found.suspects[: len(wrong)].tolist())
    assert len(wrong) == 90
    assert len(first & wrong) >= 85
    assert all(found.suggested[i] == truth[i] for i in first & wrong)
    assert found.estimated == pytest.approx(90, abs=12)
    innocent = label_errors(p, truth)
    assert not set(innocent.suspects.tolist()) & wrong or len(innocent.suspects) < 10


def test_right_labels_with_sure_answers_give_no_suspects() -> None:
    labels = np.array([0, 1, 2] * 10)
    found = label_errors(np.eye(3)[labels] * 0.97 + 0.01, labels)
    assert len(found.suspects) == 0
    assert found.estimated == 0


def test_a_class_without_photos_suspects_nobody_and_breaks_nothing() -> None:
    p = np.array([[0.2, 0.1, 0.7], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    labels = np.array([0, 0, 1])
    limits = thresholds(p, labels)
    assert np.isnan(limits[2])
    assert confident_classes(p, limits).tolist() == [-1, 0, 1]
    assert label_errors(p, labels).joint.sum() == pytest.approx(3)


def test_margins_go_from_minus_one_to_one() -> None:
    p = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    assert normalised_margins(p, np.array([0, 0, 0])).tolist() == [1.0, -1.0, 0.0]
