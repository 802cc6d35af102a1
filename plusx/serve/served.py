"""The model that is served: its classifier, how it is explained, and what it says of itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.classifier import Classifier, Pixels, Prediction
from plusx.errors import UsageError
from plusx.errors import explain as explain_errors
from plusx.errors import serve as sentences
from plusx.explain.evidence import Explains
from plusx.explain.place import place
from plusx.images.decode import Facts
from plusx.model_file import load
from plusx.onnx_file import is_onnx
from plusx.run_folder import model_path
from plusx.version import __version__

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Explained:
    """An answer, and the map [h, w] of what speaks for the class `explained`, over `box` of the upright photo.

    `box` is left, top, right, bottom as shares of its width and height; `words` say where most of it lies.
    """

    prediction: Prediction
    explained: str
    method: str
    words: str
    box: tuple[float, float, float, float]
    map: Floats


@dataclass(frozen=True)
class Served:
    """A classifier under a name, with the SHA-256 of its file. `explainer`: None where nothing explains it.

    `beside`: the same classifier, for `lanes` threads that ask at the same time; `classifier` is for one that asks
    while no other does.
    """

    name: str
    sha256: str
    classifier: Classifier
    explainer: Explains | None
    beside: Classifier
    lanes: int

    @classmethod
    def load(cls, model: Path, precision: str = "auto") -> Served:
        """Of a run folder, a model file, or an exported one, which loads no torch. Raises ModelError, UsageError."""
        found = model_path(model)
        name, sha256 = _name(model, found), hashlib.sha256(found.read_bytes()).hexdigest()
        opened = _exported(found) if is_onnx(found) else _trained(found, precision)
        return cls(name, sha256, *opened)

    def check_explains(self, name: str | None) -> None:
        """Raises UsageError for an unknown class, Refused where nothing explains the network."""
        if self.explainer is None:
            raise sentences.no_explanations(str(self.classifier.header.network["name"]))
        if name is not None and name not in self.classifier.classes:
            raise explain_errors.unknown_class(name, self.classifier.classes)

    def explained(self, pixels: Pixels, facts: Facts, name: str | None) -> Explained:
        """The answer to pixels [S, S, 3] of a photo of these `facts`, and the evidence for the class `name`, which
        `check_explains` has passed.
        """
        assert self.explainer is not None, "checked"
        prediction = self.classifier.answers(pixels[None])[0]
        explained = prediction.label if name is None else name
        label = np.array([self.classifier.classes.index(explained)])
        found = self.explainer.evidence(pixels[None], label).maps[0]
        width, height = (facts.height, facts.width) if facts.orientation >= 5 else (facts.width, facts.height)
        box = self.classifier.header.preprocess.seen(width, height)
        left, top, right, bottom = box
        shares = (left / width, top / height, right / width, bottom / height)
        words = place(found, box, width, height).words()
        return Explained(prediction, explained, self.explainer.method, words, shares, found)

    def about(self) -> dict[str, Any]:
        """What the model says of itself, limits of the service left out."""
        header = self.classifier.header
        return {
            "name": self.name,
            "network": str(header.network["name"]),
            "classes": list(header.classes),
            "pixels": header.preprocess.crop,
            "views": list(header.views),
            "step": header.step,
            "calibrated": header.calibration is not None,
            "thresholds": header.thresholds,
            "knows_novelty": header.novelty is not None,
            "explains": self.explainer.method if self.explainer is not None else None,
            "sha256": self.sha256,
            "data_fingerprint": header.data_fingerprint,
            "plusx": __version__,
        }


def _exported(path: Path) -> tuple[Classifier, Explains, Classifier, int]:
    """An exported file; explained by its views alone, for others wait meanwhile. Loads no torch."""
    from plusx.engines.onnx_engine import OnnxEngine
    from plusx.explain.exported import ExportedExplainer

    classifier = Classifier.exported(path)
    assert isinstance(classifier.engine, OnnxEngine), "made by Classifier.exported"
    explainer = ExportedExplainer(classifier.header, classifier.engine, quick=True)
    beside = Classifier(classifier.header, classifier.engine.on_one_core())
    return classifier, explainer, beside, classifier.engine.cores


def _trained(path: Path, precision: str) -> tuple[Classifier, Explains | None, Classifier, int]:
    """A model file, and its explainer where there is a way to explain it."""
    from plusx.engines.torch_engine import TorchEngine
    from plusx.explain.explainer import Explainer

    model = load(path)
    classifier = Classifier.of(model, "auto", path, precision)
    assert isinstance(classifier.engine, TorchEngine), "made by Classifier.of"
    try:
        explainer = Explainer(model, classifier.engine)
    except UsageError:
        return classifier, None, classifier, 1
    return classifier, explainer, classifier, 1


def _name(model: Path, found: Path) -> str:
    """The run's name, or the file's without its ending; in letters that a path of HTTP takes as they are."""
    raw = model.resolve().name if model.is_dir() else found.stem
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in raw)
