"""Archives behind URLs fetched before they are needed, by one thread, in the order in which they will be."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable
from concurrent.futures import CancelledError, Future, InvalidStateError
from pathlib import Path

from plusx.data import shards


class Ahead:
    """Fetches what it is told to want; what goes wrong is raised where the archive is needed.

    Its thread does not keep a process from ending, however long a server says nothing. Used by one thread at a time,
    but for `close`, which ends the waiting of another one.
    """

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[tuple[str, Future[Path]] | None] = queue.SimpleQueue()
        self._found: dict[str, Future[Path]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        self._changing = threading.Lock()  # of the two before; nobody waits while it is held

    def want(self, urls: Iterable[str]) -> None:
        """Fetch these next, in this order, as far as they are not under way."""
        for url in urls:
            future, is_new = self._future(url)
            if is_new:
                self._wanted.put((url, future))
        if self._found and self._thread is None:
            self._thread = threading.Thread(target=self._fetch, name="plusx-ahead", daemon=True)
            self._thread.start()

    def path(self, url: str) -> Path:
        """The archive as a local file, which stays until `let_go`; fetched here and now where it was not wanted.

        Raises as `shards.opened` does, and CancelledError once this was closed.
        """
        future, is_new = self._future(url)
        if is_new:
            future.set_running_or_notify_cancel()
            _fulfil(url, future)
        try:
            return future.result()
        except BaseException:
            self._found.pop(url, None)  # it may be asked for again
            raise

    def let_go(self, url: str) -> None:
        """The archive is needed no more; one that nobody has begun to fetch is not fetched."""
        future = self._found.pop(url, None)
        if future is not None and not future.cancel():
            _let_go_when_there(url, future)

    @property
    def wanted(self) -> tuple[str, ...]:
        """What is held or under way."""
        return tuple(self._found)

    def close(self) -> None:
        """Let go of everything; what is being fetched is let go of when it is there, and nobody waits for it."""
        with self._changing:
            self._closed = True
            left, self._found = self._found, {}
        for url, future in left.items():
            if not future.cancel() and not _failed(future):
                _let_go_when_there(url, future)
        self._wanted.put(None)

    def _future(self, url: str) -> tuple[Future[Path], bool]:
        """What an archive will be, and whether nobody had asked for it. Raises CancelledError once this was closed."""
        with self._changing:
            if self._closed:
                raise CancelledError
            if url in self._found:
                return self._found[url], False
            return self._found.setdefault(url, Future()), True

    def _fetch(self) -> None:
        while (item := self._wanted.get()) is not None:
            url, future = item
            if future.set_running_or_notify_cancel():
                _fulfil(url, future)


def _fulfil(url: str, future: Future[Path]) -> None:
    try:
        found = shards.opened(url)
    except BaseException as error:
        with contextlib.suppress(InvalidStateError):  # closed meanwhile
            future.set_exception(error)
        return
    try:
        future.set_result(found)
    except InvalidStateError:
        shards.let_go(url)


def _failed(future: Future[Path]) -> bool:
    """Let whoever waits go on with an error; False where it is done already."""
    try:
        future.set_exception(CancelledError())
    except InvalidStateError:
        return False
    return True


def _let_go_when_there(url: str, future: Future[Path]) -> None:
    future.add_done_callback(lambda done: None if done.exception() else shards.let_go(url))
