"""Connections that wait for nothing, requests that change their protocol, and the largest photo that is taken: more of
rows S02, S14, S17 and S22.
"""

from __future__ import annotations

import contextlib
import io
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plusx.serve.guard import Door
from tests.serve.conftest import jpeg
from tests.serve.service import Service, running
from tests.serve.test_requests import FILE, MULTIPART, POST, form

ONCE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def closed_within(connection: socket.socket, seconds: float, drip: bytes = b"") -> bool:
    """Whether the service hangs up within `seconds`, while it is sent `drip` five times a second."""
    end = time.monotonic() + seconds
    connection.settimeout(0.2)
    while time.monotonic() < end:
        try:
            if drip:
                connection.sendall(drip)
            if not connection.recv(1 << 16):
                return True
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return True
        time.sleep(0.2)
    return False


def test_empty_lines_after_an_answer_do_not_keep_a_connection(onnx: Path) -> None:
    with running(onnx, head_seconds=1.0, idle_seconds=1) as service, service.connect() as connection:
        connection.sendall(ONCE)
        assert b" 200 " in connection.recv(1 << 16)
        assert closed_within(connection, 6, b"\r\n")


def test_empty_lines_before_a_request_do_not_keep_a_connection(onnx: Path) -> None:
    with running(onnx, head_seconds=1.0, idle_seconds=1) as service, service.connect() as connection:
        assert closed_within(connection, 6, b"\r\n")


@pytest.mark.parametrize("parts", [1, 4])
def test_a_body_that_comes_after_its_refusal_does_not_keep_a_connection(onnx: Path, parts: int) -> None:
    with running(onnx, head_seconds=1.0, body_seconds=2.0, idle_seconds=1) as service, service.connect() as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/html\r\n")
        connection.sendall(b"Content-Length: 1000\r\n\r\n")
        assert b" 415 " in connection.recv(1 << 16)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(parts):
                connection.sendall(bytes(1000 // parts))
                time.sleep(0.1)
        assert closed_within(connection, 6)


def test_a_request_that_would_change_the_protocol_is_answered_once(service: Service) -> None:
    smuggled = b"GET /v1/model HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    reply = service.raw(head + b"Content-Length: %d\r\n\r\n" % len(smuggled) + smuggled, seconds=2)
    assert reply.startswith(b"HTTP/1.1 400 "), reply[:200]
    assert reply.count(b"HTTP/1.1 ") == 1


def test_what_follows_a_request_for_another_protocol_is_not_taken_for_one(service: Service) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    reply = service.raw(head + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", seconds=2)
    assert reply.count(b"HTTP/1.1 2") <= 1
    assert b"HTTP/1.1 5" not in reply


def test_a_pipeline_is_answered_up_to_what_is_no_request(service: Service) -> None:
    reply = service.raw(ONCE + b"\x16\x03\x01 nothing of HTTP\r\n\r\n", seconds=2)
    assert reply.startswith(b"HTTP/1.1 200 "), reply[:200]
    assert reply.count(b"HTTP/1.1 ") == 1


def test_a_long_pipeline_is_answered_in_order_whatever_pieces_it_comes_in(service: Service) -> None:
    photo = jpeg()
    post = POST + b"Content-Length: %d\r\n\r\n" % len(photo) + photo
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(photo) + photo + b"\r\n0\r\n\r\n"
    last = ONCE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    whole = (ONCE * 3 + post + ONCE + chunked) * 3 + last
    for size in (len(whole), 7, 1000, len(post) + 1):
        with service.connect() as connection:
            connection.settimeout(30)
            for start in range(0, len(whole), size):
                connection.sendall(whole[start : start + size])
            reply = b"".join(iter(lambda connection=connection: connection.recv(1 << 16), b""))  # type: ignore[misc]
        kinds = [b'"probabilities"' in each for each in reply.split(b"HTTP/1.1 200 ")[1:]]
        assert kinds == [False, False, False, True, False, True] * 3 + [False]


NOTING = """
import atexit
from plusx.serve.connection import Connection
taken = []

def noted(connection, honest=Connection.on_headers_complete, taken=taken):
    honest(connection)
    taken.append(len(connection.pipeline))

Connection.on_headers_complete = noted
atexit.register(lambda taken=taken: print("waiting at most:", max(taken)))
"""


def test_requests_that_come_at_once_are_not_all_taken_in_at_once(onnx: Path) -> None:
    last = ONCE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with running(onnx, first=NOTING) as service:
        assert service.raw(ONCE * 200 + last, seconds=20).count(b"HTTP/1.1 200 ") == 201
        assert service.stop() == 0
        assert service.process.stdout is not None
        assert "waiting at most: 1\n" in service.process.stdout.read()


def test_a_photo_before_garbage_gets_its_answer(service: Service) -> None:
    photo = jpeg()
    request = POST + b"Content-Length: %d\r\n\r\n" % len(photo) + photo
    reply = service.raw(request + b"\x16\x03\x01\r\n\r\n", seconds=4)
    assert reply.startswith(b"HTTP/1.1 200 "), reply[:200]
    assert b'"probabilities"' in reply


def test_a_target_with_a_host_of_its_own_is_this_service_or_refused(service: Service) -> None:
    mine = service.raw(b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert mine.startswith(b"HTTP/1.1 200 ")
    for target in (b"http://evil.example/healthz", b"http://localhost@evil.example/healthz", b"http://[/healthz"):
        for host in (b"localhost", b"evil.example"):
            request = b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
            reply = service.raw(request)
            assert reply.split(b" ")[1] in (b"400", b"403"), (target, host, reply[:100])


@pytest.mark.parametrize("host", ["127.0.0.2", "127.1.2.3", "localhost", "127.0.0.1", "::1"])
def test_a_service_is_known_by_the_address_it_listens_on(host: str) -> None:
    named = f"[{host}]:8000" if ":" in host else f"{host}:8000"
    scope = {"headers": [(b"host", named.encode()), (b"origin", f"http://{named}".encode())], "path": "/v1/model"}
    assert Door.of(host, (), None).refusal(scope) is None


@pytest.fixture(scope="module")
def large() -> bytes:
    """A photo of nearly 20 million bytes."""
    rng, file = np.random.default_rng(0), io.BytesIO()
    values = rng.integers(0, 176, (2500, 3300, 3), dtype=np.uint8)  # noise, for a sky would take a tenth of it
    values += np.linspace(0, 79, 2500).astype(np.uint8)[:, None, None]
    Image.fromarray(values).save(file, "JPEG", quality=96, subsampling=0)
    assert 19_000_000 < len(file.getvalue()) < 19_990_000
    return file.getvalue()


def test_a_photo_of_nearly_twenty_megabytes_is_answered(service: Service, large: bytes) -> None:
    alone, sent = service.photo(large), service.ask("POST", "/v1/predict", form((FILE, large)), **MULTIPART)
    assert (alone.status, sent.status) == (200, 200)
    assert alone.json["probabilities"] == pytest.approx(sent.json["probabilities"])
    assert service.photo(large, "/v1/explain").status == 200


def test_a_photo_of_more_is_refused_by_its_size(service: Service, large: bytes) -> None:
    reply = service.photo(large + bytes(20_000_001 - len(large)))
    assert (reply.status, reply.json["code"]) == (413, "too-large-body")
