"""`explain`: where in a photo the evidence for an answer lies, whether that map can be believed, and what is near."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from plusx.classifier import Classifier, Prediction
from plusx.data.reading import read
from plusx.data.source import walk
from plusx.errors import explain as sentences
from plusx.errors import use as use_errors
from plusx.explain.evidence import Explains
from plusx.explain.overlay import SIDE, overlay, sheet
from plusx.explain.place import Place, place
from plusx.explain.sanity import Sanity, sanity
from plusx.images.decode import Undecodable, decode
from plusx.metrics import percent
from plusx.model_file import ModelFile, load
from plusx.onnx_file import is_onnx
from plusx.run_folder import model_path, open_run
from plusx.verbs import neighbours
from plusx.verbs.neighbours import Neighbour

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

NETWORKS = 4  # untrained networks that the map of one photo is compared with
NEED_RUN = "The nearest training photos are in the run folder; name it in place of the model file to see them."
NONE_KEPT = "This run remembers no training photos; runs trained from now on do."
NO_FEATURES = (
    "An exported file gives no features to find the nearest training photos by; name the run folder it was made from "
    "to see them."
)
UNCOMPARED = "compared with no untrained network, which needs the model file it was exported from"
GONE = "The photos the run was trained on have moved or changed, so the nearest ones are named and not shown."


@dataclass(frozen=True)
class Explanation:
    """Why `path` was answered so: for the class `explained`, a map [GRID, GRID] of what the network saw, and its tests.

    `log_odds` is the mean over views of the class's logit less the mean of the others', NaN where an exported file
    does not tell. `near` are the nearest training photos, with a `remark` where there are none or they cannot be shown.
    `picture` shows it all.
    """

    path: str
    prediction: Prediction
    explained: str
    method: str
    log_odds: float
    place: Place
    sanity: Sanity
    near: tuple[Neighbour, ...]
    remark: str | None
    map: Floats
    picture: Image.Image

    @property
    def warnings(self) -> list[str]:
        """What speaks against the map, in sentences."""
        return self.sanity.warnings(0)

    def png(self) -> bytes:
        """The picture as a file."""
        file = io.BytesIO()
        self.picture.save(file, "PNG")
        return file.getvalue()

    def to_json(self) -> dict[str, Any]:
        """The document of `explain --json`."""
        answer = asdict(self.prediction)
        return {
            "path": self.path,
            **answer,
            "class": self.explained,
            "method": self.method,
            "log_odds": None if np.isnan(self.log_odds) else self.log_odds,
            "where": asdict(self.place) | {"words": self.place.words()},
            "sanity": self._tests(),
            "neighbours": [asdict(n) for n in self.near],
            "remark": self.remark,
        }

    def lines(self) -> list[str]:
        """The explanation for people."""
        deleted, like = self.sanity.deletion, self.sanity.likeness
        calibrated = ", not calibrated" if like is not None else ""  # an exported file gives final answers
        compared = UNCOMPARED if like is None else f"rank correlation with untrained networks {like.rank[0]:.2f}"
        return [
            *headline(self.path, self.prediction),
            f"evidence for {self.explained} ({self.method}): {self.place.words()}",
            f"test of this map: mean probability{calibrated}, {deleted.marked[0]:.3f} while what it marks is covered "
            f"first, {deleted.random[0]:.3f} at random; {compared}",
            *(f"Warning: {warning}." for warning in self.warnings),
            *(f"near: {n.path} ({n.label}), cosine {n.cosine:.3f}" for n in self.near),
        ]

    def _tests(self) -> dict[str, Any]:
        deleted, like = self.sanity.deletion, self.sanity.likeness
        return {
            "deletion": {name: float(getattr(deleted, name)[0]) for name in ("marked", "random", "least")},
            "rank_correlation": None if like is None else float(like.rank[0]),
            "similarity": None if like is None else float(like.similarity[0]),
            "passed": not self.warnings,
            "warnings": self.warnings,
        }


@dataclass(frozen=True)
class Asked:
    """A classifier and its explainer."""

    classifier: Classifier
    explainer: Explains

    @classmethod
    def load(cls, model: str | Path, method: str, device: str) -> Asked:
        """Of a model file, an exported one or a run folder. Raises ModelError, UsageError."""
        found = model_path(Path(model))
        return cls.exported(found, method, device) if is_onnx(found) else cls.of(load(found), found, method, device)

    @classmethod
    def of(cls, model: ModelFile, origin: Path, method: str, device: str) -> Asked:
        """Of a model file that is read already; `origin` names it in errors."""
        from plusx.engines.torch_engine import TorchEngine
        from plusx.explain.explainer import Explainer

        classifier = Classifier.of(model, device, origin)
        engine = classifier.engine
        assert isinstance(engine, TorchEngine), "made by Classifier.of"
        return cls(classifier, Explainer(model, engine, method))

    @classmethod
    def exported(cls, path: Path, method: str, device: str) -> Asked:
        """Of an exported file, without torch."""
        from plusx.engines.onnx_engine import OnnxEngine
        from plusx.explain.exported import ExportedExplainer

        classifier = Classifier.exported(path, device)
        engine = classifier.engine
        assert isinstance(engine, OnnxEngine), "made by Classifier.exported"
        return cls(classifier, ExportedExplainer(classifier.header, engine, method))


def explain(
    model: str | Path, image: str | Path, *, name: str | None = None, method: str = "auto", device: str = "auto"
) -> Explanation:
    """Why the model in a file or run folder answers for `image` as it does; or what speaks for the class `name`.

    `method`: auto, cam, grad-cam or occlusion; of an exported file, for which no torch is loaded, not grad-cam. Raises
    DataError for a photo that cannot be read, UsageError for an unknown class or method, ModelError.
    """
    asked, path = Asked.load(model, method, device), str(image)
    data, photo = _opened(asked.classifier, path)
    preprocess = asked.classifier.header.preprocess
    pixels = preprocess.from_bytes(data)[None]
    prediction = asked.classifier.answers(pixels)[0]
    explained = prediction.label if name is None else name
    labels = np.array([_label(explained, asked.classifier.classes)])
    evidence = asked.explainer.evidence(pixels, labels)
    box = preprocess.seen(photo.width, photo.height)
    lies = place(evidence.maps[0], box, photo.width, photo.height)
    near, thumbs, remark = _near(Path(model), asked, pixels, data)
    title = [*headline(path, prediction), f"evidence for {explained}: {lies.words()}"]
    return Explanation(
        path=path,
        prediction=prediction,
        explained=explained,
        method=asked.explainer.method,
        log_odds=float(evidence.log_odds[0]),
        place=lies,
        sanity=sanity(asked.explainer, pixels, labels, evidence.maps, networks=NETWORKS),
        near=near,
        remark=remark,
        map=evidence.maps[0],
        picture=sheet(photo, overlay(photo, box, evidence.maps[0], SIDE), title, thumbs),
    )


def headline(path: str, prediction: Prediction) -> list[str]:
    """The answer in two lines: the photo, and the likeliest classes."""
    likely = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:5]
    answer = f"{prediction.answer}: " + ", ".join(f"{name} {percent(p)}" for name, p in likely)
    return [path, answer]


def _opened(classifier: Classifier, path: str) -> tuple[bytes, Image.Image]:
    """The bytes of a photo, and the photo upright. Raises DataError, and UsageError for a folder."""
    if Path(path).is_dir():
        raise sentences.folder_given(Path(path))
    try:
        data = read(walk([path])[0].source)
        return data, decode(data, classifier.header.preprocess.background)
    except (Undecodable, OSError, IndexError) as error:
        raise use_errors.unreadable_photo(path, error) from None


def _label(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        raise sentences.unknown_class(name, classes)
    return classes.index(name)


def _near(
    model: Path, asked: Asked, pixels: Pixels, data: bytes
) -> tuple[tuple[Neighbour, ...], list[tuple[Image.Image, str]], str | None]:
    """The nearest training photos, those that can be shown with their captions, and what there is to say of them."""
    if not model.is_dir():
        return (), [], NO_FEATURES if is_onnx(model) else NEED_RUN
    kept = neighbours.read(model)
    if kept is None:
        return (), [], NONE_KEPT
    features = asked.explainer.features(pixels)
    assert features is not None, "a run folder holds a model file"
    near = kept.nearest(features[0], hashlib.sha256(data).hexdigest())
    there = neighbours.still_there(open_run(model).read("run")["data"], near)
    shown = [
        (decode(read(there[n.sha256].source)), f"{n.label}, {n.cosine:.3f}: {Path(n.path).name}")
        for n in near
        if n.sha256 in there
    ]
    return tuple(near), shown, None if len(shown) == len(near) else GONE
