"""The photo in a request: the body itself, or the one file of a form. It is kept in memory, until it is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from plusx.errors import serve as sentences
from plusx.serve.limits import Limits

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "photo"
FORM = "multipart/form-data"


class Uploads:
    """Reads bodies, and knows how many bytes of them are in memory."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.in_hand = limits, 0

    async def photo(self, request: Request) -> bytes:
        """The bytes of the photo in `request`. Raises Refused."""
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        media = kind.decode("latin-1").lower()
        if media != FORM and media not in ("", "application/octet-stream") and not media.startswith("image/"):
            raise sentences.not_a_photo_type(media)
        body = await self.body(request)
        return photo_of_form(body, options.get(b"boundary", b"")) if media == FORM else body

    async def body(self, request: Request) -> bytes:
        """The whole body of `request`. Raises Refused where it is too large, or all bodies together are."""
        stated, coding = request.headers.get("content-length"), request.headers.get("content-encoding", "identity")
        if coding.lower() != "identity":
            raise sentences.encoded_body(coding)
        if stated is not None and stated.isdigit() and int(stated) > self.limits.body_bytes:
            raise sentences.too_large_body(self.limits.megabytes)
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                self.in_hand += len(chunk)
                if len(body) > self.limits.body_bytes:
                    raise sentences.too_large_body(self.limits.megabytes)
                if self.in_hand > self.limits.uploads:
                    raise sentences.too_much_in_hand()
        except ClientDisconnect:
            raise sentences.malformed("its body ends early") from None
        finally:
            self.in_hand -= len(body)
        return bytes(body)


def photo_of_form(body: bytes, boundary: bytes) -> bytes:
    """The file `photo` of a multipart form, which holds nothing else. Raises Refused."""
    if not boundary:
        raise sentences.bad_multipart("has no boundary")
    form = _Form()
    try:  # the parser bounds headers itself
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
        parser.finalize()
    except MultipartParseError:
        raise sentences.bad_multipart("is not as RFC 7578 says") from None
    return form.photo()


class _Form:
    """What a parser has found so far. Raises Refused at the first thing too many."""

    def __init__(self) -> None:
        self._parts = 0
        self._name, self._value = bytearray(), bytearray()
        self._disposition: bytes | None = None
        self._content, self._ended = bytearray(), False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def photo(self) -> bytes:
        if not self._ended:
            raise sentences.bad_multipart("ends early")
        if not self._parts:
            raise sentences.bad_multipart("is empty")
        _, options = parse_options_header(self._disposition or b"")
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name != FIELD:
            raise sentences.bad_multipart(f"has the field {name[:80]!r}")
        if b"filename" not in options:
            raise sentences.bad_multipart(f"has text in the field {FIELD!r}, and no file")
        return bytes(self._content)

    def _part(self) -> None:
        self._parts += 1
        if self._parts > 1:
            raise sentences.bad_multipart("has more than one field")

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def _end(self) -> None:
        self._ended = True
