"""Uploads become pixels in processes of their own: what a photo does to its process costs no other photo anything."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from plusx.errors import Error
from plusx.errors import images as sentences
from plusx.errors import serve as serving
from plusx.images.answers import Surveyed
from plusx.images.decode import BadPhoto
from plusx.images.preprocess import Pixels, Preprocess
from plusx.images.process import DecodingProcess, Limits, worker_command

START_SECONDS = 60.0  # in which a process has to say its first word
SLOWEST_RETRY = 5.0  # seconds between tries to start processes that do not


class _Upload(NamedTuple):
    number: int  # so that no process can answer a question before it is asked
    photo: bytes
    facts: bool
    result: asyncio.Future[Any]


class Decoders:
    """`workers` decoding processes, each with one photo in hand; a photo that finds none idle waits its turn.

    `on_replaced` hears of every process that had to be replaced. Made and used in a running event loop.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        limits: Limits,
        workers: int,
        on_replaced: Callable[[], None],
        command: Sequence[str] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = partial(DecodingProcess, tuple(command or worker_command()), preprocess, limits)
        self._limits, self._on_replaced = limits, on_replaced
        self._numbers = itertools.count()
        self._waiting: deque[_Upload] = deque()
        self._idle: list[_Seat] = []
        self._seats = [_Seat(self) for _ in range(workers)]

    @property
    def alive(self) -> bool:
        """Whether a process is there, or about to be, that decodes."""
        return any(seat.works for seat in self._seats)

    async def start(self) -> None:
        """Start every process, and wait for its first word. Raises RunError where they do not start."""
        await asyncio.gather(*(seat.start() for seat in self._seats))

    def close(self) -> None:
        """End all processes."""
        for seat in self._seats:
            seat.close()

    async def pixels(self, photo: bytes) -> Pixels:
        """uint8 pixels [crop, crop, 3] of an upload. Raises Undecodable."""
        found: Pixels = await self._ask(photo, facts=False)
        return found

    async def survey(self, photo: bytes) -> Surveyed:
        """What the file of an upload states, beside pixels that are decoded whole. Raises Undecodable."""
        found: Surveyed = await self._ask(photo, facts=True)
        return found

    async def _ask(self, photo: bytes, *, facts: bool) -> Any:
        upload = _Upload(next(self._numbers), photo, facts, self._loop.create_future())
        self._waiting.append(upload)
        self.deal()
        return await upload.result

    def deal(self) -> None:
        """Give waiting photos to idle processes; those nobody waits for any more are dropped."""
        while self._waiting and self._idle:
            upload = self._waiting.popleft()
            if not upload.result.done():
                self._idle.pop().take(upload)

    def fail(self, error: Error) -> None:
        """Tell everyone who waits."""
        while self._waiting:
            upload = self._waiting.popleft()
            if not upload.result.done():
                upload.result.set_exception(error)


class _Seat:
    """A place for one process, and the photo that it has in hand."""

    def __init__(self, decoders: Decoders) -> None:
        self._of, self._loop = decoders, decoders._loop
        self._process: DecodingProcess | None = None
        self._upload: _Upload | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._started: asyncio.Future[None] | None = None
        self._failures = 0

    @property
    def works(self) -> bool:
        return self._process is not None and self._failures == 0

    async def start(self) -> None:
        self._started = self._loop.create_future()
        self._open()
        await self._started

    def take(self, upload: _Upload) -> None:
        assert self._process is not None, "idle seats have a process"
        self._upload = upload
        self._process.send_bytes(upload.number, upload.photo, upload.facts)
        self._timer = self._loop.call_later(self._of._limits.seconds, self._late)
        self._write()

    def close(self) -> None:
        self._cancel_timer()
        if self._process is not None:
            self._end()
        self._give(sentences.worker_died())

    def _open(self) -> None:
        try:
            self._process = self._of._process()
        except OSError as error:
            self._not_started(error.strerror or str(error))
            return
        self._loop.add_reader(self._process.output, self._read)
        self._timer = self._loop.call_later(START_SECONDS, self._late)
        self._write()

    def _read(self) -> None:
        process = self._process
        assert process is not None, "readers belong to a process"
        was_ready = process.ready
        process.receive()
        for _, result in process.answers():
            self._cancel_timer()
            self._give(result)
        if process.ended or process.confused:
            self._replace(sentences.worker_died())
        elif not was_ready:
            self._first_word()
        elif self._upload is None and self not in self._of._idle:
            self._rest()

    def _write(self) -> None:
        assert self._process is not None, "writers belong to a process"
        self._process.flush()
        if self._process.outbox:
            self._loop.add_writer(self._process.input, self._write)
        else:
            self._loop.remove_writer(self._process.input)

    def _first_word(self) -> None:
        assert self._process is not None, "it has spoken"
        if not self._process.ready:
            return
        self._failures = 0
        self._cancel_timer()
        if self._started is not None and not self._started.done():
            self._started.set_result(None)
        self._rest()

    def _rest(self) -> None:
        self._of._idle.append(self)
        self._of.deal()

    def _late(self) -> None:
        self._replace(sentences.timed_out(self._of._limits.seconds))

    def _replace(self, blame: Error) -> None:
        self._cancel_timer()
        if self in self._of._idle:
            self._of._idle.remove(self)
        process = self._process
        assert process is not None, "only a process is replaced"
        stopped_itself = self._end() == -signal.SIGALRM
        self._give(sentences.timed_out(self._of._limits.seconds) if stopped_itself else blame)
        self._of._on_replaced()
        if process.ready:
            self._open()
        else:
            self._not_started(process.last_words)

    def _not_started(self, why: str) -> None:
        error = sentences.workers_do_not_start(why)
        self._failures += 1
        if self._started is not None and not self._started.done():
            self._started.set_exception(error)
            return
        if not self._of.alive:
            self._of.fail(serving.no_decoders())
        self._timer = self._loop.call_later(min(SLOWEST_RETRY, 0.1 * 2 ** min(self._failures, 9)), self._open)

    def _end(self) -> int:
        assert self._process is not None, "only a process is ended"
        process, self._process = self._process, None
        self._loop.remove_reader(process.output)
        self._loop.remove_writer(process.input)
        return process.end()

    def _give(self, result: Pixels | Surveyed | BadPhoto | Error) -> None:
        upload, self._upload = self._upload, None
        if upload is None or upload.result.done():
            return
        if isinstance(result, BadPhoto):
            upload.result.set_exception(sentences.Undecodable(result.code, result.reason))
        elif isinstance(result, Error):
            upload.result.set_exception(result)
        else:
            upload.result.set_result(result)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
