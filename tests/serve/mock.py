"""A stand-in for `plusx serve`: the same contract, answers that depend on the colour of the photo alone.

Red is a cat, blue a dog, grey is doubtful, and green is nothing that it knows.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image, ImageOps

from plusx.serve.page import page

Answer = dict[str, Any]


@dataclass
class Mock:
    """What the stand-in is to do, and what it was asked: (method, path) of every request."""

    classes: tuple[str, ...] = ("cat", "dog")
    name: str = "cats-and-dogs"
    token: str | None = None
    explains: str | None = "cam"
    busy: int = 0  # how many photos are refused before the first is taken
    retry_after: str = "1"
    delay: float = 0.0  # s
    megabytes: float = 20
    asked: list[tuple[str, str]] = field(default_factory=list)
    most: int = 0  # photos that were worked on at once
    now: int = 0
    ended: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def model(self) -> Answer:
        """The document of /v1/model."""
        classes = [{"name": c, "threshold": 0.9, "n": 400, "answered": 380, "errors": 2} for c in self.classes]
        return {
            **{"name": self.name, "network": "resnet16", "classes": list(self.classes), "pixels": 96},
            **{"views": ["whole", "closer", "whole mirrored", "closer mirrored"], "step": 12_340, "calibrated": True},
            "thresholds": {"risk": 0.01, "confidence": 0.95, "n": 800, "coverage": 0.95, "classes": classes},
            **{"knows_novelty": True, "explains": self.explains, "sha256": "5e" * 32, "data_fingerprint": "ab" * 32},
            "plusx": "0.6.0",
            "limits": {"megabytes": self.megabytes, "megapixels": 25, "deadline_seconds": 10, "queue": 64},
        }

    def answer(self, photo: Image.Image) -> Answer:
        """The document of /v1/predict."""
        red, green, blue = np.asarray(photo.convert("RGB").resize((1, 1), Image.Resampling.BOX))[0, 0] / 255
        novel = green > 1.3 * max(red, blue)
        first = float(np.clip(0.5 + 1.1 * (red - blue), 0.013, 0.987))
        rest = np.array([0.5 ** (i + 1) for i in range(len(self.classes) - 2)])
        spread = 0.1 * rest / rest.sum() if len(rest) else rest
        p = [first * (1 - spread.sum()), (1 - first) * (1 - spread.sum()), *spread][: len(self.classes)]
        best = int(np.argmax(p))
        answer = "none of these" if novel else "unsure" if p[best] < 0.8 else self.classes[best]
        return {
            **{"label": self.classes[best], "probability": float(p[best]), "answer": answer},
            "probabilities": dict(zip(self.classes, map(float, p), strict=True)),
            **{"novelty": 3.2 if novel else 0.4, "milliseconds": 12.5, "model_sha256": "5e" * 32},
        }

    def explanation(self, photo: Image.Image, name: str | None) -> Answer:
        """The document of /v1/explain: evidence in the upper left, where the network saw the middle square."""
        width, height = photo.size
        side = min(width, height)
        left, top = (width - side) / 2 / width, (height - side) / 2 / height
        rows, columns = np.mgrid[0:14, 0:14] / 13
        values = np.exp(-(((rows - 0.35) ** 2 + (columns - 0.4) ** 2) / 0.05)) - 0.15
        chosen = name or self.answer(photo)["label"]
        return {
            **self.answer(photo),
            **{"class": chosen, "method": "cam", "box": [left, top, 1 - left, 1 - top]},
            "words": "upper left: 12 % of the area holds half of the evidence",
            "map": {"rows": 14, "columns": 14, "values": values.ravel().round(4).tolist()},
        }


@contextmanager
def serving(mock: Mock) -> Iterator[str]:
    """The address of a stand-in that runs meanwhile."""
    handler = type("Handler", (_Handler,), {"mock": mock})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        mock.ended = True  # connections that are kept alive get no answer either
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    mock: Mock
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def handle_one_request(self) -> None:
        """One request of a connection; none once the server has ended."""
        super().handle_one_request()
        self.close_connection |= self.mock.ended

    def do_GET(self) -> None:
        self.mock.asked.append(("GET", self.path))
        if self.mock.ended:
            return
        if self.path == "/":
            self._send(200, page().body, "text/html; charset=utf-8", page().policy)
        elif self._refused():
            return
        elif self.path == "/v1/model":
            self._json(200, self.mock.model())
        else:
            self._problem(404, "not-found", f"There is nothing at {self.path}.")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        mock, path = self.mock, urlsplit(self.path)
        if mock.ended:
            return
        with mock.lock:
            mock.asked.append(("POST", self.path))
            mock.now += 1
            mock.most = max(mock.most, mock.now)
        time.sleep(mock.delay)
        with mock.lock:
            mock.now -= 1
            busy = mock.busy > 0
            mock.busy -= busy
        if self._refused():
            return
        if busy:
            self._problem(503, "queue-full", "64 photos wait already.", {"Retry-After": mock.retry_after})
            return
        self._photo(path.path, parse_qs(path.query).get("class", [None])[0], body)

    def _photo(self, path: str, name: str | None, body: bytes) -> None:
        try:
            photo = ImageOps.exif_transpose(Image.open(io.BytesIO(body)))
            photo.load()
        except OSError:
            detail = f"The JPEG is cut off: its {len(body):,} bytes end before the picture does; download it again."
            self._problem(422, "truncated", detail)
            return
        answer = self.mock.answer(photo) if path == "/v1/predict" else self.mock.explanation(photo, name)
        self._json(200, answer)

    def _refused(self) -> bool:
        """Whether the token is missing or wrong, which is said."""
        token, given = self.mock.token, self.headers.get("Authorization")
        if token is None or given == f"Bearer {token}":
            return False
        code = "no-token" if given is None else "wrong-token"
        said = "This server wants a token." if given is None else "This is not the token of this server."
        self._problem(401, code, said, {"WWW-Authenticate": "Bearer"})
        return True

    def _problem(self, status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        document = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code}
        body = json.dumps(document).encode()
        self._send(status, body, "application/problem+json", "default-src 'none'", headers)

    def _json(self, status: int, document: Answer) -> None:
        self._send(status, json.dumps(document).encode(), "application/json", "default-src 'none'")

    def _send(self, status: int, body: bytes, kind: str, policy: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        common = {"Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": policy}
        common |= {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
        for key, value in {**common, **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
