"""The ONNX engine: answers of an exported file, by ONNX Runtime. No torch."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from plusx.engines.onnx_graph import Graph
from plusx.errors import model_file
from plusx.model_file import MOST_SIDE

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

    def __init__(self, path: Path, classes: int, pixels: int | None = None) -> None:
        """Raises ModelError where the graph does not take photos of `pixels` px, where given, answers otherwise, or
        cannot answer for one photo in bounded memory and time.
        """
        self._graph = Graph(path)
        self._run = self._graph.run
        self.outputs = [output.name for output in self._graph.outputs]
        _refuse_inputs(path, self._graph.inputs, pixels)
        _refuse_outputs(path, self._graph.outputs, classes)
        side = self._graph.inputs[0].shape[1]
        if type(side) is int and 0 < side <= MOST_SIDE:
            self._graph.try_out(np.zeros((1, side, side, 3), np.uint8))

    @property
    def cores(self) -> int:
        """How many it computes on."""
        return self._graph.cores

    def on_one_core(self) -> OnnxEngine:
        """The same graph, computed by the thread that asks alone: as many threads as there are cores may ask."""
        engine = copy.copy(self)
        engine._run = self._graph.run_on_one_core
        return engine

    def answers(self, pixels: Pixels) -> Final:
        """What the graph says of pixels [n, S, S, 3]; novelty is NaN where it has no such score."""
        wanted = [name for name in (PROBABILITIES, NOVELTY) if name in self.outputs]
        found = dict(zip(wanted, self._run(wanted, pixels), strict=True))
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
        (found,) = self._run([EVIDENCE], pixels)
        return np.asarray(found, dtype=np.float32)


def _refuse_inputs(path: Path, inputs: Sequence[Any], pixels: int | None) -> None:
    """Raise ModelError unless there is one input, uint8 [n, S, S, 3]."""
    (name, kind, shape), *others = [(each.name, each.type, each.shape) for each in inputs] or [("nothing", "", [])]
    square = len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3
    sized = square and pixels in (None, shape[1])
    if others or (name, kind) != (INPUT, "tensor(uint8)") or not sized:
        side = "S" if pixels is None else pixels
        took = ", ".join(f"{each.name[:40]} {each.type} {each.shape}" for each in inputs)[:200] or "nothing"
        raise model_file.damaged(path, f"its graph takes {took}, and uint8 {INPUT} [n, {side}, {side}, 3] are expected")


def _refuse_outputs(path: Path, outputs: Sequence[Any], classes: int) -> None:
    """Raise ModelError unless probabilities [n, C] come out, and of the others only what is known, all float32."""
    shapes = {each.name: list(each.shape) for each in outputs}
    if PROBABILITIES not in shapes or shapes[PROBABILITIES][-1:] != [classes]:
        raise model_file.damaged(path, f"its graph does not give probabilities of {classes} classes")
    known = {PROBABILITIES: 2, NOVELTY: 1, EVIDENCE: 4}
    for each in outputs:
        named, places = each.name[:40], len(each.shape)
        if known.get(each.name) != places or each.type != "tensor(float)":
            raise model_file.damaged(path, f"its graph gives {named} {each.type} {each.shape}"[:200])
    if shapes.get(EVIDENCE, [0, classes])[1] != classes:
        raise model_file.damaged(path, f"its graph does not give {EVIDENCE} for {classes} classes")
