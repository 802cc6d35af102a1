"""An application on a socket, until it is told to stop: then what has come is finished, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from plusx.errors import serve as sentences
from plusx.serve.connection import patient
from plusx.serve.guard import App
from plusx.serve.limits import Limits

BACKLOG = 2048
SENT = 64 << 10  # bytes of a reply that the kernel keeps: for a client that reads nothing it would take megabytes
SPARE_FILES = 256  # descriptors that are kept for other things than connections


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises RunError where the port is taken or may not be used."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT)
    except (OSError, UnicodeError) as error:
        raise sentences.cannot_listen(host, port, getattr(error, "strerror", None) or str(error)) from None
    try:
        found.bind(address)
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        raise sentences.cannot_listen(host, port, error.strerror or str(error)) from None
    return found


def address_of(listener: socket.socket) -> str:
    """http://HOST:PORT of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: App, listener: socket.socket, limits: Limits, on_stop: Callable[[], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, finish what has come, and return the exit code: 0, or 130 after a second signal.

    `on_stop` hears the first signal at once; for `limits.lag_seconds` after it requests are taken as before.
    """
    room = allow_files(limits.connections + SPARE_FILES) - SPARE_FILES
    logging.getLogger("uvicorn").disabled = True
    for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).disabled = True
    config = uvicorn.Config(
        app,
        http=patient(limits, min(limits.connections, max(16, room))),
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=limits.drain_seconds,
    )
    server = _Server(config, limits.lag_seconds, on_stop)
    server.run(sockets=[listener])
    return 130 if server.force_exit else 0


def allow_files(wanted: int) -> int:
    """Raise the number of files this process may have open to `wanted` where that is allowed; the number now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if soft == resource.RLIM_INFINITY else soft


class _Server(uvicorn.Server):
    """Ends in steps: not ready, then no new connections, then idle ones closed, then what is in hand finished."""

    def __init__(self, config: uvicorn.Config, lag: float, on_stop: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._lag, self._on_stop = lag, on_stop
        self._stopping = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours while the server runs; uvicorn would raise them once more afterwards."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as Python calls it
        """The first signal stops in order, the second at once."""
        if self._stopping:
            self.force_exit = self.should_exit = True
            return
        self._stopping = True
        if self._on_stop is not None:
            self._on_stop()
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, self._lag, self._stop)

    def _stop(self) -> None:
        self.should_exit = True
