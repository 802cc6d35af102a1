"""An exported file in whole numbers of eight bits: static quantisation, by what real photos show of every layer.

Convolutions get uint8 activations and int8 weights with a scale for each channel (Jacob et al. 2018, arXiv 1712.05877,
section 2). Everything else stays float32: normalisation, the sums of shortcuts, the head, novelty and evidence
(docs/decisions/0019-int8.md says what was measured).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.engines.onnx_engine import EVIDENCE, INPUT
from plusx.engines.onnx_runtime import onnx_runtime

Pixels = npt.NDArray[np.uint8]

KEY = "plusx.int8"  # of the metadata: what eight bits cost
LAYERS = ("Conv", "MaxPool", "Relu")  # what takes eight bits, as ONNX calls it
BATCH = 16  # photos at once while activations are watched


def quantised(content: bytes, photos: Pixels) -> bytes:
    """The bytes of the file `content` with convolutions of eight bits, after watching it see photos [n, S, S, 3].

    Metadata and everything it takes and gives stay. Needs onnx and onnxruntime.
    """
    import onnx

    quantization = onnx_runtime(".quantization")
    model = onnx.load_from_string(content)
    told = {entry.key: entry.value for entry in model.metadata_props}
    float_nodes = [node.name for node in model.graph.node if EVIDENCE in node.output]
    # The graph is folded already, and a warning would say that it should be.
    quantization.quant_utils.add_pre_process_metadata(model)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            model,
            target,
            _Shown(photos),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(LAYERS),
            nodes_to_exclude=float_nodes,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        return _named(target.read_bytes(), told)


def noted(content: bytes, cost: Mapping[str, Any]) -> bytes:
    """The same file, which says under KEY what its eight bits cost, as JSON."""
    import onnx

    told = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    return _named(content, told | {KEY: json.dumps(cost)})


def _named(content: bytes, told: Mapping[str, str]) -> bytes:
    """The bytes of an ONNX file that says `told` of itself, and imports no operators but those it has."""
    import onnx

    model = onnx.load_from_string(content)
    used = {node.domain for node in model.graph.node}
    kept = [each for each in model.opset_import if each.domain in used]
    del model.opset_import[:], model.metadata_props[:]
    model.opset_import.extend(kept)
    model.producer_name = model.graph.name = "plusx"
    for key, value in told.items():
        model.metadata_props.add(key=key, value=value)
    return bytes(model.SerializeToString())


class _Shown:
    """Photos [n, S, S, 3] one batch after another, as the calibration of ONNX Runtime reads them."""

    def __init__(self, photos: Pixels) -> None:
        self._batches = iter([photos[start : start + BATCH] for start in range(0, len(photos), BATCH)])

    def get_next(self) -> dict[str, Any] | None:
        """The next inputs of the graph, None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}
