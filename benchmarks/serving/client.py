"""A load generator that costs little: one thread, epoll, requests that are bytes already, connections kept open.

In the open loop an arrival never waits for a connection: where none is idle a new one is opened. Every request has the
moment at which it was DUE, fixed before the run starts; latencies count from there, so a client that is late, or a
server that stalls everybody, hides nothing (coordinated omission, Tene 2015). Responses need a Content-Length.
"""

from __future__ import annotations

import errno
import gc
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
NO_ANSWER, NOT_SENT = 0, -1  # instead of a status: the connection ended or nothing came; no connection was to be had
MOST = 12_000  # connections at once
PAUSE = 0.01  # seconds
UNDER_WAY = (0, errno.EINPROGRESS, errno.EAGAIN)
OK = 200


@dataclass(frozen=True)
class Outcomes:
    """What became of n requests, arrays [n]: seconds since the start of the run, NaN where it did not happen.

    `due` is when a request should have been sent, `sent` when the kernel had its last byte, `done` when its answer was
    whole; `status` is that of HTTP, NO_ANSWER or NOT_SENT. `cpu` are the seconds of CPU that the client itself took.
    """

    due: Floats
    sent: Floats
    done: Floats
    status: npt.NDArray[np.int64]
    cpu: float

    def after(self, seconds: float) -> Outcomes:
        """Those that were due `seconds` after the start or later; what comes before is warming up."""
        kept = self.due >= seconds
        return Outcomes(self.due[kept], self.sent[kept], self.done[kept], self.status[kept], self.cpu)

    def latencies(self) -> Floats:
        """Seconds from due to done [n], in the order of arrival; infinite without a 200: refusing improves nothing."""
        return np.where(self.status == OK, self.done - self.due, np.inf)

    def rate(self, begin: float, end: float, within: float = np.inf) -> float:
        """Answers a second that came between `begin` and `end`, each `within` seconds of being due."""
        good = (self.status == OK) & (self.done >= begin) & (self.done < end) & (self.done - self.due <= within)
        return float(good.sum() / (end - begin))

    def counts(self) -> dict[str, int]:
        """How many there are of every status."""
        found, counts = np.unique(self.status, return_counts=True)
        return {str(status): int(count) for status, count in zip(found, counts, strict=True)}


class _Connection:
    __slots__ = ("answer", "index", "rest", "sock", "waits_to_write")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.index = -1  # of the request that it carries
        self.rest = memoryview(b"")  # what of the request has not been sent
        self.answer = b""
        self.waits_to_write = False


class Client:
    """Sends `requests`, cycled, to `address`. `call_at` runs something in the middle of a run; see `at`."""

    def __init__(self, address: tuple[str, int], requests: Sequence[bytes], most: int = MOST) -> None:
        self._address, self._most = address, most
        self._requests = [memoryview(request) for request in requests]
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._idle: list[_Connection] = []
        self._calls: list[tuple[float, Callable[[], None]]] = []
        self._clear()

    def _clear(self) -> None:
        self._due: list[float] = []
        self._sent: list[float] = []
        self._done: list[float] = []
        self._status: list[int] = []
        self._busy = 0
        self._paused = 0.0  # until then the closed loop sends nothing
        self._start = time.perf_counter()

    def at(self, seconds: float, call: Callable[[], None]) -> None:
        """Call `call` once, `seconds` after the start of the next run, in its loop: it should take no time."""
        self._calls = sorted([*self._calls, (seconds, call)], key=lambda entry: entry[0])

    def every(self, seconds: float, call: Callable[[], None], until: float) -> None:
        """Call `call` again and again in the next run."""
        for number in range(int(until / seconds) + 1):
            self.at(number * seconds, call)

    def now(self) -> float:
        """Seconds since the start of the run."""
        return time.perf_counter() - self._start

    def open_loop(self, due: Floats, patience: float = 30.0) -> Outcomes:
        """Send a request at each of the moments `due` [n], ascending; wait `patience` seconds after the last."""
        with self._run() as outcomes:
            position, end = 0, float(due[-1]) + patience
            moments = [float(moment) for moment in due]
            while (now := self.now()) < end and (position < len(moments) or self._busy):
                while position < len(moments) and moments[position] <= now:
                    self._begin(moments[position])
                    position += 1
                if position < len(moments) or self._busy:
                    self._turn(min(end, moments[position] if position < len(moments) else end))
        return outcomes[0]

    def closed_loop(self, concurrency: int, seconds: float, *, patience: float = 30.0) -> Outcomes:
        """Keep `concurrency` requests in flight for `seconds`, then wait for those that are under way.

        After a connection that was lost or refused nothing is sent for PAUSE seconds: there may be no server any more.
        """
        with self._run() as outcomes:
            while (now := self.now()) < seconds + patience and (now < seconds or self._busy):
                for _ in range(concurrency - self._busy if self._paused <= now < seconds else 0):
                    self._begin(self.now())
                until = seconds if now < seconds else seconds + patience
                self._turn(min(until, self._paused) if now < self._paused else until)
        return outcomes[0]

    @contextmanager
    def _run(self) -> Iterator[list[Outcomes]]:
        """The frame of a run: no garbage collection in it, the client's own CPU measured, connections let go after."""
        outcomes: list[Outcomes] = []
        gc.collect()
        gc.disable()
        self._clear()
        before = _cpu()
        try:
            yield outcomes
        finally:
            gc.enable()
            self._calls = []
            for connection in list(self._connections.values()):
                self._drop(connection)
        arrays = [np.array(values, dtype=np.float64) for values in (self._due, self._sent, self._done)]
        outcomes.append(Outcomes(*arrays, np.array(self._status, dtype=np.int64), _cpu() - before))

    def _turn(self, until: float) -> None:
        """Wait for events until `until`, or the next call, and see to them."""
        if self._calls:
            until = min(until, self._calls[0][0])
        # epoll alone waits whole milliseconds, select on it microseconds
        select.select([self._epoll], [], [], max(0.0, until - self.now()))
        for number, event in self._epoll.poll(0):
            connection = self._connections.get(number)
            if connection is None:
                continue
            if connection.waits_to_write and event & select.EPOLLOUT:
                self._write(connection)
            if event & ~select.EPOLLOUT:
                self._read(connection)
        while self._calls and self._calls[0][0] <= self.now():
            self._calls.pop(0)[1]()

    def _begin(self, due: float) -> None:
        self._due.append(due)
        self._sent.append(np.nan)
        self._done.append(np.nan)
        self._status.append(NO_ANSWER)
        connection = self._idle.pop() if self._idle else self._connect()
        if connection is None:
            self._status[-1] = NOT_SENT
            self._paused = self.now() + PAUSE
            return
        self._busy += 1
        connection.index, connection.answer = len(self._due) - 1, b""
        connection.rest = self._requests[connection.index % len(self._requests)]
        self._write(connection)

    def _connect(self) -> _Connection | None:
        if len(self._connections) >= self._most:
            return None
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)  # a whole photo in one call
        if sock.connect_ex(self._address) not in UNDER_WAY:
            sock.close()
            return None
        connection = _Connection(sock)
        self._connections[sock.fileno()] = connection
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return connection

    def _write(self, connection: _Connection) -> None:
        try:
            while len(connection.rest):
                connection.rest = connection.rest[connection.sock.send(connection.rest) :]
        except BlockingIOError:
            self._watch(connection, to_write=True)
            return
        except OSError:  # it may have answered before it closed
            self._read(connection)
            return
        self._sent[connection.index] = self.now()
        self._watch(connection, to_write=False)

    def _watch(self, connection: _Connection, *, to_write: bool) -> None:
        if connection.waits_to_write != to_write:
            connection.waits_to_write = to_write
            self._epoll.modify(connection.sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if to_write else 0))

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or connection.index < 0:  # closed, or something that nobody asked for
            self._drop(connection)
            return
        connection.answer = connection.answer + data if connection.answer else data
        whole = parsed(connection.answer)
        if whole is not None:
            self._answered(connection, *whole)

    def _answered(self, connection: _Connection, status: int, closes: bool) -> None:
        index = connection.index
        self._done[index], self._status[index] = self.now(), status
        self._busy -= 1
        connection.index = -1
        if closes or len(connection.rest):  # or it was answered before it had everything
            self._drop(connection)
        else:
            self._idle.append(connection)

    def _drop(self, connection: _Connection) -> None:
        if connection.index >= 0:
            self._busy -= 1
            self._paused = self.now() + PAUSE
            connection.index = -1
        elif connection in self._idle:
            self._idle.remove(connection)
        self._connections.pop(connection.sock.fileno(), None)
        connection.sock.close()


def parsed(answer: bytes) -> tuple[int, bool] | None:
    """The status of a whole response, and whether the server closes after it; None for a part of one."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = answer[:end].lower()
    place = head.find(b"\r\ncontent-length:")
    if place < 0:
        raise ValueError(f"a response without a length: {answer[:200]!r}")
    length = int(head[place + 17 :].split(b"\r\n", 1)[0])
    if len(answer) < end + 4 + length:
        return None
    return int(answer[9:12]), b"\r\nconnection: close" in head


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Several runs as one; moments stay those of each run."""
    fields = ("due", "sent", "done", "status")
    due, sent, done, status = (np.concatenate([getattr(part, name) for part in parts]) for name in fields)
    return Outcomes(due, sent, done, status, sum(part.cpu for part in parts))


def poisson(rate: float, seconds: float, seed: int) -> Floats:
    """Moments of a Poisson process of `rate` a second in [0, seconds), ascending; at least one."""
    draws = np.random.default_rng(seed)
    gaps = draws.exponential(1 / rate, size=int(rate * seconds * 1.2) + 100)
    moments = np.cumsum(gaps)
    return np.asarray(moments[: max(1, int(np.searchsorted(moments, seconds)))], dtype=np.float64)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
