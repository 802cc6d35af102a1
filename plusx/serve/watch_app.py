"""The addresses of a run that is watched; who may ask, and for how long, is decided around them."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import HTMLResponse, JSONResponse

from plusx.serve.album import Album
from plusx.serve.watched import WatchedRun

PAGE = Path(__file__).with_name("watch.html")

_KINDS = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png"}


def routes(watched: WatchedRun, album: Album, page: str) -> APIRouter:
    """`/`, `/v1/run`, `/v1/run/images/N`, `/healthz` and `/readyz` of one run. Each look is made in a thread."""
    router = APIRouter()

    @router.get("/", response_class=HTMLResponse)
    async def shown() -> HTMLResponse:
        return HTMLResponse(page)

    @router.get("/healthz")
    async def alive() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @router.get("/v1/run")
    def run(if_none_match: Annotated[str | None, Header()] = None) -> Response:
        seen = watched.look()
        said = seen.to_json() | {"size": seen.size, "images": album.of(seen).to_json()}
        return _unless_known(said, if_none_match)

    @router.get("/v1/run/images/{number}")
    def image(number: int) -> Response:
        pictures = album.of(watched.look()).pictures
        if not 0 <= number < len(pictures):
            return _problem(404, "no-image", f"There is no image {number}; the run has {len(pictures)} at the moment.")
        return Response(pictures[number], media_type=_KINDS[pictures[number][:2]])

    return router


def _unless_known(said: dict[str, Any], known: str | None) -> Response:
    """The run as JSON, or 304 where the asker has it already.

    `age`, the seconds since the run last wrote, is new at each look, and alone it is no news.
    """
    tag = f'W/"{hashlib.sha256(_json(said)).hexdigest()[:32]}"'
    if known is not None and tag in {one.strip() for one in known.split(",")}:
        return Response(status_code=304, headers={"ETag": tag})
    age = None if said["written"] is None else max(0.0, round(time.time() - said["written"], 1))
    return Response(_json(said | {"age": age}), media_type="application/json", headers={"ETag": tag})


def _json(said: dict[str, Any]) -> bytes:
    """ASCII: names need not be UTF-8."""
    return json.dumps(said, separators=(",", ":"), allow_nan=False).encode()


def _problem(status: int, code: str, detail: str) -> JSONResponse:
    said = {"type": "about:blank", "title": "Not Found", "status": status, "detail": detail, "code": code}
    return JSONResponse(said, status, media_type="application/problem+json")
