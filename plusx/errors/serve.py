"""Sentences of the service: about requests, each with its HTTP status, and about how it is started."""

from __future__ import annotations

from plusx.errors import Error, ModelError, RunError, UsageError

INSTALL = "pip install 'plusx[serve]'"
MAKE_TOKEN = 'python -c "import secrets; print(secrets.token_urlsafe(32))" > token.txt'  # noqa: S105 - how to make one


class Refused(Error):
    """A request that is not answered, with the `status` of HTTP and, where that helps, seconds to `retry_after`."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message, code=code)
        self.status, self.retry_after = status, retry_after


def too_large_body(megabytes: float) -> Refused:
    """More bytes than are taken, stated or sent."""
    return Refused(
        413, "too-large-body", f"The photo has more than the {megabytes:g} MB that are taken; save it smaller."
    )


def too_much_in_hand() -> Refused:
    """All uploads together fill what memory they may have."""
    return Refused(
        503, "queue-full", "Too many uploads are under way at once; send it again in a moment.", retry_after=1
    )


def not_a_photo_type(kind: str) -> Refused:
    """A Content-Type that holds no photo."""
    return Refused(
        415,
        "not-a-photo-type",
        f"The Content-Type is {kind[:80]!r}; send the photo itself as image/jpeg (or another image type, or "
        "application/octet-stream), or as the file `photo` of a multipart/form-data form. With curl: -F photo=@cat.jpg",
    )


def encoded_body(coding: str) -> Refused:
    """A compressed body."""
    return Refused(
        415, "encoded-body", f"The Content-Encoding is {coding[:80]!r}, and bodies are taken as they are; leave it out."
    )


def bad_multipart(why: str) -> Refused:
    """A form that does not hold exactly one photo."""
    return Refused(400, "bad-multipart", f"The form {why}; it takes one file, in the field `photo`, and nothing else.")


def bad_inference(why: str) -> Refused:
    """A request of the Open Inference Protocol that does not follow it."""
    return Refused(400, "bad-inference-request", f"The inference request {why}.")


def no_token() -> Refused:
    """A request without a token, where one is needed."""
    return Refused(401, "no-token", "This service needs a token; send it as the header `Authorization: Bearer TOKEN`.")


def wrong_token() -> Refused:
    """Another token."""
    return Refused(401, "wrong-token", "The token is not that of this service; ask whoever started it.")


def foreign_host(host: str) -> Refused:
    """A Host that this service is not called."""
    return Refused(
        403,
        "foreign-host",
        f"The request is for the host {host[:80]!r}, which is no name of this service; start it with --allow-host if "
        "it is one.",
    )


def foreign_origin(origin: str) -> Refused:
    """A page of another site asks."""
    return Refused(
        403,
        "foreign-origin",
        f"The request comes from a page of {origin[:80]!r}; only this service's own page may ask.",
    )


def malformed(why: str) -> Refused:
    """A request that is no HTTP, or of parameters that do not fit."""
    return Refused(400, "bad-request", f"The request cannot be read: {why}.")


def no_upgrade() -> Refused:
    """Another protocol is asked for, with a body."""
    return malformed("it asks for another protocol and has a body, and only requests of one kind are taken")


def no_such_path() -> Refused:
    """Nothing is there."""
    return Refused(404, "no-such-path", "There is nothing at this path; /openapi.json lists what there is.")


def no_such_model(model: str, served: str) -> Refused:
    """Another model is asked for than the one that is served."""
    return Refused(404, "no-such-model", f"There is no model {model[:80]!r} here; this service has {served!r}.")


def not_that_method(method: str) -> Refused:
    """The path is there, and is not asked like that."""
    return Refused(405, "not-that-method", f"This path does not take {method[:20]}; /openapi.json lists what it takes.")


def too_slow(stage: str, seconds: float) -> Refused:
    """Head or body took too long to come."""
    return Refused(
        408, "too-slow", f"The {stage} of the request took more than {seconds:g} s to arrive; send it again."
    )


def too_long(what: str) -> Refused:
    """A path or a head without end."""
    status = 414 if what == "path" else 431
    return Refused(status, "too-long", f"The {what} of the request is longer than is taken; send a shorter one.")


def queue_full(waiting: int, seconds: int) -> Refused:
    """As many photos wait as may."""
    return Refused(
        503,
        "queue-full",
        f"Photos that wait already: {waiting}, and no more are taken now; send it again in {seconds} s.",
        retry_after=seconds,
    )


def too_many_connections() -> Refused:
    """As many connections are open as may be."""
    return Refused(503, "too-many-connections", "Too many connections are open; come again in a moment.", retry_after=1)


def not_ready() -> Refused:
    """The self-test has not passed yet."""
    return Refused(
        503, "not-ready", "The service is starting and tests itself; send it again in a moment.", retry_after=1
    )


def failed(why: str) -> Refused:
    """The self-test has not passed, and will not."""
    return Refused(503, "not-ready", f"The service did not start: {why}")


def draining() -> Refused:
    """The service is about to end."""
    return Refused(503, "draining", "The service is stopping and finishes what it has; ask another one.", retry_after=5)


def no_decoders() -> Refused:
    """No process is left that decodes; new ones are tried."""
    return Refused(
        503,
        "no-decoders",
        "The processes that decode photos do not start; others are tried, so send it again later.",
        retry_after=5,
    )


def too_many_at_once(photos: int, most: int) -> Refused:
    """A request with more photos than may ever be in hand."""
    return Refused(
        413, "too-many-photos", f"The request has {photos} photos and at most {most} are taken at once; send fewer."
    )


def deadline(seconds: float) -> Refused:
    """No answer in time."""
    return Refused(
        504, "deadline", f"There was no answer within {seconds:g} s, so the photo was dropped; send it again."
    )


def fault() -> Refused:
    """A fault of plusx itself."""
    return Refused(
        500,
        "fault",
        "plusx met a fault of its own and answered nothing; its log says which. Other photos are not hurt.",
    )


def no_explanations(name: str) -> Refused:
    """A network that cannot be explained."""
    return Refused(400, "no-explanations", f"There is no way to explain what {name} answers; ask /v1/predict.")


def no_server() -> UsageError:
    """FastAPI or uvicorn is not installed."""
    return UsageError(
        f"Serving needs FastAPI and uvicorn, which are not installed; install them with: {INSTALL}", code="no-server"
    )


def needs_token(host: str) -> UsageError:
    """An address that others can reach, and nothing that keeps them out."""
    return UsageError(
        f"--host {host} can be reached from other machines, so the service needs a token: make one with `{MAKE_TOKEN}` "
        "and give --token-file token.txt, or say --insecure.",
        code="needs-token",
    )


def bad_token(where: str, why: str) -> UsageError:
    """A token that protects nothing."""
    return UsageError(
        f"The token in {where} {why}; a token has at least 22 letters, digits, - or _ (128 bits); make one with: "
        f"{MAKE_TOKEN}",
        code="bad-token",
    )


def cannot_listen(host: str, port: int, why: str) -> RunError:
    """The port is taken, or may not be used."""
    return RunError(
        f"Cannot listen on {host} port {port}: {why}; choose another --port (0 takes a free one), or another --host.",
        code="cannot-listen",
    )


def did_not_start(why: str) -> RunError:
    """A fault of plusx itself before the first photo."""
    return RunError(
        f"The service met a fault of its own while it started ({why}); report it, and use `plusx predict` meanwhile.",
        code="did-not-start",
    )


def bad_limit(flag: str, value: float, expected: str) -> UsageError:
    """A limit that lets nothing through."""
    return UsageError(f"{flag} is {value:g}, and should be {expected}.", code="bad-limit")


def self_test_failed(name: str, why: str) -> ModelError:
    """The service does not answer a photo as it should."""
    return ModelError(
        f"{name} did not pass the self-test: {why}; try it with `plusx predict`, and copy or export it again.",
        code="self-test-failed",
    )
