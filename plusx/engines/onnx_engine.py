"""The ONNX engine: answers of an exported file, by ONNX Runtime. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from plusx import onnx_file
from plusx.engines.onnx_runtime import onnx_runtime
from plusx.errors import export as sentences
from plusx.errors import model_file
from plusx.images.pool import usable_cpus

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
        """Raises ModelError where the graph does not take photos of `pixels` px, where given, or answers otherwise."""
        self._session = _session(path)
        self.outputs = [output.name for output in self._session.get_outputs()]
        _refuse_inputs(path, self._session.get_inputs(), pixels)
        _refuse_outputs(path, self._session.get_outputs(), classes)

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


def _session(path: Path) -> Any:
    """The graph, ready. Raises UsageError without ONNX Runtime, ModelError for a file that it does not take.

    What is looked through is what the runtime gets: bytes, not a file that could be another one by then.
    """
    runtime, content = onnx_runtime(), _harmless(path)
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors: they come as exceptions as well
    options.intra_op_num_threads = usable_cpus()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as fast, and others get the processor
    options.add_session_config_entry("session.load_model_format", "ONNX")  # by its first bytes it could pass for ORT's
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has no base class of its own that is public
        raise model_file.damaged(
            path, f"ONNX Runtime does not take it ({' '.join(str(error).split())[:200]})"
        ) from None


def _harmless(path: Path) -> bytes:
    """The bytes of a file that names no other files and no operators but ONNX's own. Raises ModelError for others."""
    try:
        content = path.read_bytes()
        found = onnx_file.parts(content)
    except OSError as error:
        raise model_file.unreadable(path, error) from None
    except ValueError as error:
        raise model_file.foreign(path, f"no ONNX file, or a part of one ({error})") from None
    if found.external:
        raise sentences.external_data(path)
    if found.domains:
        raise sentences.foreign_operators(path, found.domains)
    if found.programs:
        raise sentences.programs_within(path)
    return content
