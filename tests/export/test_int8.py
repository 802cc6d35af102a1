"""Eight bits: what stays float, what the file says of itself, and what is counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from plusx import onnx_file
from plusx.engines.onnx_engine import Final, OnnxEngine
from plusx.export.int8 import KEY, noted, quantised
from plusx.export.onnx import to_onnx
from plusx.model_file import metadata_of, read_known
from plusx.trust.decide import Rule
from plusx.trust.significance import paired_interval95
from plusx.verbs.int8 import Cost, _Said
from tests.export.test_onnx import CLASSES, exported, model, photos

MADE = model("resnet10", views=("identity", "flip"))


@pytest.fixture(scope="module")
def small() -> bytes:
    return quantised(to_onnx(MADE), photos(32))


def engine_of(content: bytes, folder: Path) -> OnnxEngine:
    path = folder / "int8.onnx"
    path.write_bytes(content)
    return OnnxEngine(path, len(CLASSES), 64)


def test_convolutions_have_eight_bits_and_head_evidence_and_normalisation_have_not(small: bytes) -> None:
    graph = onnx.load_from_string(small).graph
    made_by = {name: node for node in graph.node for name in node.output}
    kinds = {
        node.output[0]: {made_by[name].op_type for name in node.input if name in made_by}
        for node in graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul", "Div", "Sub")
    }
    quantised_convolutions = [name for name, kind in kinds.items() if kind == {"DequantizeLinear"}]
    convolutions = Counter(node.op_type for node in graph.node)["Conv"]
    assert len(quantised_convolutions) == convolutions - 1, "all but that of the evidence"
    assert "evidence" not in quantised_convolutions
    weights = {i.name: i.data_type for i in graph.initializer}
    assert sum(kind == onnx.TensorProto.INT8 for kind in weights.values()) > 5


def test_it_answers_nearly_as_before_and_is_smaller(small: bytes, tmp_path: Path) -> None:
    before = OnnxEngine(exported(MADE, tmp_path), len(CLASSES))
    after = engine_of(small, tmp_path)
    assert after.outputs == before.outputs
    one, other = before.answers(photos(8)), after.answers(photos(8))
    assert 0 < np.abs(one.probabilities - other.probabilities).max() < 0.1
    assert np.corrcoef(before.evidence(photos(8)).ravel(), after.evidence(photos(8)).ravel())[0, 1] > 0.98
    assert len(small) < 0.5 * len(to_onnx(MADE))


def test_what_the_file_says_of_itself_survives_and_what_it_cost_is_added(small: bytes, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    path.write_bytes(noted(small, {"n": 5}))
    assert onnx_file.metadata(path) == metadata_of(MADE) | {KEY: '{"n": 5}'}
    assert read_known(path).header == MADE.known.header
    assert onnx_file.parts(path.read_bytes()) == onnx_file.Parts(False, frozenset(), False)
    assert engine_of(path.read_bytes(), tmp_path).answers(photos(3)).probabilities.shape == (3, 3)


def test_the_cost_counts_answers_as_they_are_given_and_accuracy_as_it_is() -> None:
    labels = np.array([0, 0, 1, 1])
    rows = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]], np.float32)
    other = rows[[0, 2, 2, 3]]
    cost = Cost.of(labels, _Said(rows, ("a", "a", "b", "unsure")), _Said(other, ("a", "b", "b", "b")))
    assert (cost.n, cost.accuracy, cost.others) == (4, (1.0, 0.75), 2)
    assert cost.lost == 0.25
    assert cost.interval == paired_interval95(1, 0, 4)
    assert cost.lines()[0].startswith(
        "eight bits, on 4 validation photos: accuracy 100.00 % before, 75.00 % after; -25.00 points (95 % interval -"
    )
    assert "2 other answers; calibration error" in cost.lines()[1]


def test_answers_are_those_that_the_thresholds_of_the_model_make() -> None:
    rule = Rule(("a", "b"), np.array([0.95, 0.0]), strangest=1.0)
    said = Final(np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]], np.float32), np.array([0.0, 0.0, 2.0], np.float32))
    assert _Said.of(rule, [said]).answers == ("unsure", "b", "none of these")


def test_the_interval_of_a_paired_difference_holds_it_and_is_no_point_without_any() -> None:
    low, high = paired_interval95(0, 0, 1000)
    assert -0.004 < low < 0 < high < 0.004
    low, high = paired_interval95(30, 20, 1000)
    assert low < -0.01 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.0071, rel=0.05)
    assert paired_interval95(1, 0, 1)[0] >= -1
