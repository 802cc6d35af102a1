"""The servers under test: how each is started, asked whether it is ready, weighed and ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
RIVALS = BENCHMARKS / "rivals"
HOST = "127.0.0.1"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Kind:
    """A server by name: what starts it, where photos go, where it says that it is ready."""

    name: str
    command: tuple[str, ...]  # {model} and {port} are filled in
    path: str = "/v1/predict"
    ready: str = "/readyz"
    multipart: bool = False


def kinds(python: Path) -> dict[str, Kind]:
    """All of them; `python` is the interpreter that has LitServe."""
    ours = (sys.executable, "-m", "plusx", "serve", "{model}", "--port", "{port}")
    leaking = (sys.executable, str(Path(__file__).with_name("leaking.py")), *ours[3:])
    plain = (sys.executable, str(RIVALS / "plain_server.py"), "{model}", "{port}")
    lit = (str(python), str(RIVALS / "litserve_server.py"), "{model}", "{port}")
    return {
        "plusx": Kind("plusx", ours),
        "leaking": Kind("leaking", leaking),
        "plain": Kind("plain", plain, "/predict", "/health"),
        "litserve": Kind("litserve", lit, "/predict", "/health", multipart=True),
    }


class Server:
    """A server of `kind` that is ready, in a session of its own. A context manager that ends all its processes."""

    def __init__(self, kind: Kind, model: Path, log: Path, flags: Sequence[str] = ()) -> None:
        self.kind, self.address = kind, (HOST, _free_port())
        filled = [part.format(model=model, port=self.address[1]) for part in kind.command]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._log = log
        with log.open("ab") as file:
            begun = time.monotonic()
            self.process = subprocess.Popen(
                [*filled, *flags], stdout=file, stderr=file, env=environment, start_new_session=True
            )
        self._await_ready()
        self.seconds_to_start = time.monotonic() - begun

    def _await_ready(self, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.kind.name} ended with {self.process.returncode}; see {self._log}")
            with contextlib.suppress(OSError):
                if self.get(self.kind.ready)[0] == 200:
                    return
            time.sleep(0.02)
        self.end()
        raise RuntimeError(f"{self.kind.name} was not ready after {seconds:.0f} s; see {self._log}")

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of one GET. Raises OSError where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.address[1]}{path}", timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def limits(self) -> dict[str, Any]:
        """The limits that the server says it has; empty where it says nothing of the kind."""
        status, body = self.get("/v1/model")
        return dict(json.loads(body)["limits"]) if status == 200 else {}

    def weight(self) -> int:
        """Resident bytes of all its processes together; what they share counts once for each."""
        return sum(_resident(number) for number in family(self.process.pid))

    def cpu(self) -> float:
        """Seconds of CPU of all its living processes so far."""
        return sum(_cpu_seconds(number) for number in family(self.process.pid))

    def end(self) -> None:
        """End every process of the session that is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for number in found:  # grows as it is walked
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{number}/task").iterdir():
                found.extend(map(int, (task / "children").read_text().split()))
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0  # it has just ended


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Bare:
    """ONNX Runtime alone, in one process: `bare.py`, which computes what it is asked for."""

    def __init__(self, model: Path, photos: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("bare.py")), str(model), str(photos)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(BENCHMARKS)])}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=environment, **pipes)

    def ask(self, **question: Any) -> Any:
        """The answer to one question. Raises RuntimeError where the process ended."""
        assert self._process.stdin, "a pipe"
        assert self._process.stdout, "a pipe"
        print(json.dumps(question), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the bare loop ended")
        return json.loads(line)

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def started(kind: Kind, model: Path, work: Path, flags: Sequence[str] = ()) -> Iterator[Server]:
    """A server, its output in `work`."""
    with Server(kind, model, work / f"{kind.name}.log", flags) as server:
        yield server
