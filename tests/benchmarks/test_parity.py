"""Every family of networks answers alike once exported: the short form of `benchmarks/parity.py`, on drawn photos."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def parity() -> Any:
    """The module, with its neighbours importable as they are when it runs as a script."""
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import parity

        yield parity
    finally:
        sys.path[:] = before


def drawn(count: int) -> np.ndarray[Any, Any]:
    """Photos of light shapes on a slope of colour: uint8 [n, 64, 64, 3]."""
    random = np.random.default_rng(4)
    slope = np.linspace(0, 90, 64)
    made = np.zeros((count, 64, 64, 3)) + slope[:, None] + random.uniform(0, 60, (count, 1, 1, 3))
    for photo in made:
        top, left, side = random.integers(2, 30, 3)
        photo[top : top + side, left : left + side] += random.uniform(20, 100, 3)
    return made.clip(0, 255).astype(np.uint8)


FAMILIES = {
    "a residual network": "resnet10",
    "one with bottlenecks": "resnet50",
    "one of the textbook": "resnet10-3x3",
    "one of CIFAR, whose shortcuts are padded": "resnet8",
    "a plain network": "plain8",
    "AlexNet": "alexnet",
    "a VGG": "vgg11",
    "a VGG with norms": "vgg11-bn",
}


@pytest.mark.parametrize("name", FAMILIES.values(), ids=FAMILIES.keys())
def test_a_family_answers_alike_once_exported(name: str, parity: Any) -> None:
    photos = drawn(15)
    model = parity.drawn_model(name, photos, 5, width=0.125)
    found = parity.compared(model, photos, np.arange(15) % 5, batch=7)
    assert found.holds, found
    assert found.classes >= 3, "answers of one class would agree whatever the network"
    assert found.apart > 0, "two programs that round differently, and not one compared with itself"
    assert found.novelty < 1e-4


def test_a_network_of_timm_answers_alike_once_exported(parity: Any) -> None:
    pytest.importorskip("timm")
    photos = drawn(8)
    found = parity.compared(parity.drawn_model("timm/resnet10t", photos, 5), photos, np.arange(8) % 5, batch=8)
    assert found.holds, found
    assert found.classes >= 3


def test_an_export_that_answers_otherwise_is_seen(parity: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = drawn(15)
    model = parity.drawn_model("resnet8", photos, 5)
    honest = parity.to_onnx

    def another(made: Any) -> bytes:
        name = "network.fc.weight"
        content: bytes = honest(replace(made, tensors=made.tensors | {name: made.tensors[name][::-1].copy()}))
        return content

    monkeypatch.setattr(parity, "to_onnx", another)
    found = parity.compared(model, photos, np.arange(15) % 5, batch=8)
    assert found.flips > 0
    assert not found.holds


def test_the_table_names_the_network_and_both_accuracies_where_they_differ(parity: Any) -> None:
    found = parity.Found("resnet8", 0.5, 64, 32, 8, 2e-7, 3e-7, 1e-8, 0, 7, (0.5, 0.25), 1.25, 2.0)
    assert not found.holds
    assert parity.table([asdict(found)])[2] == (
        "| resnet8 | 0.5 | 64 | 32 | 8 | 2.0e-07 | 3.0e-07 | 1.0e-08 | 0 | 7 | 0.5000, 0.2500 | 1.2 |"
    )


def test_a_network_that_differs_from_itself_is_not_held_against_its_export(parity: Any) -> None:
    def found(apart: float, own: float) -> bool:
        return bool(parity.Found("plain101", 1.0, 64, 32, 8, apart, own, 0.0, 0, 7, (0.5, 0.5), 1.0, 1.0).holds)

    assert found(9e-5, 1e-7)
    assert not found(2e-4, 1e-5), "it could be told from rounding"
    assert found(2e-2, 1e-2)
    assert not found(2e-1, 1e-2)
