"""`plusx watch RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from plusx.cli.flags import AllowHost, Host, Insecure, Port, Quiet, TokenFile


def watch(
    run: Annotated[Path, Parameter(name="RUN")],
    /,
    *,
    host: Host = "127.0.0.1",
    port: Port = 8001,
    token_file: TokenFile = None,
    insecure: Insecure = False,
    allow_host: AllowHost = None,
    quiet: Quiet = False,
) -> int:
    """See a run's curves live in the browser, while it trains or afterwards.

    Curves, time left, photos and settings, read from the run folder as it grows; nothing is written there, and the
    training knows nothing of it.

    Parameters
    ----------
    run
        A run folder.
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
