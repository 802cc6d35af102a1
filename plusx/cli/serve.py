"""`plusx serve MODEL`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from plusx.cli.flags import AllowHost, Host, Insecure, Port, Quiet, TokenFile, Whole


def serve(
    model: Annotated[Path, Parameter(name="MODEL")],
    /,
    *,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token_file: TokenFile = None,
    insecure: Insecure = False,
    allow_host: AllowHost = None,
    queue: Whole = 64,
    deadline: float = 10,
    max_megabytes: float = 20,
    max_megapixels: float = 25,
    workers: Whole | None = None,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    quiet: Quiet = False,
) -> int:
    """Serve a model over HTTP, with a page to drop photos on; SIGTERM or Ctrl-C ends it in order.

    Photos are decoded in processes of their own, answered in batches, and not kept. Bodies, pixels, waiting and
    connections are bounded; what is refused is told in a sentence (RFC 9457). An exported file starts fastest.

    Parameters
    ----------
    model
        A run folder, a model file or an exported file.
    queue
        Photos that may be in hand; more are refused with 503 and when to come again.
    deadline
        The most seconds from a photo's arrival to its answer.
    max_megabytes
        The largest body.
    max_megapixels
        The largest photo.
    workers
        Processes that decode; otherwise one for each CPU.
    precision
        auto: bf16 where the processor multiplies in it; exported files keep their own.
    """
    from plusx.cli.terminal import console, result
    from plusx.serve.address import Address, token_of
    from plusx.serve.api import require_extra, serve
    from plusx.serve.limits import Limits
    from plusx.serve.supervisor import tell_supervisor

    require_extra()
    address = Address(host, port, token_of(token_file), insecure, tuple(allow_host or ()))
    limits = Limits(max_megabytes, max_megapixels, deadline, queue, workers)

    if (out := console(quiet)).is_terminal:
        out.print("Loading the model, and testing it ...")

    def ready(name: str, url: str) -> None:
        result(f"serving {name} on {url}")
        sys.stdout.flush()  # whoever started it may wait for this line
        tell_supervisor("READY=1")
        if not quiet:
            console().print("Ctrl-C ends it; photos that are in hand are answered first.")

    return serve(model, address, limits=limits, precision=precision, on_ready=ready)
