"""A plain FastAPI handler around ONNX Runtime, as one would write it first: no queue, no limits, no batches.

python benchmarks/rivals/plain_server.py MODEL PORT
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

from plusx.engines.onnx_engine import OnnxEngine
from plusx.model_file import read_header


def application(model: Path) -> FastAPI:
    """POST /predict: the body is a photo, the answer its probabilities."""
    header = read_header(model)
    engine = OnnxEngine(model, len(header.classes))
    app = FastAPI()

    def answer(data: bytes) -> dict[str, Any]:
        (row,) = engine.answers(header.preprocess.from_bytes(data)[None]).probabilities
        return {"label": header.classes[row.argmax()], "probabilities": dict(zip(header.classes, map(float, row)))}  # noqa: B905

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(answer, await request.body())

    @app.get("/health")
    async def health() -> str:
        return "ok"

    return app


if __name__ == "__main__":
    uvicorn.run(application(Path(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
