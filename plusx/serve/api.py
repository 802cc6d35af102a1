"""`plusx.serve`: what the extra `plusx[serve]` brings is looked for first, and imported when it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from plusx.errors import serve as sentences
from plusx.serve.address import Address

if TYPE_CHECKING:
    from plusx.serve.limits import Limits


def serve(
    model: str | Path,
    address: Address | None = None,
    *,
    limits: Limits | None = None,
    precision: str = "auto",
    on_ready: Callable[[str, str], None] | None = None,
) -> int:
    """Serve `model` over HTTP until SIGTERM: `plusx.serve.start.serve_model`. Raises UsageError without the extra."""
    require_extra()
    from plusx.serve.limits import Limits
    from plusx.serve.start import serve_model

    return serve_model(Path(model), address or Address(), limits or Limits(), precision=precision, on_ready=on_ready)


def require_extra() -> None:
    """Raises UsageError where what serving needs is not installed."""
    try:
        import fastapi  # noqa: F401 - whether they are there
        import httptools  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
        import uvloop  # noqa: F401
    except ImportError:
        raise sentences.no_server() from None
