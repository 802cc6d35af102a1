"""The control of the memory test: the same server, which keeps a few hundred bytes of every request for ever.

    python benchmarks/serving/leaking.py serve MODEL ...

The arguments are those of plusx. Whatever application uvicorn is given is wrapped.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from plusx.cli.run import run

BYTES = 400
kept: list[bytearray] = []


def leaking(app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """`app`, with every request remembered."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            kept.append(bytearray(BYTES))
        await app(scope, receive, send)

    return wrapped


def main() -> int:
    """Run plusx with uvicorn's applications wrapped."""
    make = uvicorn.Config.__init__

    def leak(self: uvicorn.Config, app: Any, *rest: Any, **named: Any) -> None:
        make(self, leaking(app), *rest, **named)

    uvicorn.Config.__init__ = leak  # type: ignore[method-assign]
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
