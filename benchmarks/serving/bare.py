"""ONNX Runtime alone: a loop in one process that decodes photos and computes their answers, and nothing else.

    python benchmarks/serving/bare.py MODEL PHOTOS

Reads questions from standard input, a JSON line each, and answers each with one:
{"do": "rate", "batch": b, "seconds": s, "beside": true} with photos a second and milliseconds of CPU a photo, decoding
in a thread beside the loop, or in the loop itself; {"do": "times", "batch": b, "seconds": s} with the seconds of every
batch, decoding in the loop.
"""

from __future__ import annotations

import itertools
import json
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.engines.onnx_engine import OnnxEngine
from plusx.images.preprocess import Preprocess
from plusx.model_file import read_header
from serving import photos

Pixels = npt.NDArray[np.uint8]
AHEAD = 4  # decoded batches that wait


class Loop:
    """An engine, and photos that come again and again."""

    def __init__(self, model: Path, source: Path) -> None:
        header = read_header(model)
        self._preprocess: Preprocess = header.preprocess
        self._engine = OnnxEngine(model, len(header.classes))
        self._photos = itertools.cycle(photos.read(source))

    def batch(self, size: int) -> Pixels:
        """The next photos as pixels [size, S, S, 3]."""
        return np.stack([self._preprocess.from_bytes(data) for data in itertools.islice(self._photos, size)])

    def times(self, batch: int, seconds: float) -> list[float]:
        """Seconds from bytes to probabilities of one batch after another, for `seconds`, at least three."""
        end, found = time.perf_counter() + seconds, []
        while time.perf_counter() < end or len(found) < 3:
            begun = time.perf_counter()
            self._engine.answers(self.batch(batch))
            found.append(time.perf_counter() - begun)
        return found

    def rate(self, batch: int, seconds: float, beside: bool) -> tuple[float, float]:
        """Photos a second, and the milliseconds of CPU that each took."""
        begun, used, count = time.perf_counter(), time.process_time(), 0
        for pixels in self._ahead(batch, begun + seconds) if beside else self._here(batch, begun + seconds):
            self._engine.answers(pixels)
            count += len(pixels)
        return count / (time.perf_counter() - begun), 1e3 * (time.process_time() - used) / count

    def _here(self, size: int, end: float) -> Iterator[Pixels]:
        """Batches, each decoded when it is asked for, until `end`."""
        while time.perf_counter() < end:
            yield self.batch(size)

    def _ahead(self, size: int, end: float) -> Iterator[Pixels]:
        """Batches that a thread decodes while the last one is computed, until `end`."""
        waiting: queue.Queue[Pixels | None] = queue.Queue(AHEAD)

        def decode() -> None:
            while time.perf_counter() < end:
                waiting.put(self.batch(size))
            waiting.put(None)

        threading.Thread(target=decode, daemon=True).start()
        while (pixels := waiting.get()) is not None:
            yield pixels


def main() -> None:
    """Answer questions until there are no more."""
    loop = Loop(Path(sys.argv[1]), Path(sys.argv[2]))
    loop.times(1, 0.5)
    for line in sys.stdin:
        question: dict[str, Any] = json.loads(line)
        found: Any = getattr(loop, question.pop("do"))(**question)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
