"""What every request meets first: whether it may come from there, whether it knows the token, whether there is room."""

from __future__ import annotations

import hmac
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from plusx.errors import serve as sentences
from plusx.errors.serve import Refused
from plusx.serve.address import is_address, is_loopback
from plusx.serve.problems import problem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/", "/healthz", "/readyz", "/favicon.ico", "/v2/health/live", "/v2/health/ready"})
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


@dataclass(frozen=True)
class Door:
    """Who may come in. `hosts`: names this service is called by; None: addresses in digits, and this machine's name."""

    hosts: frozenset[str] | None = LOOPBACK
    allowed: frozenset[str] = frozenset()
    token: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, host: str, allowed: tuple[str, ...], token: str | None) -> Door:
        """For a service that listens on `host`."""
        bare = host.strip("[]").lower()
        hosts = LOOPBACK | {f"[{bare}]" if ":" in bare else bare} if is_loopback(host) else None
        return cls(hosts, frozenset(name.lower() for name in allowed), token.encode() if token else None)

    def refusal(self, scope: Scope) -> Refused | None:
        """Why this request may not come in."""
        headers = scope["headers"]
        hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        if len(hosts) != 1:
            return sentences.malformed("it names no host, or several")
        if not self._is_mine(_without_port(hosts[0])):
            return sentences.foreign_host(hosts[0])
        for name, value in headers:
            if name == b"origin" and _netloc(value.decode("latin-1").lower()) != hosts[0]:
                return sentences.foreign_origin(value.decode("latin-1"))
        return None if self.token is None or scope["path"] in OPEN else self._of_token(headers)

    def _is_mine(self, name: str) -> bool:
        if name in self.allowed or name in (self.hosts or LOOPBACK):
            return True
        return self.hosts is None and (is_address(name) or name == socket.gethostname().lower())

    def _of_token(self, headers: list[tuple[bytes, bytes]]) -> Refused | None:
        given = [value for name, value in headers if name == b"authorization"]
        if not given:
            return sentences.no_token()
        kind, _, token = given[0].partition(b" ")
        right = hmac.compare_digest(token.strip(), self.token or b"")
        return None if right and kind.lower() == b"bearer" and len(given) == 1 else sentences.wrong_token()


class Guard:
    """The outermost layer of the service: refuses, and puts the headers on every reply that keep browsers careful.

    `room` says why a photo would find no place now; it is asked before the body of one is read. `counted` hears path
    and status of every reply.
    """

    def __init__(
        self,
        app: App,
        door: Door,
        room: Callable[[Scope], Refused | None] | None = None,
        counted: Callable[[str, int], None] | None = None,
    ) -> None:
        self.app, self.door, self.room, self.counted = app, door, room, counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def careful(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                if self.counted is not None:
                    self.counted(scope["path"], message["status"])
                headers = [*message.get("headers", ()), *HEADERS]
                known = any(name == POLICY[0] for name, _ in headers)
                message = {**message, "headers": headers if known else [*headers, POLICY]}
            await send(message)

        refusal = self.door.refusal(scope) or (self.room(scope) if self.room is not None else None)
        await (self.app if refusal is None else problem(refusal))(scope, receive, careful)


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and (name.endswith("]") or ":" not in name) else host
