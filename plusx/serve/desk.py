"""From an upload to its answer: admission, decoding, batching, a deadline for all of it, and a test before all."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np

from plusx.classifier import Prediction
from plusx.errors import Error
from plusx.errors import serve as sentences
from plusx.errors.images import Undecodable
from plusx.images import process, worker
from plusx.images.pool import usable_cpus
from plusx.images.preprocess import Pixels
from plusx.serve.batching import Batcher, worthwhile
from plusx.serve.decoders import Decoders
from plusx.serve.gauges import Gauges
from plusx.serve.limits import Limits
from plusx.serve.selftest import proof_photo, prove
from plusx.serve.served import Explained, Served

T = TypeVar("T")

PIECES = 2  # that each core takes of a batch that is worth its while for all of them
EXPLAINING = 8  # places that an explanation takes
BARE, WEIGHT = 3 << 29, 32  # bytes of address space of a decoding process by itself, and for each pixel of a photo
STARTING, READY, DRAINING, FAILED = "starting", "ready", "draining", "failed"


class Desk:
    """Where photos are handed in. `inside` counts those that were admitted and are not answered.

    `state` is one of STARTING, READY, DRAINING, FAILED; answers are given in READY, and in DRAINING to
    what still comes.
    """

    def __init__(self, served: Served, limits: Limits, command: Sequence[str] | None = None) -> None:
        self.served, self.limits, self.gauges = served, limits, Gauges()
        self.state, self.inside = STARTING, 0
        self.failure: Error | None = None
        self._workers, self._command = limits.workers or usable_cpus(), command
        self._seconds = 0.05  # that a photo costs, about
        self._decoders: Decoders | None = None
        self._batcher: Batcher[Pixels, Prediction] | None = None

    async def open(self) -> None:
        """Start everything, and answer a drawn photo as a test. Raises RunError, ModelError, which `failure` keeps."""
        try:
            await self._open()
        except Error as error:
            self.state, self.failure = FAILED, error
            raise
        if self.state == STARTING:  # it may have been told to stop meanwhile
            self.state = READY
            self.gauges.ready.set(1)
        gc.collect()
        gc.freeze()  # what is there now stays: no collection has to look through it again

    async def _open(self) -> None:
        memory = min(worker.MEMORY, BARE + WEIGHT * self.limits.pixels)
        bounds = process.Limits(self.limits.decode_seconds, memory, self.limits.pixels)
        preprocess, replaced = self.served.classifier.header.preprocess, self.gauges.decoders_replaced.inc
        self._decoders = decoders = Decoders(preprocess, bounds, self._workers, replaced, self._command)
        await decoders.start()
        pixels = await decoders.pixels(proof_photo())
        await asyncio.to_thread(prove, self.served, pixels)
        most, self._seconds = await asyncio.to_thread(worthwhile, self._compute, pixels)
        lanes = self.served.lanes
        most = most if lanes == 1 else -(-most // (PIECES * lanes))
        self._batcher = Batcher(self._compute, most, self._workers, self._note, lanes)
        self.gauges.largest.set(most)

    async def close(self) -> None:
        """End processes and thread."""
        self.gauges.ready.set(0)
        if self._decoders is not None:
            self._decoders.close()
        if self._batcher is not None:
            await self._batcher.close()

    def drain(self) -> None:
        """From now on nothing new should come; what does is still answered."""
        if self.state != FAILED:
            self.state = DRAINING
            self.gauges.ready.set(0)

    @property
    def ready(self) -> bool:
        """Whether photos should be sent here."""
        return self.state == READY and self._decoders is not None and self._decoders.alive

    def unready(self) -> sentences.Refused:
        """Why no photos should be sent here now."""
        if self.state == DRAINING:
            return sentences.draining()
        if self.state == READY:
            return sentences.no_decoders()
        return sentences.failed(self.failure.message) if self.failure is not None else sentences.not_ready()

    def refusal(self, photos: int = 1) -> sentences.Refused | None:
        """Why `photos` that came now would not be taken; None where they would."""
        if self._batcher is None or self.state in (STARTING, FAILED):
            return self.unready()
        if photos > self.limits.queue:
            return sentences.too_many_at_once(photos, self.limits.queue)
        seconds = self.inside * self._seconds
        if self.inside + photos > self.limits.queue or seconds > self.limits.deadline:  # it would come too late
            return sentences.queue_full(self.inside, max(1, math.ceil(seconds)))
        return None

    async def predict(self, photo: bytes) -> Prediction:
        """The answer to an upload. Raises Undecodable, and Refused where it comes too late or finds no room."""
        return (await self.predict_all([photo]))[0]

    async def predict_all(self, photos: Sequence[bytes | Pixels]) -> list[Prediction]:
        """The answers to uploads, or to pixels [S, S, 3] decoded already, in their order: all of them or none."""
        return await self._admitted(lambda: self._answers(photos), len(photos))

    async def explain(self, photo: bytes, name: str | None) -> Explained:
        """The answer, and where the evidence for the class `name` lies, for the answer's own where None.

        It costs as much as several answers, so it takes as many places.
        """
        self.served.check_explains(name)
        return await self._admitted(lambda: self._explained(photo, name), min(EXPLAINING, self.limits.queue))

    async def _admitted(self, work: Callable[[], Awaitable[T]], places: int) -> T:
        refusal = self.refusal(places)
        if refusal is not None:
            raise refusal
        self.inside += places
        self.gauges.waiting.set(self.inside)
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self.limits.deadline):
                found = await work()
        except TimeoutError:
            raise sentences.deadline(self.limits.deadline) from None
        except Undecodable as bad:
            self.gauges.bad_photos.labels(bad.code).inc()
            raise
        finally:
            self.inside -= places
            self.gauges.waiting.set(self.inside)
        self.gauges.answers.inc()
        self.gauges.seconds.observe(asyncio.get_running_loop().time() - started)
        return found

    async def _answers(self, photos: Sequence[bytes | Pixels]) -> list[Prediction]:
        if len(photos) == 1:
            return [await self._answer(photos[0])]
        try:
            async with asyncio.TaskGroup() as tasks:
                found = [tasks.create_task(self._answer(photo)) for photo in photos]
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        return [task.result() for task in found]

    async def _answer(self, photo: bytes | Pixels) -> Prediction:
        assert self._batcher is not None, "admitted"
        return await self._batcher.answer(lambda: self._pixels(photo))

    async def _pixels(self, photo: bytes | Pixels) -> Pixels:
        assert self._decoders is not None, "admitted"
        return await self._decoders.pixels(photo) if isinstance(photo, bytes) else photo

    async def _explained(self, photo: bytes, name: str | None) -> Explained:
        assert self._batcher is not None, "admitted"
        assert self._decoders is not None, "admitted"
        async with self._batcher.room:
            facts = (await self._decoders.survey(photo)).facts
            pixels = await self._pixels(photo)  # once more: a survey decodes without the scaling of JPEGs
        return await self._batcher.alone(lambda: self.served.explained(pixels, facts, name))

    def _compute(self, photos: Sequence[Pixels], alone: bool = True) -> Sequence[Prediction]:
        classifier = self.served.classifier if alone else self.served.beside
        return classifier.answers(np.stack(photos))

    def _note(self, photos: int, seconds: float, alone: bool) -> None:
        self.gauges.batch(photos, seconds)
        cost = seconds / photos / (1 if alone else self.served.lanes)
        self._seconds += 0.1 * (cost - self._seconds)
