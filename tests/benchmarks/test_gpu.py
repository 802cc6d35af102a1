"""`benchmarks/gpu.py`: what is left for the next call, and what its table says."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def gpu() -> Any:
    """The module, with its neighbours importable as they are when it runs as a script."""
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import gpu

        yield gpu
    finally:
        sys.path[:] = before


def test_every_figure_the_issue_asks_for_has_a_line(gpu: Any, tmp_path: Path) -> None:
    found = gpu.lines(gpu.Photos.of(tmp_path), tmp_path, True, time.monotonic())
    assert {f"textbook, seed {seed}" for seed in range(3)} <= set(found)
    assert {f"best 10m, seed {seed}" for seed in range(3)} <= set(found)
    assert all(minutes < 9 for minutes, _ in found.values())


def test_warm_trainings_go_on_where_the_call_before_ended(gpu: Any, tmp_path: Path, monkeypatch: Any) -> None:
    seeds: list[int] = []

    def run(*_: Any, seed: int, **flags: Any) -> dict[str, float]:
        seeds.append(seed)
        return {"accuracy": 0.9 + seed / 100, "train_seconds": 5.0 + seed}

    monkeypatch.setattr(gpu, "run", run)
    (tmp_path / "warm-6.jsonl").write_text(json.dumps({"accuracy": 0.9, "seconds": 5.0}) + "\n")
    found = gpu.warm(None, tmp_path, True, (), 6, time.monotonic() + 60)
    assert seeds == [0, 1]  # the first one warms up
    assert found["each"] == {"accuracy": [0.9, 0.91], "seconds": [5.0, 6.0]}
    assert found["n"] == 2
    assert gpu.warm(None, tmp_path, False, (), 7, time.monotonic() - 1) == {"unfinished": "0 of 20"}


def test_the_table_takes_seeds_together_and_leaves_out_what_is_not_finished(gpu: Any) -> None:
    rows = [
        {"line": "best 10m, seed 0", "accuracy": 0.98, "train_seconds": 480.0},
        {"line": "best 10m, seed 1", "accuracy": 0.99, "train_seconds": 482.0},
        {"line": "textbook, seed 0", "unfinished": "step-000100"},
        {"line": "fp16", "error": "RuntimeError: no"},
        {"line": "warm, 6 epochs", "n": 2, "each": {"accuracy": [0.93, 0.94], "seconds": [7.0, 8.0]}},
        {"line": "two runs equal", "equal": True},
    ]
    assert gpu.table(rows)[2:] == [
        "| best 10m | 2 | 98.50 ± 0.71 % | 481.0 ± 1.4 |  |",
        "| warm, 6 epochs | 2 | 93.50 ± 0.71 % | 7.5 ± 0.7 |  |",
        "| two runs equal | 1 |  |  | equal bytes |",
    ]
