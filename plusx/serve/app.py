"""The service's paths: its page, its health, its model, and answers to photos."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from plusx.classifier import Prediction
from plusx.errors import Error
from plusx.errors import serve as sentences
from plusx.serve import inference_protocol, schemas
from plusx.serve.desk import Desk
from plusx.serve.page import Page
from plusx.serve.problems import MEDIA_TYPE, of_status, problem, reply
from plusx.serve.served import Explained
from plusx.serve.uploads import FIELD, FORM, Uploads
from plusx.version import __version__

LOG = logging.getLogger("plusx.serve")
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "properties": {FIELD: _BYTES["schema"]}, "required": [FIELD], "additionalProperties": False}
PHOTO = {"requestBody": {"required": True, "content": {
    "image/jpeg": _BYTES, "image/png": _BYTES, "application/octet-stream": _BYTES, FORM: {"schema": _FORM},
}}}  # fmt: skip
MEANINGS = {
    400: "The request cannot be read",
    401: "A token is needed",
    403: "The request comes from elsewhere",
    404: "There is no such model",
    408: "The request took too long to arrive",
    413: "The body is too large",
    415: "The body is of a type that holds no photo",
    422: "The photo cannot be used",
    500: "A fault of the service",
    503: "No room, or not ready",
    504: "No answer in time",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What is said of errors in /openapi.json."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": MEANINGS[status], "content": content} for status in statuses}


ANYTIME = problems(400, 401, 403)
CLASS = "class"
ASKING = problems(*MEANINGS.keys() - {404})


def service(desk: Desk, page: Page, on_ready: Callable[[], None], on_failure: Callable[[Error], None]) -> FastAPI:
    """The application. Its desk is opened in the background: `on_ready` or `on_failure` hears how that ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        opening = asyncio.create_task(_opened(desk, on_ready, on_failure))
        try:
            yield
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            await desk.close()

    app, uploads = bare("plusx", lifespan), Uploads(desk.limits)
    app.include_router(_answers(desk, uploads))  # first: paths are tried in this order
    app.include_router(_health(desk))
    app.include_router(_about(desk, page))
    app.include_router(inference_protocol.routes(desk, uploads, ASKING | problems(404)))
    return app


def bare(title: str, lifespan: Any = None) -> FastAPI:
    """An application without paths that says what is wrong as plusx says it. Its pages of documentation would load
    scripts from elsewhere, so it has none.
    """
    app = FastAPI(
        title=title, version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False
    )
    app.add_exception_handler(Error, _said)
    app.add_exception_handler(HTTPException, _routed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _fault)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        found = described()
        parts = found.setdefault("components", {}).setdefault("schemas", {})
        parts["Problem"] = schemas.Problem.model_json_schema()
        return found

    app.openapi = openapi  # type: ignore[method-assign]
    return app


async def _opened(desk: Desk, on_ready: Callable[[], None], on_failure: Callable[[Error], None]) -> None:
    try:
        await desk.open()
        if desk.ready:
            on_ready()
    except Error as error:
        on_failure(error)
    except Exception as error:
        on_failure(sentences.did_not_start(f"{type(error).__name__}: {error}"))


def _health(desk: Desk) -> APIRouter:
    router = APIRouter()

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", response_model=schemas.State, responses=problems(400, 403))
    async def alive() -> Response:
        """Whether the process lives."""
        return reply({"status": "ok"})

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", response_model=schemas.State, responses=problems(400, 403, 503))
    async def ready() -> Response:
        """Whether photos should be sent here: the self-test has passed, and the service is not about to end."""
        return reply({"status": "ready"}) if desk.ready else problem(desk.unready())

    return router


def _about(desk: Desk, page: Page) -> APIRouter:
    router = APIRouter()
    policy = {"Content-Security-Policy": page.policy}

    @router.head("/", include_in_schema=False)
    @router.get("/", include_in_schema=False)
    async def front() -> Response:
        return Response(page.body, headers=policy, media_type="text/html; charset=utf-8")

    @router.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **ANYTIME}, response_class=Response)
    async def metrics() -> Response:
        """What the service counts of itself, for Prometheus."""
        return Response(desk.gauges.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/v1/model", response_model=schemas.Model, responses=ANYTIME)
    async def model() -> Response:
        """The model that answers, and what is taken."""
        limits = desk.limits
        bounds = {
            "megabytes": limits.megabytes,
            "megapixels": limits.megapixels,
            "deadline_seconds": limits.deadline,
            "queue": limits.queue,
        }
        return reply(desk.served.about() | {"limits": bounds})

    return router


def _answers(desk: Desk, uploads: Uploads) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/predict", response_model=schemas.Answer, responses=ASKING, openapi_extra=PHOTO)
    async def predict(request: Request) -> Response:
        """The answer to a photo: the body itself, or the file `photo` of a form."""
        started = perf_counter()
        async with uploads.photo(request) as photo:
            answer = await desk.predict(photo)
        return reply(answered(answer, desk, started))

    explaining = PHOTO | {"parameters": [_class_of(desk.served.classifier.classes)]}

    @router.post("/explain", response_model=schemas.Explanation, responses=ASKING, openapi_extra=explaining)
    async def explain(request: Request) -> Response:
        """The answer to a photo, and what in it speaks for a class."""
        started = perf_counter()
        async with uploads.photo(request) as photo:
            found = await desk.explain(photo, request.query_params.get(CLASS))
        return reply(answered(found.prediction, desk, started) | explained(found))

    return router


def _class_of(classes: tuple[str, ...]) -> dict[str, Any]:
    """The parameter that names a class."""
    known = {"type": "string", "enum": list(classes)}
    return {"name": CLASS, "in": "query", "required": False, "schema": known, "description": "Else the likeliest class"}


def answered(answer: Prediction, desk: Desk, started: float) -> dict[str, Any]:
    """An answer as plain values."""
    return {
        **vars(answer),
        "milliseconds": round(1000 * (perf_counter() - started), 2),
        "model_sha256": desk.served.sha256,
    }


def explained(found: Explained) -> dict[str, Any]:
    """What is said beside the answer of why."""
    rows, columns = found.map.shape
    return {
        "class": found.explained,
        "method": found.method,
        "words": found.words,
        "box": list(found.box),
        "map": {"rows": rows, "columns": columns, "values": found.map.ravel().round(6).tolist()},
    }


async def _said(_: Request, error: Exception) -> Response:
    assert isinstance(error, Error), "registered for these"
    return problem(error)


async def _routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for these"
    refused = problem(of_status(error.status_code, request.method))
    refused.headers.update(_allow(error.headers))
    return refused


def _allow(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (headers or {}).items() if name.lower() == "allow"}


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "registered for these"
    first = error.errors()[0]
    return problem(sentences.malformed(f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))


async def _fault(request: Request, error: Exception) -> Response:
    LOG.error("a fault at %s: %s: %s", request.url.path, type(error).__name__, error)
    return problem(sentences.fault())
