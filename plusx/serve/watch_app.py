"""A run that is watched, over HTTP: its page and its addresses; who may ask is decided around them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.responses import JSONResponse, Response

from plusx.errors import watch as sentences
from plusx.run_folder import RunFolder, open_run
from plusx.serve.address import Address
from plusx.serve.album import Album
from plusx.serve.app import bare
from plusx.serve.page import Page
from plusx.serve.problems import problem
from plusx.serve.start import serve_app
from plusx.serve.watched import WatchedRun

PAGE = Path(__file__).with_name("watch.html")

_KINDS = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png"}


def watch(path: Path, address: Address, on_ready: Callable[[str], None]) -> int:
    """Show the run in `path` over HTTP until SIGTERM; the exit code. `on_ready` hears the URL.

    Raises ModelError where there is no run, RunError where it cannot listen.
    """
    run = run_to_watch(path)
    with Album(run) as album:
        app = bare("plusx watch")
        app.include_router(routes(WatchedRun(run), album, Page.of(PAGE.read_text(encoding="utf-8"))))
        return serve_app(app, address, on_ready)


def run_to_watch(path: Path) -> RunFolder:
    """The run in a folder. Raises ModelError where there is none, none yet, or one for each of several seeds."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        raise sentences.nothing_yet(path)
    if (path / "seeds.json").exists():
        raise sentences.several_runs(path, sorted(path.glob("seed-*")))
    return open_run(path)


def routes(watched: WatchedRun, album: Album, page: Page) -> APIRouter:
    """`/`, `/v1/run`, `/v1/run/images/N`, `/healthz` and `/readyz` of one run. Each look is made in a thread."""
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def front() -> Response:
        return Response(
            page.body, headers={"Content-Security-Policy": page.policy}, media_type="text/html; charset=utf-8"
        )

    @router.get("/healthz", response_class=JSONResponse)
    async def alive() -> Response:
        """Whether the process lives."""
        return JSONResponse({"status": "ok"})

    @router.get("/readyz", response_class=JSONResponse)
    async def ready() -> Response:
        """Whether it answers: a run can be looked at from the first moment."""
        return JSONResponse({"status": "ready"})

    @router.get("/v1/run", response_class=JSONResponse)
    def run(if_none_match: Annotated[str | None, Header()] = None) -> Response:
        """The run as it is now; 304 where nothing has changed."""
        seen = watched.look()
        said = seen.to_json() | {"size": seen.size, "images": album.of(seen).to_json()}
        return _unless_known(said, if_none_match)

    @router.get("/v1/run/images/{number}", response_class=Response)
    def image(number: int) -> Response:
        """One of the photos that `images` of the run names, in their order."""
        pictures = album.of(watched.look()).pictures
        if not 0 <= number < len(pictures):
            return problem(sentences.no_image(number, len(pictures)))
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
