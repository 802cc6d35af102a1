"""`plusx watch RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from plusx.cli.flags import Quiet, Switch, Whole


def watch(
    run: Annotated[Path, Parameter(name="RUN")],
    /,
    *,
    host: str = "127.0.0.1",
    port: Whole = 8001,
    token_file: Path | None = None,
    insecure: Switch = False,
    allow_host: Annotated[list[str] | None, Parameter(name="--allow-host", negative="")] = None,
    quiet: Quiet = False,
) -> int:
    """See a run's curves live in the browser, while it trains or afterwards.

    Curves, time left, photos and settings, read from the run folder as it grows; nothing is written there, and the
    training knows nothing of it.

    Parameters
    ----------
    run
        A run folder.
    host
        The address to listen on; any but this machine's own needs a token.
    port
        The port; 0 takes a free one.
    token_file
        A file with the token that every request has to bring; otherwise the environment's PLUSX_TOKEN.
    insecure
        Listen on an address that others can reach without any token.
    allow_host
        A name by which the page is called besides its address, such as that of a proxy.
    """
    from plusx.cli.terminal import console, result
    from plusx.serve.api import require_extra

    require_extra()
    from plusx.serve.address import Address, token_of
    from plusx.serve.watch_app import watch

    address = Address(host, port, token_of(token_file), insecure, tuple(allow_host or ()))

    def ready(url: str) -> None:
        result(f"watching {run} on {url}")
        if not quiet:
            console().print("Ctrl-C ends it; the training goes on.")

    return watch(run, address, ready)
