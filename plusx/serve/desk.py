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
from plusx.images import process
from plusx.images.pool import usable_cpus
from plusx.images.preprocess import Pixels
from plusx.serve.batching import Batcher, worthwhile
from plusx.serve.decoders import Decoders
from plusx.serve.gauges import Gauges
from plusx.serve.limits import Limits
from plusx.serve.selftest import proof_photo, prove
from plusx.serve.served import Explained, Served

T = TypeVar("T")

STARTING, READY, DRAINING, FAILED = "starting", "ready", "draining", "failed"


class Desk:
    """Where photos are handed in. `inside` counts those that were admitted and are not answered.

    `state` is one of STARTING, READY, DRAINING, FAILED; answers are given in READY, and in DRAINING to
    what still comes.
    """

    def __init__(
        self, served: Served, limits: Limits, *, workers: int | None = None, command: Sequence[str] | None = None
    ) -> None:
        self.served, self.limits, self.gauges = served, limits, Gauges()
        self.state, self.inside = STARTING, 0
        self.failure: Error | None = None
        self._workers, self._command = workers or usable_cpus(), command
        self._seconds = 0.05  # that a photo costs, about
        self._decoders: Decoders
        self._batcher: Batcher[Pixels, Prediction]

    async def open(self) -> None:
        """Start everything, and answer a drawn photo as a test. Raises RunError, ModelError, which `failure` keeps."""
        try:
            await self._open()
        except Error as error:
            self.state, self.failure = FAILED, error
            raise
        self.state = READY
        self.gauges.ready.set(1)
        gc.collect()
        gc.freeze()  # what is there now stays: no collection has to look through it again

    async def _open(self) -> None:
        bounds = process.Limits(self.limits.decode_seconds, pixels=self.limits.pixels)
        replaced = self.gauges.decoders_replaced.inc
        preprocess = self.served.classifier.header.preprocess
        self._decoders = Decoders(preprocess, bounds, self._workers, replaced, self._command)
        self._batcher = Batcher(self._compute, most=1, spare=self._workers)
        await self._decoders.start()
        pixels = await self._decoders.pixels(proof_photo())
        await asyncio.to_thread(prove, self.served, pixels)
        most, self._seconds = await asyncio.to_thread(worthwhile, self._compute, pixels)
        self._batcher.allow(most)
        self.gauges.largest.set(most)
        self._batcher.on_batch = self._note

    async def close(self) -> None:
        """End processes and thread."""
        self.gauges.ready.set(0)
        if hasattr(self, "_batcher"):
            await self._batcher.close()
        if hasattr(self, "_decoders"):
            self._decoders.close()

    def drain(self) -> None:
        """From now on nothing new should come; what does is still answered."""
        if self.state == READY:
            self.state = DRAINING
            self.gauges.ready.set(0)

    def unready(self) -> sentences.Refused:
        """Why no photos should be sent here now."""
        if self.state == DRAINING:
            return sentences.draining()
        return sentences.failed(self.failure.message) if self.failure is not None else sentences.not_ready()

    @property
    def refusal(self) -> sentences.Refused | None:
        """Why a photo that came now would not be taken; None where it would."""
        if self.state in (STARTING, FAILED):
            return self.unready()
        seconds = self.inside * self._seconds
        if self.inside >= self.limits.queue or seconds > self.limits.deadline:  # it would come too late
            return sentences.queue_full(self.inside, max(1, math.ceil(seconds)))
        return None

    async def predict(self, photo: bytes) -> Prediction:
        """The answer to an upload. Raises Undecodable, and Refused where it comes too late or finds no room."""
        return await self._admitted(lambda: self._answer(lambda: self._decoders.pixels(photo)))

    async def explain(self, photo: bytes, name: str | None) -> Explained:
        """The answer, and where the evidence for the class `name` lies, for the answer's own where None."""
        return await self._admitted(lambda: self._explained(photo, name))

    async def pixels(self, pixels: Pixels) -> Prediction:
        """The answer to a photo that is decoded already, uint8 [S, S, 3]."""
        return await self._admitted(lambda: self._answer(lambda: _there(pixels)))

    async def _admitted(self, work: Callable[[], Awaitable[T]]) -> T:
        refusal = self.refusal
        if refusal is not None:
            raise refusal
        self.inside += 1
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
            self.inside -= 1
            self.gauges.waiting.set(self.inside)
        self.gauges.answers.inc()
        self.gauges.seconds.observe(asyncio.get_running_loop().time() - started)
        return found

    async def _answer(self, prepare: Callable[[], Awaitable[Pixels]]) -> Prediction:
        return await self._batcher.answer(prepare)

    async def _explained(self, photo: bytes, name: str | None) -> Explained:
        async with self._batcher.room:
            facts, pixels = (await self._decoders.survey(photo)).facts, await self._decoders.pixels(photo)
        return await self._batcher.alone(lambda: self.served.explained(pixels, facts, name))

    def _compute(self, photos: Sequence[Pixels]) -> Sequence[Prediction]:
        return self.served.classifier.answers(np.stack(photos))

    def _note(self, photos: int, seconds: float) -> None:
        self.gauges.batch(photos, seconds)
        self._seconds += 0.1 * (seconds / photos - self._seconds)


async def _there(pixels: Pixels) -> Pixels:
    return pixels
