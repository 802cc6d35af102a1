"""What damaged requests do to the service: row S18 of the fault matrix, bounded.

    python campaigns/http_fuzz.py --model model.onnx --trials 100000 --seed 0 --out FILE
    python campaigns/http_fuzz.py --model model.onnx --seed 0 --from 4711 --trials 1

Every trial damages a request, of any of the paths, by one to four mutations (fuzz_mutations.py) and sends it over a
connection of its own to a real service with short deadlines. Counted are the answers by status. Broken promises end
with exit code 1: an answer that is no HTTP, a 5xx that is not 503 or 504, a problem without its code, a connection
that is neither answered nor closed in time, and at the end a service that does not answer, has grown, or does not end
with 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the service in a process of its own is a test's

from fuzz_mutations import mutated

from tests.serve.conftest import jpeg
from tests.serve.service import Service, running

AT_ONCE = 48  # connections
PATIENCE = 8.0  # seconds for one: every deadline of the service is shorter
HEAD, BODY, IDLE = 0.5, 1.0, 1  # seconds that the service waits
GROWTH = 64_000_000  # bytes that it may grow by
SETTLED = 300  # trials before its memory counts
NOTED = 20
ALLOWED = frozenset({100, 200, *range(400, 432), 503, 504})


@dataclass
class Totals:
    """What was counted; `broken` names what must not be, with the trials that show it."""

    seed: int
    first: int
    trials: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    broken: dict[str, list[int]] = field(default_factory=dict)
    seconds: float = 0.0
    growth: int = 0
    ending: str = ""

    def fault(self, what: str, trial: int) -> None:
        """Note a broken promise."""
        self.broken.setdefault(what, []).append(trial)

    def to_json(self) -> dict[str, Any]:
        """One line of a results file; of a long list of trials, the first."""
        return asdict(self) | {"broken": {what: trials[:NOTED] for what, trials in self.broken.items()}}


def requests() -> dict[str, bytes]:
    """Requests that are right, of every path and in every form."""
    photo = jpeg(size=(24, 20))
    form = (
        b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        + photo
        + b"\r\n--b--\r\n"
    )
    tensor = {"name": "pixels", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [0, 0, 0]}
    infer = json.dumps({"id": "1", "inputs": [tensor]}).encode()
    chunked = b"5\r\n" + photo[:5] + b"\r\n%x\r\n" % (len(photo) - 5) + photo[5:] + b"\r\n0\r\nX-Trailer: 1\r\n\r\n"
    ranges = b"Range: bytes=" + b",".join(b"%d-" % i for i in range(200)) + b"\r\n"
    told = {f"get {path}": _request("GET", path) for path in _PATHS}
    return told | {
        "head": _request("HEAD", "/healthz"),
        "options": _request("OPTIONS", "*"),
        "photo": _post("/v1/predict", photo, b"Content-Type: image/jpeg\r\n"),
        "form": _post("/v1/predict", form, b"Content-Type: multipart/form-data; boundary=b\r\n"),
        "chunked": _request("POST", "/v1/predict", b"Transfer-Encoding: chunked\r\n") + chunked,
        "explain": _post("/v1/explain?class=a%00b&class=%ff", photo, b"Content-Type: application/octet-stream\r\n"),
        "infer": _post("/v2/models/model/infer", infer, b"Content-Type: application/json\r\n"),
        "expects": _post("/v1/predict", photo, b"Expect: 100-continue\r\nContent-Type: image/jpeg\r\n"),
        "odd": _request("GET", "/..%2f..%2fetc/passwd%00?%ff=;&&=", ranges + b"Origin: null\r\nCookie: a=b\r\n"),
        "long": _request("GET", "/" + "a" * 9000, b"X: " + b"y" * 40_000 + b"\r\n"),
        "upgrade": _request("GET", "/", b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n"),
        "smuggled": _request("POST", "/", b"Content-Length: 4\r\nTransfer-Encoding: chunked, identity\r\n")
        + b"0\r\n\r\n",
        "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    }


_PATHS = ("/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/model", "/v2", "/v2/models/model", "/nowhere")


def _request(method: str, path: str, headers: bytes = b"") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode() + headers + b"\r\n"


def _post(path: str, body: bytes, headers: bytes) -> bytes:
    return _request("POST", path, headers + b"Content-Length: %d\r\n" % len(body)) + body


def campaign(model: Path, seed: int, first: int, trials: int, seconds: float = float("inf")) -> Totals:
    """Trials from `first` on, until there were enough of them or the time is over."""
    totals, began = Totals(seed, first), time.monotonic()
    with running(model, head_seconds=HEAD, body_seconds=BODY, reply_seconds=2.0, idle_seconds=IDLE) as service:
        asyncio.run(_send_all(service, totals, trials, began + seconds))
        totals.seconds = time.monotonic() - began
        totals.ending = _ended(service)
    if totals.ending != "answers, and ends with 0":
        totals.fault(totals.ending, first)
    if totals.growth > GROWTH:
        totals.fault("the service grows", first)
    return totals


async def _send_all(service: Service, totals: Totals, trials: int, until: float) -> None:
    kinds, places, before = requests(), asyncio.Semaphore(AT_ONCE), 0
    async with asyncio.TaskGroup() as tasks:
        for trial in range(totals.first, totals.first + trials):
            await places.acquire()
            if time.monotonic() > until:
                break
            if trial == totals.first + SETTLED:
                before = service.memory()
            task = tasks.create_task(_trial(service, totals, trial, kinds))
            task.add_done_callback(lambda _: places.release())
    totals.growth = service.memory() - before if before else 0


async def _trial(service: Service, totals: Totals, trial: int, kinds: Mapping[str, bytes]) -> None:
    data = mutated(totals.seed, trial, kinds).data
    totals.trials += 1
    try:
        async with asyncio.timeout(PATIENCE):
            reply = await _exchange(service, data)
    except TimeoutError:
        totals.fault("neither answered nor closed", trial)
        return
    for status, problem in _read(reply):
        totals.statuses[str(status)] += 1
        if problem:
            totals.fault(problem, trial)
    if not reply:
        totals.statuses["closed"] += 1


async def _exchange(service: Service, data: bytes) -> bytes:
    """All that comes back, until the service closes."""
    reader, writer = await asyncio.open_connection(service.host, service.port)
    found = b""
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        while more := await reader.read(1 << 16):
            found += more
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return found


class _Replies:
    """Bytes where http.client wants a socket; it would close a file that is needed for the next reply."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def makefile(self, *_: Any) -> io.BufferedIOBase:
        """What is to be read."""
        return io.BytesIO(self.file.read())


def _read(replies: bytes) -> Iterator[tuple[int, str]]:
    """The status of every reply in a connection's bytes, and what is wrong with it or nothing."""
    while replies:
        if not replies.startswith(b"HTTP/1.1 "):
            yield 0, "no HTTP"
            return
        if replies.startswith(b"HTTP/1.1 100 "):
            yield 100, ""
            replies = replies.partition(b"\r\n\r\n")[2]
            continue
        reply = http.client.HTTPResponse(_Replies(replies))  # type: ignore[arg-type]
        try:
            reply.begin()
        except http.client.HTTPException:
            yield 0, "a head that cannot be read"
            return
        head, length = replies.index(b"\r\n\r\n") + 4, int(reply.getheader("content-length") or 0)
        body = replies[head : head + length]
        of_head = bool(length) and not body  # an answer to HEAD, or one that was cut
        yield reply.status, _wrong(reply, body, of_head)
        replies = replies[head + len(body) :] if not of_head else b""


def _wrong(reply: http.client.HTTPResponse, body: bytes, of_head: bool) -> str:
    if reply.status not in ALLOWED:
        return f"status {reply.status}"
    if of_head or reply.getheader("content-type") != "application/problem+json":
        return "" if of_head or reply.status < 400 else "an error that is no problem document"
    try:
        said = json.loads(body)
    except ValueError:
        return "a problem that is no JSON"
    says = said.get("status") == reply.status and said.get("code") and said.get("detail")
    return "" if says else "a problem that says little"


def _ended(service: Service) -> str:
    """What becomes of the service in the end."""
    if service.process.poll() is not None:
        return f"ended by itself with {service.process.returncode}"
    if service.ask("GET", "/readyz").status != 200 or service.photo(jpeg()).status != 200:
        return "does not answer"
    code = service.stop()
    assert service.process.stderr is not None
    said = service.process.stderr.read()
    if code or "Traceback" in said or "a fault at" in said:
        return f"ends with {code} and says {said[:300]!r}"
    return "answers, and ends with 0"


def table(totals: Totals) -> Iterator[str]:
    """What was counted, for people."""
    yield f"{totals.trials:,} requests in {totals.seconds:.0f} s; growth {totals.growth / 1e6:.1f} MB; {totals.ending}"
    for status, count in totals.statuses.most_common():
        yield f"  {status:<7} {count:>9,}"
    for what, trials in totals.broken.items():
        yield f"BROKEN: {what}: trials {', '.join(map(str, trials[:NOTED]))} of seed {totals.seed}"


def main() -> int:
    """Run it as asked, print the table, append the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="an exported model")
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    totals = campaign(asked.model, asked.seed, asked.first, asked.trials, asked.seconds)
    print("\n".join(table(totals)))
    if asked.out is not None:
        with asked.out.open("a") as file:
            file.write(json.dumps({"campaign": "http_fuzz", **totals.to_json()}) + "\n")
    return 1 if totals.broken else 0


if __name__ == "__main__":
    sys.exit(main())
