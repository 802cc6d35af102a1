"""The page of the service: one file with one script and one style, which a policy names by their hashes."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("page.html")
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@dataclass(frozen=True)
class Page:
    """The bytes of the page, in UTF-8, and the Content-Security-Policy that it is to be sent with."""

    body: bytes
    policy: str

    @classmethod
    def of(cls, text: str) -> Page:
        """The page of this HTML. Raises ValueError unless it holds one script and one style, both inline."""
        found = _INLINE.findall(text)
        parts = dict(found)
        if len(found) != 2 or set(parts) != {"script", "style"}:
            raise ValueError(f"one <script> and one <style> were expected, found {[kind for kind, _ in found]}")
        return cls(text.encode(), _policy(_hashed(parts["script"]), _hashed(parts["style"])))


@cache
def page() -> Page:
    """The page as it lies beside this file, read once."""
    return Page.of(FILE.read_text(encoding="utf-8"))


def _hashed(text: str) -> str:
    """What Content Security Policy Level 3 (W3C) calls a hash source: of the bytes between the tags."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _policy(script: str, style: str) -> str:
    """Nothing but this script and style runs, nothing is asked of any other server, no page may frame this one."""
    rules = (
        "default-src 'none'",
        f"script-src {script}",
        f"style-src {style}",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "media-src blob:",
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    )
    return "; ".join(rules)
