"""What every part of the load tests works with: the model, the photos, how long things take, where lines go."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from serving import photos
from serving.client import Client, Outcomes
from serving.servers import BENCHMARKS, ROOT, Kind, Server, started

VERSIONS = ("onnxruntime", "fastapi", "uvicorn")


@dataclass(frozen=True)
class Lengths:
    """How long each part takes, in seconds, and how often it is repeated."""

    trial: float = 4.0  # one concurrency tried
    rate: float = 10.0  # one measurement of a rate
    rounds: int = 5
    times: float = 8.0  # service times of one batch size
    load: float = 120.0  # one load of the latency test
    overload: float = 30.0
    slow: float = 90.0  # one stretch with or without slow clients
    slow_rounds: int = 2
    requests: int = 100_000  # of the memory test
    signals: int = 100
    in_flight: int = 100  # when the signal comes
    warm: float = 3.0  # at the start of a stretch, not counted


SHORT = Lengths(0.5, 1.5, 2, 0.5, 5.0, 4.0, 14.0, 1, 3_000, 3, 20, 1.0)


@dataclass
class Session:
    """One run of the load tests on one model; the memory test has its own. `flags` are more of those of plusx."""

    model: Path
    source: Path
    work: Path
    out: Path
    lengths: Lengths
    kinds: dict[str, Kind]
    server_name: str  # of the server that is tested
    memory_model: Path
    flags: Sequence[str] = ()
    largest: int = 16
    name: str = ""
    machine: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.photos = photos.read(self.source)
        self.name = self.name or self.model.stem

    @contextmanager
    def server(self, name: str, *flags: str, model: Path | None = None) -> Iterator[Server]:
        """The server of that name, ready, with `flags` where it is plusx."""
        kind = self.kinds[name]
        more = (*self.flags, *flags) if name in ("plusx", "leaking") else ()
        with started(kind, model or self.model, self.work, more) as server:
            yield server

    def client(self, server: Server) -> Client:
        """A client that sends the photos to `server`."""
        kind = server.kind
        return Client(server.address, photos.requests(self.photos, kind.path, server.address, multipart=kind.multipart))

    def say(self, part: str, server: str, **figures: Any) -> dict[str, Any]:
        """Append a line to the results and print it without the machine; the line."""
        line = finite({"part": part, "server": server, "model": self.name, **figures})
        print(json.dumps(line), flush=True)
        whole = line | {"versions": {name: version(name) for name in VERSIONS}, "machine": self.machine}
        with self.out.open("a") as file:
            file.write(json.dumps(whole) + "\n")
        return whole

    def lines(self) -> list[dict[str, Any]]:
        """All lines of the results so far."""
        return [json.loads(line) for line in self.out.read_text().splitlines()] if self.out.exists() else []

    def peak_of(self, server: str) -> float:
        """The peak of `server` in the newest line that has it, in answers a second. Raises KeyError without one."""
        for line in reversed(self.lines()):
            if (line["part"], line["server"], line["model"]) == ("peak", server, self.name):
                return float(line["rate"])
        raise KeyError(f"measure the peak of {server} with {self.name} first: python benchmarks/serve.py peak")


def finite(value: Any) -> Any:
    """`value` as JSON has it: what is not finite becomes None."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def machine() -> dict[str, Any]:
    """Processor, cores and versions, asked by a process of its own: the one with the client stays small."""
    code = "import json; from growth import machine; print(json.dumps(machine()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, env=os.environ | {"PYTHONPATH": str(ROOT)},
                          check=True, capture_output=True)  # fmt: skip
    return dict(json.loads(done.stdout))


def cost(outcomes: Outcomes) -> float:
    """Microseconds of the client's CPU for each request."""
    return 1e6 * outcomes.cpu / max(1, len(outcomes.due))


def behind(outcomes: Outcomes) -> float:
    """Milliseconds from due to sent that 99 % of requests do not exceed: how late the client itself is."""
    late = sorted(value for value in outcomes.sent - outcomes.due if value == value)
    return 1e3 * float(late[int(0.99 * len(late))]) if late else 0.0
