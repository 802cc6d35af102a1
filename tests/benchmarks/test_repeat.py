"""`benchmarks/repeat.py`, its short form: a training gives the same weights again, and differences would be seen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def repeat() -> Any:
    """The module."""
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import repeat

        yield repeat
    finally:
        sys.path[:] = before


def test_a_training_gives_the_same_weights_again_and_another_seed_others(repeat: Any, tmp_path: Path) -> None:
    data = repeat.drawn_photos(tmp_path)
    found = repeat.repeated(data, tmp_path, runs=3, minutes=1)
    assert (found["n"], found["different"]) == (3, 1)
    assert found["steps"] >= 24
    other = repeat.one(data, tmp_path / "other", seed=1)
    assert repeat.digest(other) != found["sha256"]


def test_what_threads_change_is_measured(repeat: Any, tmp_path: Path) -> None:
    data = repeat.drawn_photos(tmp_path)
    runs = [repeat.one(data, tmp_path / "here"), repeat.with_threads(data, tmp_path / "two", 2)]
    found = repeat.apart(*runs)
    assert found["threads"][1] == 2
    assert found["photos"] > 5
    assert 0 <= found["other_answers"] <= found["photos"]
    assert found["equal"] == (found["largest_difference"] == 0)
    assert repeat.apart(runs[0], runs[0])["equal"]
