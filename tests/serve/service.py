"""A service in a process of its own, as `plusx serve` starts it, with limits and decoders of one's choosing."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
START = """
import json, sys
from pathlib import Path
asked = json.loads(sys.argv[1])
connected = []
sys.addaudithook(lambda event, arguments: connected.append(event) if event == "socket.connect" else None)
from plusx.serve import start
from plusx.serve.address import Address
from plusx.serve.desk import Desk
from plusx.serve.limits import Limits
if asked["command"]:
    start.Desk = lambda served, limits: Desk(served, limits, asked["command"])
def ready(name, url):
    print(f"serving {name} on {url}", flush=True)
address = Address(port=asked["port"], token=asked["token"], allowed=("plusx.example",))
from plusx.errors import Error
exec(asked["first"])
try:
    limits = Limits(**asked["limits"], workers=asked["workers"])
    code = start.serve_model(Path(asked["model"]), address, limits, on_ready=ready)
except Error as error:
    print(error.message, file=sys.stderr)
    code = error.exit_code
print("connections made:", len(connected), flush=True)
sys.exit(code)
"""


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass
class Service:
    """A running service."""

    process: subprocess.Popen[str]
    host: str
    port: int
    name: str
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://{self.host}:{self.port}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request over a connection of its own; underscores in names of headers stand for hyphens."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            reply = connection.getresponse()
            return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())

    def photo(self, body: bytes, path: str = "/v1/predict", **headers: str) -> Reply:
        """A photo as the body."""
        return self.ask("POST", path, body, **({"Content_Type": "image/jpeg"} | headers))

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection((self.host, self.port), timeout=30)

    def raw(self, data: bytes, seconds: float = 5.0) -> bytes:
        """Everything that comes back for `data`, until the service hangs up or says nothing for `seconds`."""
        with self.connect() as connection:
            connection.settimeout(seconds)
            found = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
                connection.sendall(data)
                while more := connection.recv(1 << 16):
                    found += more
            return found

    def metric(self, name: str) -> float:
        """A figure of /metrics."""
        found = re.search(rf"^{re.escape(name)} ([0-9.e+-]+)$", self.ask("GET", "/metrics").body.decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def memory(self) -> int:
        """Bytes of memory of the process that answers."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu(self) -> float:
        """Seconds that the process that answers has computed so far, in hundredths."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def children(self) -> list[int]:
        """Its decoding processes."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(word) for word in text.split()]

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@contextlib.contextmanager
def begun(
    model: Path,
    *,
    command: tuple[str, ...] | None = None,
    token: str | None = None,
    workers: int = 1,
    port: int = 0,
    first: str = "",
    **more: Any,
) -> Iterator[subprocess.Popen[str]]:
    """The process of a service, which may not be ready yet; it is ended with the block. `first` is Python that runs in
    it before the service does; `preexec` and `environment` are those of its process, and the rest are limits.
    """
    preexec, environment = more.pop("preexec", None), more.pop("environment", {})
    asked = {"model": str(model), "command": command, "token": token, "workers": workers, "limits": more}
    process = subprocess.Popen(
        [sys.executable, "-c", START, json.dumps(asked | {"port": port, "first": first})],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        preexec_fn=preexec,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()
        process.stderr.close()


@contextlib.contextmanager
def running(model: Path, **asked: Any) -> Iterator[Service]:
    """A service that is ready, asked for as `begun` is."""
    with begun(model, **asked) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        said = re.fullmatch(r"serving (\S+) on http://(\S+):(\d+)\n", line)
        assert said, f"{line!r} {process.stderr.read() if process.poll() is not None else ''}"
        yield Service(process, said[2], int(said[3]), said[1])


@contextlib.contextmanager
def starting(model: Path, **asked: Any) -> Iterator[Service]:
    """A service that answers, and need not be ready, asked for as `begun` is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with begun(model, port=port, **asked) as process:
        service = Service(process, "127.0.0.1", port, model.stem)
        wait_for(lambda: _lives(service) or process.poll() is not None, 60)
        yield service


def _lives(service: Service) -> bool:
    try:
        return service.ask("GET", "/healthz").status == 200
    except (OSError, http.client.HTTPException):
        return False


def wait_for(what: Any, seconds: float = 10.0) -> None:
    """Until `what()` is true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
