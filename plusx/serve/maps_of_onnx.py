"""How an exported file is explained while it is served, without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from plusx.classifier import Classifier, Pixels
from plusx.engines.onnx_engine import EVIDENCE, OnnxEngine
from plusx.serve.served import Floats, Maps


def maps_of(classifier: Classifier, path: Path) -> tuple[str | None, Maps | None]:  # noqa: ARG001 - as for model files
    """The method by which it is explained, and maps by that; nothing where there is none."""
    engine = classifier.engine
    assert isinstance(engine, OnnxEngine), "an exported file"
    if EVIDENCE not in engine.outputs:
        return None, None

    def maps(pixels: Pixels, label: int) -> Floats:
        found = engine.evidence(pixels)
        assert found is not None, "outputs were looked at"
        others = (found.sum(axis=1)[0] - found[0, label]) / max(1, found.shape[1] - 1)
        return np.asarray(found[0, label] - others, dtype=np.float64)

    return "cam", maps
