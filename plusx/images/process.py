"""The parent's side of one decoding process. Nothing the process says is trusted: it is killed rather than believed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from plusx.images import answers, worker
from plusx.images.answers import Surveyed
from plusx.images.decode import MAX_PIXELS
from plusx.images.preprocess import Pixels, Preprocess
from plusx.images.source import Source

PRIVATE = frozenset({"PLUSX_TOKEN", "NOTIFY_SOCKET"})  # of the environment: nothing for whoever takes a decoder over
_MAX_HEADER = 1 << 16
_PIPE = 1 << 20
_BOOT = "import sys; r = sys.argv[1]; r in sys.path or sys.path.insert(0, r); import plusx.images.worker as w; w.main()"

Task = tuple[int, Source]
Answer = tuple[int, Any]  # what was asked for, Pixels or Surveyed, or a BadPhoto
_NO_FILE = Source("")


@dataclass(frozen=True)
class Limits:
    """What one photo may cost: seconds, bytes of address space of its process, pixels of its picture."""

    seconds: float = 20.0
    memory: int = worker.MEMORY
    pixels: int = MAX_PIXELS


def worker_command() -> tuple[str, ...]:
    """The command of one worker: this interpreter and this plusx, whatever the current folder holds."""
    return (sys.executable, "-P", "-c", _BOOT, str(Path(__file__).parents[2]))


class DecodingProcess:
    """The parent's side of one process. Nothing it says is trusted: index, code and size must be what is due."""

    def __init__(self, command: Sequence[str], preprocess: Preprocess, limits: Limits) -> None:
        self.crop = preprocess.crop
        self.queue: deque[Task] = deque()
        self.facts = False  # whether facts are due beside the pixels of the photos in the queue
        self.ready = False
        self.confused = self.ended = self.silent = False
        self.since = time.monotonic()  # when the photo in hand, or the start, began
        self.outbox = bytearray(worker.message({"preprocess": preprocess.to_json(), **asdict(limits)}))
        self._inbox = bytearray()
        self._complaints = _unnamed_file()  # its own, since what several print at once would mix; end() closes it
        self.last_words = ""  # the last line it complained with, known when it has ended
        self._process = _spawn(command, self._complaints)
        assert self._process.stdin is not None, "stdin is a pipe"
        assert self._process.stdout is not None, "stdout is a pipe"
        self.input = self._process.stdin.fileno()
        self.output = self._process.stdout.fileno()
        _prepare_pipes(self.input, self.output)

    def send(self, tasks: Sequence[Task], facts: bool) -> None:
        """Put `tasks` at the end of the worker's queue, which holds those of one `map` or one `survey` alone."""
        photos = [(index, s.file, s.offset, s.length, s.sha256) for index, s in tasks]
        self._send(tasks, facts, worker.message({"facts": facts, "photos": photos}))

    def send_bytes(self, index: int, photo: bytes, facts: bool) -> None:
        """Put one photo at the end of the queue that lies in no file."""
        self._send([(index, _NO_FILE)], facts, worker.message({"facts": facts, "photo": index}, photo))

    def _send(self, tasks: Sequence[Task], facts: bool, message: bytes) -> None:
        self.facts = facts
        if not self.queue:
            self.since = time.monotonic()
        self.queue.extend(tasks)
        self.outbox += message
        self.flush()

    def receive(self) -> None:
        """Take in what has arrived, without waiting; sets `silent` where nothing has, `ended` at the end."""
        self.flush()
        self.silent = False
        try:
            data = os.read(self.output, _PIPE)
        except BlockingIOError:
            self.silent = True
            return
        self._inbox += data
        self.ended = not data

    def answers(self) -> Iterator[Answer]:
        """Every complete answer received so far; sets `confused` at the first one that makes no sense."""
        while not self.confused and (parts := self._next_message()) is not None:
            try:
                answer = self._understood(*parts)
            except (ValueError, KeyError, TypeError, IndexError, RecursionError):
                self.confused = True
                return
            self.since = time.monotonic()
            if answer is not None:
                yield answer

    def deadline(self, seconds: float) -> float:
        """When the photo in hand will have taken `seconds`; starting up may take a minute."""
        return self.since + (seconds if self.ready else max(seconds, 60.0))

    def is_late(self, seconds: float) -> bool:
        """Whether the deadline is over and, looked at just now, there is still no word of the photo in hand."""
        return bool(self.queue) and self.silent and time.monotonic() > self.deadline(seconds)

    def gone(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def end(self) -> int:
        """Kill the process unless it has ended, free what belonged to it; its exit status, negative: a signal's."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        status = self._process.wait()
        self.last_words = _last_line(self._complaints)
        self._complaints.close()
        return status

    def flush(self) -> None:
        """Hand over what of `outbox` the pipe takes, without waiting."""
        # A dead worker's pipe is broken: receive() finds its end and that is where it is dealt with.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            while self.outbox:
                del self.outbox[: os.write(self.input, self.outbox)]

    def _next_message(self) -> tuple[Any, bytearray] | None:
        start = worker.LENGTHS.size
        if len(self._inbox) < start:
            return None
        header, payload = worker.LENGTHS.unpack_from(self._inbox)
        if header > _MAX_HEADER or payload > self.crop * self.crop * 3:
            self.confused = True
            return None
        end = start + header + payload
        if len(self._inbox) < end:
            return None
        text, pixels = bytes(self._inbox[start : start + header]), self._inbox[start + header : end]
        del self._inbox[:end]
        return text, pixels

    def _understood(self, text: bytes, pixels: bytearray) -> Answer | None:
        header = json.loads(text)
        if not self.ready:
            self.ready = header["ready"] is True
            return None
        index = self.queue[0][0]
        if header["index"] != index:
            raise ValueError("an answer to a question that was not asked")
        result = answers.bad_photo(header) if "code" in header else self._due(header, pixels)
        self.queue.popleft()
        return index, result

    def _due(self, header: dict[str, Any], payload: bytearray) -> Pixels | Surveyed:
        if self.facts:
            return answers.surveyed(header, payload, self.crop)
        return answers.pixels(payload, self.crop)


def _spawn(command: Sequence[str], complaints: BinaryIO) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in PRIVATE}
    environment["OPENBLAS_NUM_THREADS"] = "1"  # its threads would eat the address space, unused
    try:
        return subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C and hang-up are for the parent
        )
    except OSError:
        complaints.close()
        raise


def _unnamed_file() -> BinaryIO:
    """A file without a name, in memory where the system has such: a full or read-only disk is no reason to stop."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("complaints", os.MFD_CLOEXEC), "w+b")
    return tempfile.TemporaryFile()


def _last_line(file: BinaryIO) -> str:
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _prepare_pipes(written: int, read: int) -> None:
    os.set_blocking(written, False)
    os.set_blocking(read, False)
    for end in (written, read):
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux: room for a photo, and for more than a few answers
            with contextlib.suppress(OSError):
                fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, _PIPE)
