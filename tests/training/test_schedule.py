"""The learning rate is a pure function of the step."""

from __future__ import annotations

import math

import pytest

from plusx.training.schedule import learning_rate, progress


@pytest.mark.parametrize(
    ("kind", "done", "expected"),
    [
        ("constant", 0.0, 1.0),
        ("constant", 0.99, 1.0),
        ("triangular", 0.0, 0.0),
        ("triangular", 0.1, 0.5),
        ("triangular", 0.2, 1.0),
        ("triangular", 0.6, 0.5),
        ("triangular", 1.0, 0.0),
        ("cosine", 0.1, 0.5),
        ("cosine", 0.2, 1.0),
        ("cosine", 0.6, 0.5),
        ("cosine", 0.4, 0.5 * (1 + math.cos(math.pi / 4))),
        ("cosine", 1.0, 0.0),
        ("steps", 0.0, 0.1),
        ("steps", 0.199, 0.1),
        ("steps", 0.2, 1.0),
        ("steps", 0.49, 1.0),
        ("steps", 0.5, 0.1),
        ("steps", 0.75, 0.01),
    ],
)
def test_factors_on_the_peak_rate(kind: str, done: float, expected: float) -> None:
    assert learning_rate(kind, done, 0.2, (0.5, 0.75)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["triangular", "cosine", "steps"])
def test_no_warm_up_starts_at_the_peak_and_only_warm_up_is_no_division_by_zero(kind: str) -> None:
    assert learning_rate(kind, 0.0, 0.0) == 1.0
    assert learning_rate(kind, 1.0, 1.0) == 1.0


def test_progress_is_the_share_of_the_steps() -> None:
    assert [progress(step, 8) for step in (0, 2, 8, 9)] == [0.0, 0.25, 1.0, 1.0]


def test_a_shortened_plan_runs_faster_from_its_step_on_and_still_ends_at_its_end() -> None:
    shortened = [(50, 75)]
    assert progress(50, 100, shortened) == progress(50, 100) == 0.5
    assert progress(51, 100, shortened) == pytest.approx(0.52)
    assert progress(75, 100, shortened) == 1.0


def test_a_plan_can_be_shortened_twice() -> None:
    shortened = [(50, 90), (70, 80)]
    assert progress(70, 100, shortened) == progress(70, 100, shortened[:1]) == 0.75
    assert progress(75, 100, shortened) == pytest.approx(0.875)
    assert progress(80, 100, shortened) == 1.0
    values = [progress(step, 100, shortened) for step in range(81)]
    assert values == sorted(values)
