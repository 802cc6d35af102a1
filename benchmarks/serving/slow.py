"""A thousand slow clients: they open connections, keep them busy with nothing, and open others when they are closed.

    python benchmarks/serving/slow.py HOST PORT SECONDS EACH

EACH of every kind: `idle` connects and says nothing; `headers` sends a byte of its headers every second; `body`
promises a photo, sends a thousand bytes and stops; `reader` asks for the page many times over and reads a byte a
second, through the smallest of windows. Whether a server has let go of a slow reader cannot be seen from its end,
where what was sent still waits to be read, so the kernel's table of connections is asked.

Prints what became of them as JSON: for every kind how many were closed by the server, the seconds that the longest of
those lived and that the oldest of the open ones has lived, the first lines that were answered, and the seconds of CPU
it all took.
"""

from __future__ import annotations

import collections
import contextlib
import json
import select
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

KINDS = ("idle", "headers", "body", "reader")
STEPS = 20  # a second: each client does something in one of them
ASKED_BYTES, MOST_ASKED = 6_000_000, 300  # that a slow reader asks for at once, and how many pages at most
AT_ONCE = 25  # that come in one step
TABLE = Path("/proc/net/tcp")


class Slow:
    """One slow connection of a kind."""

    def __init__(self, kind: str, address: tuple[str, int], pages: int) -> None:
        self.held = False  # whether the server was seen to have it
        self.kind, self.begun, self.line = kind, time.monotonic(), b""
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if kind == "reader":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self.sock.setblocking(False)
        self.sock.connect_ex(address)
        host = f"Host: {address[0]}:{address[1]}\r\n"
        post = f"POST /v1/predict HTTP/1.1\r\n{host}Content-Type: image/jpeg\r\n"
        self._said = {
            "idle": "",
            "headers": post,
            "body": f"{post}Content-Length: 40000\r\n\r\n" + "x" * 1000,
            "reader": f"GET / HTTP/1.1\r\n{host}\r\n" * pages,
        }[kind].encode()

    @property
    def age(self) -> float:
        """Seconds since it connected."""
        return time.monotonic() - self.begun

    def act(self) -> None:
        """What it does once a second. Raises OSError where the server has closed."""
        with contextlib.suppress(BlockingIOError):
            if self.kind == "headers":
                self.sock.send(self._said[:1] or b"x")
                self._said = self._said[1:]
            elif self._said:
                self._said = self._said[self.sock.send(self._said) :]
            elif self.kind == "reader":
                self.hear(1)

    def hear(self, size: int) -> None:
        """Read. Raises OSError where the server has closed."""
        data = self.sock.recv(size)
        if not data:
            raise ConnectionResetError("closed")
        if len(self.line) < 12:
            self.line += data


class Crowd:
    """All slow clients of one server."""

    def __init__(self, address: tuple[str, int], each: int) -> None:
        self._address, self._pages = address, pages_to_ask(address)
        self._epoll = select.epoll()
        self._open: dict[int, Slow] = {}
        self._closed: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self._lines: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in KINDS}
        self._to_come = [kind for _ in range(each) for kind in KINDS]

    def _add(self, kind: str) -> None:
        slow = Slow(kind, self._address, self._pages)
        self._open[slow.sock.fileno()] = slow
        heard = 0 if kind == "reader" else select.EPOLLIN  # what waits for a slow reader would wake us for ever
        self._epoll.register(slow.sock.fileno(), heard | select.EPOLLRDHUP)

    def live(self, seconds: float) -> None:
        """Be slow for so long."""
        begun, step = time.monotonic(), 0
        while time.monotonic() < begun + seconds:
            self._listen(max(0.0, begun + step / STEPS - time.monotonic()))
            if time.monotonic() >= begun + step / STEPS:
                for number, slow in list(self._open.items()):
                    if number % STEPS == step % STEPS:
                        self._try(slow, slow.act)
                if step % STEPS == 0:
                    self._look_after_readers()
                for kind in self._to_come[:AT_ONCE]:
                    self._add(kind)
                del self._to_come[:AT_ONCE]
                step += 1

    def _look_after_readers(self) -> None:
        held = held_by(self._address[1])
        for slow in [slow for slow in self._open.values() if slow.kind == "reader"]:
            there = slow.sock.getsockname()[1] in held
            if slow.held and not there:
                self._ended(slow)
            slow.held = there

    def _listen(self, seconds: float) -> None:
        for number, event in self._epoll.poll(seconds):
            slow = self._open[number]
            if event & (select.EPOLLHUP | select.EPOLLERR) and slow.kind == "reader":
                self._ended(slow)
            else:
                self._try(slow, lambda slow=slow: slow.hear(4096))  # type: ignore[misc]

    def _try(self, slow: Slow, act: Any) -> None:
        try:
            act()
        except BlockingIOError:
            pass
        except OSError:
            self._ended(slow)

    def _ended(self, slow: Slow) -> None:
        self._closed[slow.kind].append(slow.age)
        self._lines[slow.kind][slow.line[:12].decode("latin-1")] += 1
        del self._open[slow.sock.fileno()]
        slow.sock.close()
        self._add(slow.kind)

    def told(self) -> dict[str, Any]:
        """What became of them, by kind."""
        found = {}
        for kind in KINDS:
            closed, ages = self._closed[kind], [slow.age for slow in self._open.values() if slow.kind == kind]
            lives = {"closed": len(closed), "longest": max(closed, default=None), "oldest": max(ages, default=0.0)}
            found[kind] = lives | {"open": len(ages), "answers": dict(self._lines[kind])}
        return found


def pages_to_ask(address: tuple[str, int]) -> int:
    """So many pages that no buffer holds them all."""
    try:
        with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/", timeout=10) as answer:
            return min(MOST_ASKED, -(-ASKED_BYTES // max(1, len(answer.read()))))
    except urllib.error.HTTPError:
        return MOST_ASKED


def held_by(port: int) -> set[int]:
    """The ports of clients whose connections a process that serves `port` has open: those without one have no inode."""
    found = set()
    for line in TABLE.read_text().splitlines()[1:]:
        fields = line.split()
        ours, theirs = (int(end.rpartition(":")[2], 16) for end in fields[1:3])
        if ours == port and fields[9] != "0":
            found.add(theirs)
    return found


def main() -> None:
    """Be slow, then say what became of it."""
    host, port, seconds, each = sys.argv[1:]
    crowd = Crowd((host, int(port)), int(each))
    crowd.live(float(seconds))
    print(json.dumps({"kinds": crowd.told(), "cpu": time.process_time()}), flush=True)


if __name__ == "__main__":
    main()
