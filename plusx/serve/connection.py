"""HTTP/1.1 as uvicorn speaks it, with a deadline for everything a client may keep us waiting for.

uvicorn alone waits for ever: for a head, for a body, for a client that reads nothing. Heads are bounded here, too.
"""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from plusx.errors import serve as sentences
from plusx.errors.serve import Refused
from plusx.serve.limits import Limits
from plusx.serve.problems import MEDIA_TYPE, document, headers_of

PATH_BYTES, HEADERS = 8 << 10, 100
DROPPED = 64 << 20  # bytes of a refused body that are read: most clients read why only once they have sent it all
HEAD_END, PIECE = b"\r\n\r\n", 16 << 10  # bytes of a body without stated length that are parsed at once at least
LAST_REQUEST = 0.3  # seconds in which what a client had sent before it heard of the end is still seen


def patient(limits: Limits, connections: int) -> type[asyncio.Protocol]:
    """What uvicorn makes connections with, `connections` of them at a time."""
    return cast(type[asyncio.Protocol], partial(Connection, limits, connections))


class Connection(HttpToolsProtocol):
    """One connection. Whoever is too slow, or sends what is no HTTP, gets a problem and is hung up on.

    A problem is said only where it answers the request that it is about: while an earlier one is computed, or once
    this one has been answered, the connection just ends.
    """

    def __init__(self, limits: Limits, connections: int, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._limits, self._connections = limits, connections
        self._timer: asyncio.TimerHandle | None = None  # until something of the client's has to be here
        self._stalled: asyncio.TimerHandle | None = None  # until the client has to have read something
        self._head = self._count = self._dropped = 0
        self._receiving = False  # whether a request has begun to arrive and is not whole
        self._in_body = False  # whether its head is there
        self._left = 0  # bytes of its body that are to come, where their number was stated
        self._held = b""  # what has come and is not parsed, since earlier requests wait for their answers
        self._ending = self._deaf = False  # whether the service stops; whether nothing more is parsed
        self._refusal: Refused | None = None
        self._running: Any = None  # uvicorn's cycle of the request that is answered now, or was last
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, Joined(transport, self.loop))
        if len(self.connections) > self._connections:
            self._hang_up(sentences.too_many_connections())
            return
        self._wait("head", self._limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: whatever it asked for is dropped."""
        self._stop_waiting()
        self._unset_stalled()
        unanswered = self._answering
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        if unanswered and self._task is not None:
            self._task.cancel()

    @property
    def _answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def data_received(self, data: bytes) -> None:
        """Bytes; whatever they were, there is a time until which something more has to come."""
        if self._deaf:
            return
        self._parse(self._held + data)
        if self._timer is None and self.timeout_keep_alive_task is None and not self._answering:
            self._timer = self.loop.call_later(self._limits.idle_seconds, self._close)

    def _parse(self, data: bytes) -> None:
        """A request at a time: a thousand that came in one go must not all be taken in before the first is answered."""
        start, self._held = 0, b""
        while start < len(data) and not self._deaf:
            if self.pipeline:
                self._held = data[start:]
                self.flow.pause_reading()
                return
            end = start + self._left if self._left else self._head_end(data, start)
            super().data_received(data[start:end])
            start = end

    def _head_end(self, data: bytes, start: int) -> int:
        found = data.find(HEAD_END, start + PIECE if self._in_body else start)
        return found + len(HEAD_END) if found >= 0 else len(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head = self._count = self._dropped = 0
        self._receiving = True
        if self.cycle is not None:  # of the first head the time runs from the connection on
            self._wait("head", self._limits.head_seconds)

    def on_url(self, url: bytes) -> None:
        """A part of the path."""
        super().on_url(url)
        if len(self.url) > PATH_BYTES:
            self._refuse(sentences.too_long("path"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._head += len(name) + len(value)
        self._count += 1
        if self._head > self._limits.head_bytes or self._count > HEADERS:
            self._refuse(sentences.too_long("head"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there."""
        if self.url[:1] not in (b"/", b"*") and not self._names_our_host():
            self._refuse(sentences.malformed("its target names another host than its head"))
        upgrade = self.parser.should_upgrade()
        if upgrade and any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers):
            self._refuse(sentences.no_upgrade())  # some would read the body as another request
        super().on_headers_complete()
        self._in_body = True
        self._left = next((int(value) for name, value in self.headers if name == b"content-length"), 0)
        if upgrade or self._ending:
            self.cycle.keep_alive = False
        self._deaf = upgrade  # what comes after it would be in another protocol
        self._wait("body", self._limits.body_seconds)

    def on_body(self, body: bytes) -> None:
        """A part of the body; whoever sends on and on what is refused already is hung up on."""
        super().on_body(body)
        self._left = max(0, self._left - len(body))
        if self.cycle.response_complete:
            self._dropped += len(body)
            if self._dropped > DROPPED:
                self._deaf = True
                self._close()

    def on_message_complete(self) -> None:
        """The request is whole."""
        super().on_message_complete()
        self._receiving = self._in_body = False
        self._stop_waiting()

    def on_response_complete(self) -> None:
        """The reply is written; where the connection ends with it, a client that reads nothing is let go."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_later()
        elif self._held:
            self.data_received(b"")

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._abort_later()

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        self._unset_stalled()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked for a while."""
        self._close()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed is answered with a problem, and no more is read."""
        self._hang_up(self._refusal or sentences.malformed(msg.rstrip(".").lower()))

    def shutdown(self) -> None:
        """The service ends: a request that has begun is answered, an idle connection is closed a little later."""
        self._ending = True
        if self._answering:
            self._running.keep_alive = False
        elif not self._receiving:
            self.loop.call_later(LAST_REQUEST, self._close_if_idle)

    def _names_our_host(self) -> bool:
        """Whether a target with a host of its own (RFC 9112, section 3.2.2) names that of the head."""
        hosts = [value.lower() for name, value in self.headers if name == b"host"]
        return hosts == [self.url.lower().partition(b"://")[2].partition(b"/")[0]]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """As uvicorn does, and the task is kept: nobody else could end it when its client leaves."""
        self._running = cycle
        self._task = self.loop.create_task(cycle.run_asgi(app))
        self._task.add_done_callback(self.tasks.discard)
        self.tasks.add(self._task)

    def _close_if_idle(self) -> None:
        if self._answering:
            self._running.keep_alive = False
        elif not self._receiving:
            self._close()

    def _wait(self, stage: str, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(self._share * seconds, self._too_slow, stage, seconds)

    @property
    def _share(self) -> float:
        """Of every time allowed: clients that came together must not all have to be hung up on together."""
        return 1 - 0.2 * (hash(self.client) % 64) / 64

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _abort_later(self) -> None:
        self._unset_stalled()
        self._stalled = self.loop.call_later(self._share * self._limits.reply_seconds, self.transport.abort)

    def _unset_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _too_slow(self, stage: str, seconds: float) -> None:
        self._hang_up(sentences.too_slow(stage, seconds))

    def _refuse(self, refusal: Refused) -> None:
        """Out of the parser's callbacks only an exception leads; the parser then asks for a 400."""
        self._refusal = self._refusal or refusal
        raise ValueError(refusal.code)

    def _hang_up(self, refusal: Refused) -> None:
        """Read nothing more; say why where that is the next thing due, and end the connection after what is due."""
        self._deaf = True
        self._stop_waiting()
        in_body = self._receiving and self._running is not None and self._running.scope is self.scope
        if self._answering and not in_body:  # an earlier request is computed, and its answer is awaited
            self._running.keep_alive = False
            self.pipeline.clear()
        elif not self.transport.is_closing():
            if not (in_body and self._running.response_started):
                self.transport.write(reply(refusal))
            self._close()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
            self._abort_later()


class Joined:
    """A transport that sends what is written in one go of the event loop in one go, too.

    uvicorn writes the head of a reply and its body one after another: two calls of the system, and two wakings of a
    client.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send `data`, soon."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Send what was written, and end."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """End at once."""
        self._parts.clear()
        self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        """All else is the transport's."""
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._parts and not self._transport.is_closing():
            self._transport.write(b"".join(self._parts))
        self._parts.clear()


def reply(refusal: Refused) -> bytes:
    """A whole response, after which the connection is closed."""
    body = document(refusal)
    said = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), "connection": "close", **headers_of(refusal)}
    said |= {"x-content-type-options": "nosniff", "cache-control": "no-store"}
    head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    status = f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\n"
    return status.encode() + head.encode() + b"\r\n" + body
