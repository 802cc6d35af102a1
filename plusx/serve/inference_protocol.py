"""The Open Inference Protocol, version 2 (KServe): the same answers for clients that speak it.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from plusx.classifier import Prediction
from plusx.errors import serve as sentences
from plusx.images.preprocess import Pixels
from plusx.serve.desk import Desk
from plusx.serve.problems import problem, reply
from plusx.serve.uploads import Uploads
from plusx.version import __version__

PHOTOS, PIXELS = "photo", "pixels"
MOST = 64  # photos of one request


class Tensor(BaseModel):
    """A tensor by name: `photo` BYTES [n], each a file in base64, or `pixels` UINT8 [n, S, S, 3]."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class Asked(BaseModel):
    """A request."""

    id: str | None = Field(default=None, max_length=200)
    inputs: list[Tensor] = Field(min_length=1, max_length=1)


class Replied(BaseModel):
    """A reply: probabilities FP32 [n, C], answer BYTES [n], novelty FP32 [n]."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]


class Alive(BaseModel):
    """Whether the service lives."""

    live: bool


class Ready(BaseModel):
    """Whether it is ready, or one of its models."""

    name: str | None = None
    ready: bool


def routes(desk: Desk, uploads: Uploads, responses: dict[int | str, dict[str, Any]]) -> APIRouter:
    """The paths below /v2."""
    router = APIRouter(prefix="/v2", responses={key: responses[key] for key in (400, 401, 403, 404)})
    _health(router, desk, responses)
    _models(router, desk, uploads, responses)
    return router


def _health(router: APIRouter, desk: Desk, responses: dict[int | str, dict[str, Any]]) -> None:
    @router.get("", include_in_schema=False)
    async def server() -> Response:
        return reply({"name": "plusx", "version": __version__, "extensions": []})

    @router.get("/health/live", response_model=Alive)
    async def live() -> Response:
        """Whether the service lives."""
        return reply({"live": True})

    @router.get("/health/ready", response_model=Ready, responses={503: responses[503]})
    async def ready() -> Response:
        """Whether every model is ready."""
        return reply({"ready": True}) if desk.ready else problem(desk.unready())


def _models(router: APIRouter, desk: Desk, uploads: Uploads, responses: dict[int | str, dict[str, Any]]) -> None:
    name = desk.served.name
    schema = Asked.model_json_schema(ref_template="#/components/schemas/{model}")
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}

    @router.get("/models/{model}")
    async def about(model: str) -> Response:
        """Names, types and shapes of what goes in and comes out."""
        _known(model, name)
        return reply(metadata(desk))

    @router.get("/models/{model}/ready", response_model=Ready, responses={503: responses[503]})
    async def model_ready(model: str) -> Response:
        """Whether this model is ready."""
        _known(model, name)
        ready = {"name": name, "ready": True}
        return reply(ready) if desk.ready else problem(desk.unready())

    @router.post("/models/{model}/infer", response_model=Replied, responses=responses, openapi_extra=body)
    async def infer(model: str, request: Request) -> Response:
        """Answers to several photos."""
        _known(model, name)
        async with uploads.body(request) as content:
            asked = await asyncio.to_thread(_parsed, content)
            answers = await _answers(desk, asked.inputs[0])
        return reply(_replied(desk, asked.id, answers))


def metadata(desk: Desk) -> dict[str, Any]:
    """What the protocol says of a model."""
    side, classes = desk.served.classifier.header.preprocess.crop, len(desk.served.classifier.classes)
    return {
        "name": desk.served.name,
        "versions": [desk.served.sha256[:12]],
        "platform": "plusx",
        "inputs": [
            {"name": PHOTOS, "datatype": "BYTES", "shape": [-1]},
            {"name": PIXELS, "datatype": "UINT8", "shape": [-1, side, side, 3]},
        ],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
            {"name": "answer", "datatype": "BYTES", "shape": [-1]},
            {"name": "novelty", "datatype": "FP32", "shape": [-1]},
        ],
    }


def _replied(desk: Desk, asked: str | None, answers: list[Prediction]) -> dict[str, Any]:
    """The reply to a request of that id. A photo without a score of novelty gets none at all: JSON has no NaN."""
    n, classes = len(answers), len(desk.served.classifier.classes)
    rows = [p for answer in answers for p in answer.probabilities.values()]
    outputs = [
        {"name": "probabilities", "datatype": "FP32", "shape": [n, classes], "data": rows},
        {"name": "answer", "datatype": "BYTES", "shape": [n], "data": [answer.answer for answer in answers]},
    ]
    if all(answer.novelty is not None for answer in answers):
        scores = [answer.novelty for answer in answers]
        outputs.append({"name": "novelty", "datatype": "FP32", "shape": [n], "data": scores})
    said = {"model_name": desk.served.name, "model_version": desk.served.sha256[:12], "outputs": outputs}
    return said | ({"id": asked} if asked is not None else {})


def _known(model: str, name: str) -> None:
    if model != name:
        raise sentences.no_such_model(model, name)


def _parsed(body: bytes) -> Asked:
    try:
        return Asked.model_validate(json.loads(body))
    except (ValueError, RecursionError) as error:
        first = str(error).splitlines()[0][:200]
        raise sentences.bad_inference(f"is not as the protocol says ({first})") from None


async def _answers(desk: Desk, tensor: Tensor) -> list[Prediction]:
    if tensor.name == PHOTOS:
        return await desk.predict_all(await asyncio.to_thread(_photos, tensor))
    if tensor.name == PIXELS:
        side = desk.served.classifier.header.preprocess.crop
        return await desk.predict_all(list(await asyncio.to_thread(_pixels, tensor, side)))
    raise sentences.bad_inference(f"has the input {tensor.name[:80]!r}; {PHOTOS!r} and {PIXELS!r} are taken")


def _photos(tensor: Tensor) -> list[bytes]:
    count = len(tensor.data)
    if tensor.datatype != "BYTES" or tensor.shape != [count] or not 1 <= count <= MOST:
        raise sentences.bad_inference(f"has photos that are not BYTES [n], 1 to {MOST} of them")
    try:
        return [base64.b64decode(item, validate=True) for item in tensor.data]
    except (binascii.Error, ValueError, TypeError):
        raise sentences.bad_inference("has a photo that is not in base64") from None


def _pixels(tensor: Tensor, side: int) -> Pixels:
    shape = tensor.shape
    fits = len(shape) == 4 and shape[1:] == [side, side, 3] and 1 <= shape[0] <= MOST
    if tensor.datatype != "UINT8" or not fits:
        raise sentences.bad_inference(f"has pixels that are not UINT8 [n, {side}, {side}, 3], 1 to {MOST} photos")
    try:
        values = np.array(tensor.data, dtype=np.float64).ravel()
    except (ValueError, TypeError, OverflowError):
        raise sentences.bad_inference("has pixels that are no numbers") from None
    if len(values) != math.prod(shape) or not ((values >= 0) & (values <= 255) & (values % 1 == 0)).all():
        raise sentences.bad_inference("has pixels that are too many or too few, or no whole numbers from 0 to 255")
    return values.astype(np.uint8).reshape(shape)
