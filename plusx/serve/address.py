"""Where a service listens, who may ask it, and the token by which it knows them."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from plusx.errors import serve as sentences

VARIABLE = "PLUSX_TOKEN"  # of the environment
LEAST = 22  # characters of 6 bits, for 128
_TOKEN = re.compile(rf"[A-Za-z0-9_\-]{{{LEAST},512}}")


@dataclass(frozen=True)
class Address:
    """An address to listen on. Raises UsageError where others can reach it and neither token nor `insecure` is given.

    `allowed`: names by which the service is called besides its own, such as that of a proxy.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    insecure: bool = False
    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise sentences.bad_limit("--port", self.port, "0 to 65535")
        if self.token is None and not self.insecure and not is_loopback(self.host):
            raise sentences.needs_token(self.host)


def token_of(file: Path | None) -> str | None:
    """The token in a file, else that of the environment, else None. Raises UsageError for one that protects nothing."""
    found, where = (os.environ.get(VARIABLE), VARIABLE) if file is None else (_read(file), str(file))
    if found is not None and not _TOKEN.fullmatch(found):
        why = "is too short" if len(found) < LEAST else "has other characters than these, or too many"
        raise sentences.bad_token(where, why)
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host.strip("[]")).is_loopback)


def is_address(name: str) -> bool:
    """Whether a name is an address in digits, one of IPv6 with or without brackets."""
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not ASCII"
        raise sentences.bad_token(str(file), f"cannot be read ({why})") from None
