"""Archives behind URLs fetched before they are needed, by one thread, in the order in which they will be."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path

from plusx.data import shards


class Ahead:
    """Fetches what it is told to want; what goes wrong is raised where the archive is needed.

    Its thread does not keep a process from ending, however long a server says nothing. Used by one thread at a time.
    """

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[tuple[str, Future[Path]] | None] = queue.SimpleQueue()
        self._found: dict[str, Future[Path]] = {}
        self._thread: threading.Thread | None = None

    def want(self, urls: Iterable[str]) -> None:
        """Fetch these next, in this order, as far as they are not under way."""
        for url in urls:
            if url not in self._found:
                self._found[url] = Future()
                self._wanted.put((url, self._found[url]))
        if self._found and self._thread is None:
            self._thread = threading.Thread(target=self._fetch, name="plusx-ahead", daemon=True)
            self._thread.start()

    def path(self, url: str) -> Path:
        """The archive as a local file, which stays until `let_go`; fetched here and now where it was not wanted."""
        if url not in self._found:
            self._found[url] = Future()
            self._found[url].set_running_or_notify_cancel()
            _fulfil(url, self._found[url])
        try:
            return self._found[url].result()
        except BaseException:
            self._found.pop(url, None)  # it may be asked for again
            raise

    def let_go(self, url: str) -> None:
        """The archive is needed no more; one that nobody has begun to fetch is not fetched."""
        future = self._found.pop(url, None)
        if future is not None and not future.cancel():
            future.add_done_callback(lambda done: None if done.exception() else shards.let_go(url))

    @property
    def wanted(self) -> tuple[str, ...]:
        """What is held or under way."""
        return tuple(self._found)

    def close(self) -> None:
        """Let go of everything; what is being fetched is let go of when it is there."""
        for url in self.wanted:
            self.let_go(url)
        self._wanted.put(None)

    def _fetch(self) -> None:
        while (item := self._wanted.get()) is not None:
            url, future = item
            if future.set_running_or_notify_cancel():
                _fulfil(url, future)


def _fulfil(url: str, future: Future[Path]) -> None:
    try:
        future.set_result(shards.opened(url))
    except BaseException as error:
        future.set_exception(error)
