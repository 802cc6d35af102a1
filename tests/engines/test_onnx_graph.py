"""However the photos of a batch are shared out among cores, the answers are those of each photo by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plusx.engines import onnx_graph
from plusx.engines.onnx_engine import NOVELTY, PROBABILITIES
from plusx.engines.onnx_graph import Graph
from plusx.export.onnx import to_onnx
from tests.export.test_onnx import model

WANTED = (PROBABILITIES, NOVELTY)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("graph") / "model.onnx"
    file.write_bytes(to_onnx(model("resnet8")))
    return file


def graph_on(cores: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    monkeypatch.setattr(onnx_graph, "usable_cpus", lambda: cores)
    return Graph(path)


def drawn(count: int, side: int) -> Any:
    return np.random.default_rng(count).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def runs(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which session is asked for how many photos, from now on."""
    found: list[tuple[str, int]] = []
    honest = onnx_graph._outputs

    def noted(session: Any, wanted: Any, pixels: Any) -> Any:
        found.append(("together" if session is graph._together else "single", len(pixels)))
        return honest(session, wanted, pixels)

    monkeypatch.setattr(onnx_graph, "_outputs", noted)
    return found


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_a_photo_has_the_same_answer_wherever_it_stands(
    cores: int, count: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, alone = graph_on(cores, path, monkeypatch), graph_on(1, path, monkeypatch)
    pixels = drawn(count, graph.inputs[0].shape[1])
    found = graph.run(WANTED, pixels)
    assert [len(each) for each in found] == [count, count]
    for place in range(count):
        one = alone.run(WANTED, pixels[place : place + 1])
        for together, single in zip(found, one, strict=True):
            np.testing.assert_allclose(together[place], single[0], rtol=0, atol=2e-6)


def test_photos_are_shared_out_evenly_and_the_rest_is_computed_on_all_cores(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_on(2, path, monkeypatch)
    asked = runs(graph, monkeypatch)
    graph.run(WANTED, drawn(13, graph.inputs[0].shape[1]))
    assert sorted(asked) == [("single", 3)] * 4 + [("together", 1)]


def test_a_single_photo_needs_the_weights_but_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    honest = onnx_graph._session
    monkeypatch.setattr(onnx_graph, "_session", lambda p, c, threads: made.append(threads) or honest(p, c, threads))  # type: ignore[func-returns-value]
    graph = graph_on(2, path, monkeypatch)
    graph.run(WANTED, drawn(1, graph.inputs[0].shape[1]))
    assert made == [2]
    for _ in range(2):
        graph.run(WANTED, drawn(4, graph.inputs[0].shape[1]))
    assert made == [2, 1]


def test_what_one_piece_raises_is_raised(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_on(2, path, monkeypatch)

    def broken(session: Any, wanted: Any, pixels: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(onnx_graph, "_outputs", broken)
    with pytest.raises(MemoryError, match="no room"):
        graph.run(WANTED, drawn(4, 64))
