"""Errors as HTTP says them: problem details (RFC 9457), with the codes and sentences of the command line."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from plusx.errors import DataError, Error, UsageError
from plusx.errors import serve as sentences
from plusx.errors.serve import Refused

MEDIA_TYPE = "application/problem+json"


def problem(error: Error) -> Response:
    """The reply to a request that met `error`."""
    return Response(document(error), status_of(error), headers_of(error), MEDIA_TYPE)


def reply(value: Any) -> Response:
    """A reply in JSON, in ASCII: names of classes need not be UTF-8."""
    return Response(json.dumps(value, separators=(",", ":"), allow_nan=False), media_type="application/json")


def document(error: Error) -> bytes:
    """Its JSON."""
    status = status_of(error)
    said = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": getattr(error, "reason", None) or error.message,
        "code": error.code,
    }
    return json.dumps(said).encode()


def status_of(error: Error) -> int:
    """422 for photos that cannot be used, 400 for wrong parameters, 500 for what is no fault of who asks."""
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, DataError):
        return 504 if error.code == "timeout" else 422
    return 400 if isinstance(error, UsageError) else 500


def headers_of(error: Error) -> dict[str, str]:
    """What else is to be said: when to come again, how to prove who asks."""
    found = {}
    if isinstance(error, Refused) and error.retry_after is not None:
        found["Retry-After"] = str(error.retry_after)
    if status_of(error) == HTTPStatus.UNAUTHORIZED:
        found["WWW-Authenticate"] = "Bearer"
    return found


def of_status(status: int, method: str) -> Refused:
    """What a router has refused by its status alone."""
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return sentences.not_that_method(method)
    return (
        sentences.no_such_path() if status == HTTPStatus.NOT_FOUND else sentences.malformed(HTTPStatus(status).phrase)
    )
