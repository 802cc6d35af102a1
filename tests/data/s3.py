"""A real S3-compatible server on loopback (moto's), and a wire in between that can be cut, stalled and mended."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator, Mapping

import pytest

from plusx.data import remote

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "of-a-test",
    "AWS_SECRET_ACCESS_KEY": "of-a-test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


class Server:
    """moto's S3 over HTTP, on a port of its own."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer  # takes a second

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        self.port: int = self._server.get_host_and_port()[1]

    def put(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """A new bucket with these objects; what was in one of that name is gone."""
        from moto.s3.models import s3_backends

        backend = s3_backends["123456789012"]["aws"]
        if bucket in backend.buckets:
            for key in list(backend.buckets[bucket].keys):
                backend.delete_object(bucket, key)
        else:
            backend.create_bucket(bucket, "us-east-1")
        for name, data in objects.items():
            _ = backend.put_object(bucket, name, data).etag  # moto computes it when asked, and not safely in threads

    def close(self) -> None:
        self._server.stop()


class Wire:
    """A TCP proxy to a port of this machine. `cut_after`: bytes of answers until the connection is cut, once.

    `down`: connections are refused (cut as soon as they are made). `stalled`: they are taken, and nothing is said.
    `sent` counts the bytes of all answers, `connections` those that were made.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.cut_after: int | None = None
        self.down = self.stalled = False
        self.sent = self.connections = self.cuts = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End every connection and take no new one, until `mend`."""
        self.down = True
        self._end_all()

    def stall(self) -> None:
        """Say nothing more on any connection, until `mend`."""
        self.stalled = True

    def mend(self) -> None:
        self.down = self.stalled = False
        self._end_all()

    def close(self) -> None:
        self.down = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._end_all()
        for thread in self._threads:
            thread.join(5)

    def _end_all(self) -> None:
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.down:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._open |= {client, server}
            pairs = ((client, server, False), (server, client, True))
            threads = [threading.Thread(target=self._pump, args=pair, daemon=True) for pair in pairs]
            self._threads += threads
            for thread in threads:
                thread.start()

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                while self.stalled and not self.down:
                    threading.Event().wait(0.02)
                if answers and self._cut_here(data, target):
                    break
                with self._lock:  # before they are sent: whoever has them knows that they were counted
                    self.sent += len(data) * answers
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
        source.close()

    def _cut_here(self, data: bytes, target: socket.socket) -> bool:
        """Whether the connection ends within `data`; what comes before the cut is sent."""
        with self._lock:
            if self.cut_after is None:
                return False
            self.cut_after -= len(data)
            if self.cut_after > 0:
                return False
            kept = data[: self.cut_after]
            self.cut_after = None
            self.cuts += 1
            self.sent += len(kept)
        target.sendall(kept)
        return True


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The server of a module."""
    running = Server()
    yield running
    running.close()


@pytest.fixture
def wire(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """What lies between plusx and the server in one test; s3:// goes through it."""
    from s3fs import S3FileSystem

    between = Wire(server.port)
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": between.endpoint}.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    yield between
    remote.forget()
    between.close()
    S3FileSystem.clear_instance_cache()
