"""The photo in a request: the body itself, or the one file of a form. It is kept in memory until it is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from plusx.errors import serve as sentences
from plusx.serve.limits import Limits

FIELD = "photo"
FORM = "multipart/form-data"
HEAD_BYTES = 8 << 10  # of the one part of a form


class Uploads:
    """Reads bodies, and knows how many bytes of them are in memory: those that are read, and those that wait."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.in_hand = limits, 0

    @asynccontextmanager
    async def photo(self, request: Request) -> AsyncIterator[bytes]:
        """The bytes of the photo in `request`, which count until they are let go. Raises Refused."""
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        media = kind.decode("latin-1").lower()
        if media != FORM and media not in ("", "application/octet-stream") and not media.startswith("image/"):
            raise sentences.not_a_photo_type(media)
        async with self.body(request) as body:
            yield photo_of_form(body, options.get(b"boundary", b"")) if media == FORM else body

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body of `request`. Raises Refused where it is too large, or all bodies together are."""
        stated, coding = request.headers.get("content-length"), request.headers.get("content-encoding", "identity")
        if coding.lower() != "identity":
            raise sentences.encoded_body(coding)
        if stated is not None and stated.isdigit() and int(stated) > self.limits.body_bytes:
            raise sentences.too_large_body(self.limits.megabytes)
        chunks: list[bytes] = []
        size = 0
        try:
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                self.in_hand += len(chunk)
                if size > self.limits.body_bytes:
                    raise sentences.too_large_body(self.limits.megabytes)
                if self.in_hand > self.limits.uploads:
                    raise sentences.too_much_in_hand()
            yield b"".join(chunks)
        except ClientDisconnect:
            raise sentences.malformed("its body ends early") from None
        finally:
            self.in_hand -= size


def photo_of_form(body: bytes, boundary: bytes) -> bytes:
    """The file `photo` of a multipart form, which holds nothing else (RFC 7578). Raises Refused.

    The content is looked for, not parsed: what looks like a boundary everywhere would keep a parser busy for seconds.
    """
    if not boundary:
        raise sentences.bad_multipart("has no boundary")
    first, next_ = b"--" + boundary, b"\r\n--" + boundary
    head = body.find(b"\r\n\r\n", 0, len(first) + HEAD_BYTES)
    if body.startswith(first + b"--"):
        raise sentences.bad_multipart("is empty")
    if not body.startswith(first + b"\r\n") or head < 0:
        raise sentences.bad_multipart("is not as RFC 7578 says")
    _check(_disposition(body[: head + 4] + next_ + b"--\r\n", boundary))
    end = body.find(next_, head + 4)
    after = body[end + len(next_) : end + len(next_) + 2]
    if end < 0 or len(after) < 2:
        raise sentences.bad_multipart("ends early")
    if after != b"--":
        raise sentences.bad_multipart("has more than one field" if after == b"\r\n" else "is not as RFC 7578 says")
    return body[head + 4 : end]


def _check(disposition: bytes) -> None:
    """Raises Refused unless a Content-Disposition is that of a file in the field `photo`."""
    _, options = parse_options_header(disposition)
    name = options.get(b"name", b"").decode("utf-8", "replace")
    if name != FIELD:
        raise sentences.bad_multipart(f"has the field {name[:80]!r}")
    if b"filename" not in options:
        raise sentences.bad_multipart(f"has text in the field {FIELD!r}, and no file")


def _disposition(form: bytes, boundary: bytes) -> bytes:
    """The Content-Disposition of the first part of a form. Raises Refused where its head cannot be parsed."""
    found: list[tuple[bytes, bytes]] = []
    name, value = bytearray(), bytearray()

    def header() -> None:
        found.append((bytes(name).lower(), bytes(value)))
        name.clear()
        value.clear()

    try:  # the parser bounds headers itself
        parser = MultipartParser(
            boundary,
            {
                "on_header_field": lambda data, start, end: name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: value.extend(data[start:end]),
                "on_header_end": header,
            },
        )
        parser.write(form)
        parser.finalize()
    except MultipartParseError:
        raise sentences.bad_multipart("is not as RFC 7578 says") from None
    return next((value for name, value in found if name == b"content-disposition"), b"")
