"""LitServe around ONNX Runtime, with its batching on: a photo as the file of a form, as its pages show it.

    python benchmarks/rivals/litserve_server.py MODEL PORT

Run by an interpreter that has LitServe, ONNX Runtime, Pillow, NumPy, SciPy, safetensors and python-multipart.
"""

import sys  # no annotations from __future__: LitServe compares that of decode_request with a type
from pathlib import Path
from typing import Any

import litserve  # type: ignore[import-not-found]
import numpy as np
from fastapi import Request

from plusx.engines.onnx_engine import OnnxEngine
from plusx.model_file import read_header

LARGEST, WAIT = 8, 0.005  # photos at once, seconds that the first of them waits for the others


class Photos(litserve.LitAPI):
    """Decodes and computes in its one worker process, which has both cores."""

    model: Path

    def setup(self, device: str) -> None:  # noqa: ARG002 it is the CPU
        """Load the graph."""
        self._header = read_header(self.model)
        self._engine = OnnxEngine(self.model, len(self._header.classes))

    def decode_request(self, request: Request) -> Any:
        """The pixels [S, S, 3] of the file `photo` of a form."""
        return self._header.preprocess.from_bytes(request["photo"].file.read())

    def batch(self, inputs: list[Any]) -> Any:
        """Pixels [n, S, S, 3]."""
        return np.stack(inputs)

    def predict(self, pixels: Any) -> Any:
        """Probabilities [n, C]."""
        return self._engine.answers(pixels).probabilities

    def unbatch(self, output: Any) -> list[Any]:
        """Rows, one a request."""
        return list(output)

    def encode_response(self, output: Any) -> dict[str, Any]:
        """The answer for one photo."""
        classes = self._header.classes
        return {"label": classes[int(output.argmax())], "probabilities": dict(zip(classes, map(float, output)))}  # noqa: B905


if __name__ == "__main__":
    api = Photos(max_batch_size=LARGEST, batch_timeout=WAIT)
    api.model = Path(sys.argv[1])
    server = litserve.LitServer(api, accelerator="cpu", timeout=30)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
