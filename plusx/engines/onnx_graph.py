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
from plusx.engines.onnx_runtime import onnx_runtime
from plusx.errors import export as sentences
from plusx.errors import model_file
from plusx.images.pool import usable_cpus

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

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
        self._together = _session(path, self._content, self.cores)
        self._single = self._together if self.cores == 1 else None
        self._making = threading.Lock()
        self._threads = ThreadPoolExecutor(self.cores, "plusx-network")
        self.inputs: list[Any] = self._together.get_inputs()
        self.outputs: list[Any] = self._together.get_outputs()

    def run(self, wanted: Sequence[str], pixels: Pixels) -> list[Array]:
        """The outputs of those names, each [n, ...], for pixels [n, S, S, 3]."""
        shared = len(pixels) - len(pixels) % self.cores if self.cores > 1 else 0
        found = self._shared_out(wanted, pixels[:shared]) if shared else []
        if shared < len(pixels) or not shared:
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
    options.log_severity_level = 3  # errors: they come as exceptions as well
    options.intra_op_num_threads = threads
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
