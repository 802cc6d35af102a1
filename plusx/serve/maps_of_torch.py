"""How a model file is explained while it is served; this is the one room of the service that loads torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from plusx.classifier import Classifier, Pixels
from plusx.engines.torch_engine import TorchEngine
from plusx.errors import UsageError
from plusx.explain.explainer import Explainer
from plusx.model_file import load
from plusx.serve.served import Floats, Maps


def opened(path: Path, precision: str) -> Classifier:
    """The classifier of a model file."""
    return Classifier.of(load(path), "auto", path, precision)


def maps_of(classifier: Classifier, path: Path) -> tuple[str | None, Maps | None]:
    """The method by which it is explained, and maps by that; nothing where there is none."""
    assert isinstance(classifier.engine, TorchEngine), "made by `opened`"
    try:
        explainer = Explainer(load(path), classifier.engine)
    except UsageError:
        return None, None

    def maps(pixels: Pixels, label: int) -> Floats:
        found: Floats = explainer.evidence(pixels, np.array([label])).maps[0]
        return found

    return explainer.method, maps
