"""The graph of an exported file, run so that no core waits for another: one photo on all of them, many photos each."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx import onnx_file
from plusx.engines.onnx_bounds import MOST_BYTES, MOST_SECONDS, bounded_memory, ended_after
from plusx.engines.onnx_runtime import onnx_runtime
from plusx.errors import export as sentences
from plusx.errors import model_file
from plusx.images.pool import usable_cpus
from plusx.tensor_file import read_regular

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

SILENT = 4  # what goes wrong comes as an exception as well; printed, names in the file would reach a terminal
TIMES = 8  # the bytes of a file that a session takes
PIECES = 2  # for each core, so that one that is held up leaves its second piece to the others


class Graph:
    """An exported file in ONNX Runtime. Threads that share a photo wait for each other at every layer, so where one is
    held up by other work all are; threads with photos of their own are not, and a small network is quicker so, too.

    That needs the weights a second time, from the first batch on that is shared out.
    """

    def __init__(self, path: Path) -> None:
        """Raises UsageError without ONNX Runtime, ModelError for a file that it does not take.

        What is looked through is what the runtime gets: bytes, not a file that could be another one by then.
        """
        self._path, self.cores = path, usable_cpus()
        self._content = _harmless(path)
        most = MOST_BYTES + TIMES * len(self._content)
        with bounded_memory(most):  # it computes what is constant as soon as it is loaded
            self._together = _session(path, self._content, self.cores)
        self._single = self._together if self.cores == 1 else None
        self._making = threading.Lock()
        self._threads = ThreadPoolExecutor(self.cores, "plusx-network")
        self.inputs: list[Any] = self._together.get_inputs()
        self.outputs: list[Any] = self._together.get_outputs()

    def try_out(self, pixels: Pixels) -> None:
        """Compute pixels [1, S, S, 3] within bounds. Raises ModelError where that fails or takes too much.

        A graph can ask for any memory and time, and what one photo takes is known by computing one alone.
        """
        names = [output.name for output in self.outputs]
        options = onnx_runtime().RunOptions()
        options.log_severity_level = SILENT
        try:
            with bounded_memory(MOST_BYTES), ended_after(options, MOST_SECONDS):
                found = self._together.run(names, {self.inputs[0].name: pixels}, options)
        except Exception as error:  # it has no base class of its own that is public
            raise model_file.damaged(self._path, f"its graph cannot be computed ({_told(error)})") from None
        if any(len(np.atleast_1d(each)) != 1 for each in found):
            raise model_file.damaged(self._path, "its graph does not give one answer for one photo")

    def run(self, wanted: Sequence[str], pixels: Pixels) -> list[Array]:
        """The outputs of those names, each [n, ...], for pixels [n, S, S, 3] of at least one photo."""
        shared = len(pixels) - len(pixels) % self.cores if self.cores > 1 else 0
        found = self._shared_out(wanted, pixels[:shared]) if shared else []
        if shared < len(pixels):
            found.append(_outputs(self._together, wanted, pixels[shared:]))
        return [np.concatenate(parts) if len(found) > 1 else parts[0] for parts in zip(*found, strict=True)]

    def _shared_out(self, wanted: Sequence[str], pixels: Pixels) -> list[list[Array]]:
        """Outputs of the pieces in order; larger pieces come first."""
        pieces = np.array_split(pixels, min(len(pixels), PIECES * self.cores))
        return list(self._threads.map(lambda piece: self.run_on_one_core(wanted, piece), pieces))

    def run_on_one_core(self, wanted: Sequence[str], pixels: Pixels) -> list[Array]:
        """The same, computed by the thread that asks alone: other threads may ask meanwhile."""
        with self._making:
            if self._single is None:
                self._single, self._content = _session(self._path, self._content, 1), b""
        return _outputs(self._single, wanted, pixels)


def _outputs(session: Any, wanted: Sequence[str], pixels: Pixels) -> list[Array]:
    found: list[Array] = session.run(list(wanted), {session.get_inputs()[0].name: np.ascontiguousarray(pixels)})
    return found


def _session(path: Path, content: bytes, threads: int) -> Any:
    runtime = onnx_runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as fast, and others get the processor
    options.add_session_config_entry("session.load_model_format", "ONNX")  # by its first bytes it could pass for ORT's
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has no base class of its own that is public
        raise model_file.damaged(path, f"ONNX Runtime does not take it ({_told(error)})") from None


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _harmless(path: Path) -> bytes:
    """The bytes of a whole file that names no other files and only operators of ONNX; raises ModelError for others."""
    try:
        content = read_regular(path)
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
    if found.loops:
        raise sentences.loops_within(path)
    if not onnx_file.is_as_written(content):
        raise sentences.changed_since(path)
    return content
