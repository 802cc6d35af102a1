"""Bounds for a graph that somebody else may have made: what it may take while nothing is known of it yet."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOST_BYTES = 4 << 30  # beyond what the process has, for one photo; the largest networks and photos take about one
MOST_SECONDS = 60.0  # for one photo

_ONE_AT_A_TIME = threading.Lock()  # the limit is the whole process's


@contextmanager
def bounded_memory(more: int) -> Iterator[None]:
    """Within, what would take over `more` bytes on top of what this process has fails. On Linux, where it can be asked.

    Only addresses are counted, so that nothing has to be filled before it is refused. The limit, RLIMIT_AS, is that of
    the whole process: meanwhile other threads, and processes that are started, have it too.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    with _ONE_AT_A_TIME:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + more
        tighter = soft == resource.RLIM_INFINITY or limit < soft
        resource.setrlimit(resource.RLIMIT_AS, (limit if tighter else soft, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def ended_after(options: Any, seconds: float) -> Iterator[Any]:
    """ONNX Runtime's options of a run, which ends between two operators once `seconds` are over."""
    timer = threading.Timer(seconds, lambda: setattr(options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()
