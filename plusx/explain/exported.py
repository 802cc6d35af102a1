"""An exported file that is asked why, without torch: its graph says what every place contributes to every class.

The graph takes uint8 pixels, so a part of a photo is cut out of these and scaled back to their size by Pillow, rounded
to whole levels, where the network of PyTorch is given what lies between them. A graph that scales what it is given
smooths it, so there the part is enlarged by a filter that does not: straight lines would smooth it twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from plusx.engines.onnx_engine import OnnxEngine
from plusx.errors import explain as sentences
from plusx.explain import occlusion, windows
from plusx.explain.evidence import CLOSER, METHODS, PLACES, Evidence, batches, contrasts, occlusions
from plusx.explain.windows import Window
from plusx.model_file import Header

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Look = tuple[Window, npt.NDArray[np.float32]]  # what was looked at, and what its places contribute [n, C, h, w]

COARSE = 4  # steps of a quick occlusion


def evidence_of(
    engine: OnnxEngine, header: Header, pixels: Pixels, label: int, *, quick: bool = False
) -> tuple[Floats, str]:
    """What speaks for the class `label` in one preprocessed photo [1, S, S, 3]: a map [GRID, GRID], and the method.

    The method is "cam" where the graph gives evidence, else "occlusion". `quick`: by the model's views alone, or by
    fewer squares.
    """
    explainer = ExportedExplainer(header, engine, quick=quick)
    return explainer.evidence(pixels, np.array([label])).maps[0], explainer.method


class ExportedExplainer:
    """The graph of an exported file with one method of explaining it.

    `method` is "auto" (CAM where the graph gives evidence, else occlusion), "cam" or "occlusion". Raises UsageError for
    another, and for one that the graph does not allow.
    """

    def __init__(self, header: Header, engine: OnnxEngine, method: str = "auto", *, quick: bool = False) -> None:
        self.header, self.engine, self.quick = header, engine, quick
        scales = header.size not in (None, header.preprocess.crop)
        self._enlarging = Image.Resampling.LANCZOS if scales else Image.Resampling.BILINEAR
        self.method = _chosen(method, str(header.network["name"]), pooled=engine.gives_evidence)

    def randomised(self, number: int) -> Self | None:
        """None: a graph is what was learned, and names no network that could learn anew."""

    def features(self, pixels: Pixels) -> None:
        """None: the graph gives none."""

    def evidence(self, pixels: Pixels, labels: Labels) -> Evidence:
        """Maps for the classes `labels` [n] of preprocessed photos [n, S, S, 3]."""
        return Evidence.of_parts([self._evidence(pixels[part], labels[part]) for part in batches(len(pixels))])

    def _evidence(self, pixels: Pixels, labels: Labels) -> Evidence:
        contrast = contrasts(labels, len(self.header.classes))
        views = windows.of_views(self.header.views)
        looks = self._looks(pixels, views)
        odds = np.array([_contrasted(found, contrast).mean((1, 2)) for _, found in looks])
        log_odds = odds.mean(0) if looks else np.full(len(pixels), np.nan)
        if self.method == "occlusion":
            steps = COARSE if self.quick else occlusion.STEPS
            return Evidence(occlusions(self._probabilities, pixels, labels, self.header, steps), log_odds)
        looks += [] if self.quick else self._looks(pixels, windows.sliding(CLOSER, PLACES))
        return Evidence(windows.joined((look, _contrasted(found, contrast)) for look, found in looks), log_odds)

    def _looks(self, pixels: Pixels, parts: Sequence[Window]) -> list[Look]:
        """What the graph finds in parts of the photos; none where it gives no evidence.

        It looks at what it is given by the first of its views, usually all of it: what is mirrored by that is mirrored
        before, and what lies within the part is where it looked.
        """
        (first,) = windows.of_views(self.header.views[:1])
        given = [part._replace(mirrored=part.mirrored != first.mirrored) for part in parts]
        found = [(first.within(part), self.engine.evidence(cut(pixels, part, self._enlarging))) for part in given]
        return [(look, values) for look, values in found if values is not None]

    def _probabilities(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        return self.engine.answers(pixels).probabilities


def cut(pixels: Pixels, window: Window, by: Image.Resampling = Image.Resampling.BILINEAR) -> Pixels:
    """The part of photos [n, S, S, 3] in the window, enlarged to the size of the whole: uint8 [n, S, S, 3]."""
    side = pixels.shape[1]
    left, top = window.left * side, window.top * side
    box = (left, top, min(side, left + window.share * side), min(side, top + window.share * side))
    shown = pixels if window.share == 1 else np.stack([_enlarged(photo, box, by) for photo in pixels])
    return shown[:, :, ::-1] if window.mirrored else shown


def _enlarged(photo: Pixels, box: tuple[float, float, float, float], by: Image.Resampling) -> Pixels:
    image = Image.fromarray(photo)
    return np.asarray(image.resize(image.size, by, box=box))


def _contrasted(found: npt.NDArray[np.float32], contrast: npt.NDArray[np.float32]) -> Floats:
    """What places contribute to all classes [n, C, h, w] as what they say for one against the others: [n, h, w]."""
    return np.asarray(np.einsum("nchw,nc->nhw", found, contrast), dtype=np.float64)


def _chosen(method: str, name: str, *, pooled: bool) -> str:
    if method not in METHODS:
        raise sentences.unknown_method(method, METHODS)
    if method == "grad-cam":
        raise sentences.no_gradients()
    if method == "cam" and not pooled:
        raise sentences.no_evidence(name)
    if method == "auto":
        return "cam" if pooled else "occlusion"
    return method
