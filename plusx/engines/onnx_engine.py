"""The ONNX engine: answers of an exported file, by ONNX Runtime. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from plusx.errors import export as sentences
from plusx.errors import model_file

Key = TypeVar("Key")
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

INPUT, PROBABILITIES, NOVELTY, EVIDENCE = "pixels", "probabilities", "novelty", "evidence"  # names in the file
BATCH = 64  # photos at once


class Final(NamedTuple):
    """Calibrated probabilities [n, C] and novelty [n], as the graph gives them; `descriptors` are in the graph."""

    probabilities: Floats
    novelty: Floats
    descriptors: None = None


class OnnxEngine:
    """The graph of an exported file, on all CPUs that there are; views, calibration and novelty are in it."""

    streams, most = 1, BATCH

    def __init__(self, path: Path, classes: int) -> None:
        self._session = _session(path)
        self.outputs = [output.name for output in self._session.get_outputs()]
        shapes = {output.name: output.shape for output in self._session.get_outputs()}
        if PROBABILITIES not in shapes or shapes[PROBABILITIES][-1] != classes:
            raise model_file.damaged(path, f"its graph does not give probabilities of {classes} classes")

    def answers(self, pixels: Pixels) -> Final:
        """What the graph says of pixels [n, S, S, 3]; novelty is NaN where it has no such score."""
        wanted = [name for name in (PROBABILITIES, NOVELTY) if name in self.outputs]
        found = dict(zip(wanted, self._session.run(wanted, {INPUT: np.ascontiguousarray(pixels)}), strict=True))
        unknown = np.full(len(pixels), np.nan, dtype=np.float32)
        return Final(found[PROBABILITIES], found.get(NOVELTY, unknown))

    def many(self, batches: Iterable[tuple[Key, Pixels]]) -> Iterator[tuple[Key, Final]]:
        """Answers for every batch, with the key it came with, in order."""
        return ((key, self.answers(pixels)) for key, pixels in batches)

    @property
    def gives_evidence(self) -> bool:
        """Whether the graph says what every place contributes."""
        return EVIDENCE in self.outputs

    def evidence(self, pixels: Pixels) -> Floats | None:
        """What every place contributes to each class [n, C, h, w], by the first view; None where the graph has none."""
        if not self.gives_evidence:
            return None
        (found,) = self._session.run([EVIDENCE], {INPUT: np.ascontiguousarray(pixels)})
        return np.asarray(found, dtype=np.float32)


def _session(path: Path) -> Any:
    """The graph, ready. Raises UsageError without ONNX Runtime, ModelError for a file that it does not take."""
    try:
        import onnxruntime
    except ImportError:
        raise sentences.no_runtime() from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: they come as exceptions as well
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has no base class of its own that is public
        raise model_file.damaged(
            path, f"ONNX Runtime does not take it ({' '.join(str(error).split())[:200]})"
        ) from None
