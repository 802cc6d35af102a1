"""What photos, clients and the machine can do to the service, and what that costs others: the other S rows of the
fault matrix, and M07. Load and memory over many requests are measured by benchmarks/serve.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plusx.classifier import Classifier, Prediction
from plusx.images.decode import Undecodable
from tests.images.heic import heic
from tests.images.hostile import HOSTILE
from tests.images.test_decode import noise, png, saved, shades
from tests.serve.conftest import jpeg
from tests.serve.service import ROOT, Reply, Service, running, wait_for


def in_background(service: Service, photo: bytes) -> Future[Reply]:
    """A photo sent from a thread of its own."""
    found: Future[Reply] = Future()
    threading.Thread(target=lambda: found.set_result(service.photo(photo)), daemon=True).start()
    return found


def head_of(length: int) -> bytes:
    """The head of a request whose body is a photo of so many bytes."""
    lines = ("POST /v1/predict HTTP/1.1", "Host: localhost", "Content-Type: image/jpeg", f"Content-Length: {length}")
    return "\r\n".join((*lines, "", "")).encode()


def held(service: Service) -> Future[Reply]:
    """The one decoding process is busy with a photo that sleeps."""
    found = in_background(service, b"SLEEP")
    wait_for(lambda: service.metric("plusx_photos_in_hand") == 1)
    return found


# photos


def uploads() -> dict[str, bytes]:
    """A photo for each row on bad and odd input, where it can be made of bytes alone."""
    whole, grey = saved(noise(), "JPEG"), np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    noise().save(turned, "JPEG", exif=exif.tobytes())
    found = {
        "D01 cut at 10 %": whole[: len(whole) // 10],
        "D01 cut at 99 %": whole[: len(whole) * 99 // 100],
        "D03 PNG cut": saved(noise(), "PNG")[:-40],
        "D03 WebP cut": saved(noise(), "WEBP")[:200],
        "D03 TIFF cut": saved(noise(), "TIFF")[:200],
        "D04 empty": b"",
        "D04 one byte": b"\xff",
        "D04 a header alone": whole[:20],
        "D05 text": b"just words, and many of them " * 9,
        "D05 HTML": b"<!DOCTYPE html><html><body>404</body></html>",
        "D05 SVG": b'<svg xmlns="http://www.w3.org/2000/svg"></svg>',
        "D05 PDF": b"%PDF-1.7 " + bytes(100),
        "D05 zip": b"PK\x03\x04" + bytes(100),
        "D06 PNG called JPEG": saved(noise(), "PNG"),
        "D07 CMYK": saved(noise().convert("CMYK"), "JPEG"),
        "D08 16-bit grey": saved(Image.fromarray(grey), "PNG"),
        "D09 alpha": saved(noise().convert("RGBA"), "PNG"),
        "D09 palette": saved(noise().convert("P"), "PNG"),
        "D09 1-bit": saved(noise().convert("1"), "PNG"),
        "D10 turned": turned.getvalue(),
        "D11 animated": saved(noise(), "GIF", save_all=True, append_images=[noise(), noise()]),
        "D13 bomb": png(20_000, 20_000, 8, 2, b""),
        "D13 largest": png(65_535, 65_535, 8, 2, b""),
        "D14 one pixel": saved(Image.new("RGB", (1, 1)), "PNG"),
        "D14 1 x 10,000": saved(Image.new("RGB", (1, 10_000)), "PNG"),
        "HEIC": heic(shades()),
    }
    assert all(isinstance(photo, bytes) for photo in found.values())
    return found


def looked_at(classifier: Classifier, photo: bytes) -> Prediction | Undecodable:
    """What the library says of a photo, in this process."""
    try:
        pixels = classifier.header.preprocess.from_bytes(photo, 25_000_000)
    except Undecodable as bad:
        return bad
    return classifier.answers(pixels[None])[0]


def test_every_odd_photo_is_answered_or_refused_as_the_library_does(service: Service, onnx: Path) -> None:
    classifier = Classifier.load(onnx)
    refused = set()
    for name, photo in uploads().items():
        reply = service.photo(photo)
        found = looked_at(classifier, photo)
        if isinstance(found, Undecodable):
            refused.add(name)
            assert (name, reply.status, reply.json["code"], reply.json["detail"]) == (
                name,
                422,
                found.code,
                found.reason,
            )
        else:
            assert (name, reply.status) == (name, 200)
            said = list(reply.json["probabilities"].values())
            assert said == pytest.approx(list(found.probabilities.values()), abs=1e-6)
    assert len(refused) == 15
    assert service.photo(jpeg()).status == 200


def test_a_service_takes_fewer_pixels_than_a_command(service: Service) -> None:
    reply = service.photo(saved(Image.new("RGB", (6_000, 5_000)), "PNG"))
    assert (reply.status, reply.json["code"]) == (422, "too-large")
    assert "at most 25 million are read" in reply.json["detail"]


def test_a_photo_that_kills_or_hangs_its_process_costs_itself(onnx: Path) -> None:
    with running(onnx, command=HOSTILE, workers=2, decode_seconds=1.0) as service:
        before = service.children()
        crashed = service.photo(b"SEGV")
        assert (crashed.status, crashed.json["code"]) == (422, "worker-died")
        wait_for(lambda: len(service.children()) == 2)
        died, spun = in_background(service, b"DIE"), in_background(service, b"SPIN")
        assert service.photo(jpeg()).status == 200
        assert (died.result(20).status, died.result().json["code"]) == (422, "worker-died")
        assert (spun.result(20).status, spun.result().json["code"]) == (504, "timeout")
        assert service.photo(jpeg()).status == 200
        wait_for(lambda: len(service.children()) == 2)
        assert not set(before) & set(service.children())
        assert service.metric("plusx_decoders_replaced_total") == 3


def test_a_process_that_takes_over_its_answers_is_replaced(onnx: Path) -> None:
    with running(onnx, command=HOSTILE, decode_seconds=3.0) as service:
        for lie in (b"RAW" + bytes(64), b"RAW\x05\x00\x00\x00\x00\x00\x00\x00nope!", b"RAW" + b"\xff" * 9):
            assert service.photo(lie).json["code"] == "worker-died"
        assert service.photo(jpeg()).status == 200


def test_a_decoding_process_killed_from_outside_is_replaced_at_once(onnx: Path) -> None:
    with running(onnx) as service:
        (child,) = service.children()
        started = time.monotonic()
        os.kill(child, signal.SIGKILL)
        wait_for(
            lambda: service.metric("plusx_decoders_replaced_total") == 1
        )  # else the photo may be given to the dead
        assert service.photo(jpeg()).status == 200
        assert time.monotonic() - started < 10  # two seconds on a quiet machine
        assert service.children() != [child]


# waiting


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(onnx: Path) -> None:
    with running(onnx, command=HOSTILE, queue=2, decode_seconds=4.0) as service:
        waiting = [held(service), in_background(service, b"SLEEP")]
        wait_for(lambda: service.metric("plusx_photos_in_hand") == 2)
        started = time.monotonic()
        reply = service.photo(jpeg())
        assert time.monotonic() - started < 2
        assert (reply.status, reply.json["code"]) == (503, "queue-full")
        assert int(reply.headers["retry-after"]) >= 1
        assert service.ask("GET", "/healthz").status == 200
        assert all(future.result(20).status == 504 for future in waiting)
        assert service.photo(jpeg()).status == 200


def test_a_refused_upload_is_not_read(onnx: Path) -> None:
    with running(onnx, command=HOSTILE, queue=1, decode_seconds=4.0) as service, service.connect() as connection:
        held(service)
        connection.sendall(head_of(1_000_000))
        assert b"queue-full" in connection.recv(4096)


def test_a_photo_whose_client_has_left_is_not_computed(onnx: Path) -> None:
    with running(onnx, command=HOSTILE, decode_seconds=2.0) as service:
        sleeping = held(service)
        with service.connect() as connection:
            photo = jpeg()
            connection.sendall(head_of(len(photo)) + photo)
            wait_for(lambda: service.metric("plusx_photos_in_hand") == 2)
        wait_for(lambda: service.metric("plusx_photos_in_hand") == 1)
        sleeping.result(20)
        time.sleep(0.5)
        assert service.metric("plusx_batch_photos_count") == 0
        assert service.photo(jpeg()).status == 200
        assert service.metric("plusx_batch_photos_count") == 1


def test_a_photo_whose_time_is_over_is_not_computed(onnx: Path) -> None:
    with running(onnx, command=HOSTILE, deadline=0.5, decode_seconds=3.0) as service:
        held(service)
        reply = service.photo(jpeg())
        assert (reply.status, reply.json["code"]) == (504, "deadline")
        assert "within 0.5 s" in reply.json["detail"]
        wait_for(lambda: service.metric("plusx_decoders_replaced_total") == 1)
        time.sleep(1.5)  # in which the new process would have decoded the photo, and the network have seen it
        assert service.metric("plusx_batch_photos_sum") == 0
        wait_for(lambda: service.photo(jpeg()).status == 200)
        assert service.metric("plusx_batch_photos_sum") >= 1


@pytest.mark.parametrize("size", [2, 3, 7, 16, 33])
def test_a_photo_is_answered_alike_alone_and_in_every_batch(onnx: Path, size: int) -> None:
    classifier = Classifier.load(onnx)
    pixels = np.random.default_rng(size).integers(0, 256, (size, 64, 64, 3), dtype=np.uint8)
    together, alone = classifier.answers(pixels), [classifier.answers(photo[None])[0] for photo in pixels]
    for one, other in zip(together, alone, strict=True):
        assert one.label == other.label
        assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-4)


def test_photos_sent_at_once_get_their_own_answers(service: Service, onnx: Path) -> None:
    classifier, photos = Classifier.load(onnx), [jpeg(i) for i in range(40)]
    with ThreadPoolExecutor(20) as threads:
        replies = list(threads.map(service.photo, photos))
    for photo, reply in zip(photos, replies, strict=True):
        expected = classifier.predict(photo)
        assert list(reply.json["probabilities"].values()) == pytest.approx(
            list(expected.probabilities.values()), abs=1e-5
        )


# slow clients


def test_whoever_keeps_the_service_waiting_is_hung_up_on(onnx: Path) -> None:
    with running(onnx, head_seconds=0.6, body_seconds=0.9, idle_seconds=1) as service:
        assert b"too-slow" in service.raw(b"")
        assert b"The head of the request took more than 0.6 s" in service.raw(b"POST /v1/predict HTTP/1.1\r\nHost: loc")
        assert b"The body of the request took more than 0.9 s" in service.raw(head_of(1000) + b"half")
        dripped = service.connect()
        with dripped, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for letter in b"GET / HTTP/1.1\r\nX: " + b"y" * 100:
                dripped.sendall(bytes([letter]))
                time.sleep(0.05)
            pytest.fail("a head that drips was waited for")
        idle = service.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.startswith(b"HTTP/1.1 200 ")
        assert idle.count(b"HTTP/1.1 ") == 1


def test_a_client_that_reads_nothing_is_hung_up_on(onnx: Path) -> None:
    with running(onnx, reply_seconds=1.0, idle_seconds=1) as service:
        files = Path(f"/proc/{service.process.pid}/fd")
        before = len(list(files.iterdir()))
        with service.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(5)
            with contextlib.suppress(ConnectionResetError, BrokenPipeError, TimeoutError):
                for _ in range(3_000):  # pages of 50 kB each that nobody reads
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
            wait_for(lambda: len(list(files.iterdir())) <= before, 30)
        assert service.memory() < 600 << 20


def test_a_hundred_slow_clients_cost_others_no_answer(onnx: Path) -> None:
    with running(onnx) as service, contextlib.ExitStack() as stack:
        for i in range(100):
            connection = stack.enter_context(service.connect())
            connection.sendall((b"", b"GET / HT", head_of(9) + b"ab")[i % 3])
        slowest = 0.0
        for i in range(20):
            started = time.monotonic()
            assert service.photo(jpeg(i)).status == 200
            slowest = max(slowest, time.monotonic() - started)
        assert slowest < 2  # hundredths on a quiet machine; whoever waited for one of the slow would wait for ten


# starting and ending


def test_readiness_comes_after_the_self_test_and_goes_first(onnx: Path) -> None:
    with running(onnx, command=HOSTILE, lag_seconds=5, decode_seconds=2.0) as service:
        assert service.ask("GET", "/readyz").json == {"status": "ready"}
        slow = held(service)
        service.process.send_signal(signal.SIGTERM)
        wait_for(lambda: service.ask("GET", "/readyz").status == 503)
        assert service.ask("GET", "/readyz").json["code"] == "draining"
        assert service.ask("GET", "/healthz").status == 200
        assert slow.result(20).json["code"] == "timeout"
        assert service.process.wait(20) == 0


@pytest.mark.parametrize("round_", range(3))
def test_nothing_that_was_sent_before_a_sigterm_is_lost(onnx: Path, round_: int) -> None:
    with running(onnx, workers=2, lag_seconds=10) as service:  # all of it is sent by then, not in a queue of the test
        sent: list[Future[Reply]] = []
        with ThreadPoolExecutor(16) as threads:
            sent += [threads.submit(service.photo, jpeg(i)) for i in range(60)]
            wait_for(lambda: sum(future.done() for future in sent) > 10 + 10 * round_)
            service.process.send_signal(signal.SIGTERM)
            assert [future.result(30).status for future in sent] == [200] * 60
        assert service.process.wait(30) == 0


def test_a_second_signal_ends_it_at_once(onnx: Path) -> None:
    with running(onnx, command=HOSTILE, decode_seconds=30.0, deadline=30.0) as service:
        in_background(service, b"SLEEP").add_done_callback(lambda _: None)
        wait_for(lambda: service.metric("plusx_photos_in_hand") == 1)
        service.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(10) == 130


def test_a_model_replaced_while_it_is_served_changes_nothing(onnx: Path, tmp_path: Path) -> None:
    """M07: the old one answers, under its hash, until the service is started again."""
    copy = Path(shutil.copy(onnx, tmp_path / "model.onnx"))
    with running(copy) as service:
        before = service.photo(jpeg()).json
        copy.write_bytes(b"another")
        after = service.photo(jpeg()).json
        assert (after["probabilities"], after["model_sha256"]) == (before["probabilities"], before["model_sha256"])
        assert after["model_sha256"] == hashlib.sha256(onnx.read_bytes()).hexdigest()
        assert service.ask("GET", "/v2/models/model").json["versions"] == [after["model_sha256"][:12]]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`plusx serve` as it is typed, for what ends by itself."""
    words = [sys.executable, "-m", "plusx", "serve", *arguments]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=120, env=os.environ | environment)


def test_a_port_that_is_taken_is_named(onnx: Path, service: Service) -> None:
    done = command(str(onnx), "--port", str(service.port))
    assert done.returncode == 1
    assert done.stderr == (
        f"plusx: Cannot listen on 127.0.0.1 port {service.port}: Address already in use; choose another --port "
        "(0 takes a free one), or another --host.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--host", "0.0.0.0"), 2, "--host 0.0.0.0 can be reached from other machines, so the service needs a token"),
        (("--queue", "0"), 2, "--queue is 0, and should be a number of 1 or more"),
        (("--deadline", "0"), 2, "--deadline is 0, and should be a number of 0.1 or more"),
        (("--workers", "0"), 2, "--workers is 0, and should be a number of 1 or more"),
        (("--max-megabytes", "inf"), 2, "--max-megabytes is inf, and should be a number of 0.001 or more"),
        (("--token-file", "nowhere"), 2, "The token in nowhere cannot be read (No such file or directory)"),
        (("--host", "no.such.host.invalid", "--insecure"), 1, "Cannot listen on no.such.host.invalid port 8000"),
        (("--port", "70000"), 2, "--port is 70000, and should be 0 to 65535"),
    ],
)
def test_what_cannot_be_served_so_is_said_in_a_sentence(onnx: Path, arguments: Any, code: int, told: str) -> None:
    done = command(str(onnx), *arguments)
    assert done.returncode == code
    assert done.stderr.startswith(f"plusx: {told}")
    assert done.stderr.count("\n") == 1


def test_a_token_that_is_too_short_is_refused(onnx: Path) -> None:
    done = command(str(onnx), PLUSX_TOKEN="secret")
    assert done.returncode == 2
    assert "The token in PLUSX_TOKEN is too short" in done.stderr
    assert "secret" not in done.stderr.replace("import secrets; print(secrets.", "")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    assert command(str(tmp_path / "model.onnx")).returncode == 4


# the machine


def test_without_files_left_connections_are_refused_and_it_goes_on(onnx: Path) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (72, 72))

    with running(onnx, preexec=few) as service:
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(service.connect())
            time.sleep(0.5)
            used = Path(f"/proc/{service.process.pid}/stat").read_text().split()[13]
            time.sleep(1)
            more = Path(f"/proc/{service.process.pid}/stat").read_text().split()[13]
            assert int(more) - int(used) < 50  # hundredths of a second: it does not spin
        wait_for(
            lambda: b" 200 " in service.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
            20,
        )
        assert service.photo(jpeg()).status == 200
