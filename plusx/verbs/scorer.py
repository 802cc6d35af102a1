"""One process that scores blocks: photos are decoded in processes of their own, answers go into a Parquet part.

Batches are made of the photos in the order of the block, whichever is decoded first, so the numbers of a part do not
depend on who scored it, nor beside what.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from plusx.classifier import Classifier
from plusx.durable import sha256_file
from plusx.errors import scoring as sentences
from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool, Result, Source, usable_cpus
from plusx.model_file import read_header
from plusx.run_folder import model_path
from plusx.verbs.blocks import Block
from plusx.verbs.parts import Made, Rows, part_path, read_made, write_part

HELD = 256 << 20  # bytes of pixels that may wait for a photo which is slow
Pixels = npt.NDArray[np.uint8]
Heard = Callable[[int], None]


@dataclass(frozen=True)
class Work:
    """What every process has to know: plain values. `scoring` names them all, and stands in every part."""

    model: str
    model_sha256: str
    out: str
    device: str = "auto"
    precision: str = "auto"
    batch_size: int = 64

    @classmethod
    def of(cls, model: Path, out: Path, device: str, precision: str, batch_size: int) -> Work:
        """For a model file or a run folder; paths are made absolute. Raises ModelError where there is none."""
        file = model_path(model).resolve()
        read_header(file)
        return cls(str(file), sha256_file(file), str(out.resolve()), device, precision, batch_size)

    @property
    def settings(self) -> dict[str, object]:
        """What the answers depend on besides the photos."""
        return {key: value for key, value in asdict(self).items() if key not in ("model", "out")}

    @property
    def scoring(self) -> str:
        """All of that in a word."""
        return json.dumps(self.settings, sort_keys=True)

    def made(self, block: Block) -> Made | None:
        """What the part of a block says, where it is there, whole, and of this work."""
        made = read_made(part_path(Path(self.out), block.name))
        return made if made is not None and (made.block, made.scoring) == (block.name, self.scoring) else None


class Scorer:
    """A classifier and its decoding processes; a context manager, since they must be ended."""

    def __init__(self, work: Work, cores: int | None = None) -> None:
        """`cores`: how many CPUs it may use, None for all. Raises ModelError, UsageError, and RunError where the model
        file is not the one of `work`.
        """
        self.work, path = work, Path(work.model)
        if sha256_file(path) != work.model_sha256:
            raise sentences.model_changed(path)
        self.classifier = _classifier(path, work, cores)
        self.pool = DecodePool(self.classifier.header.preprocess, cores or usable_cpus())
        self.size = min(work.batch_size, self.classifier.engine.most)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.pool.close()

    def score(self, block: Block, heard: Heard | None = None) -> Made:
        """Write the part of a block, unless it is there; `heard` is told of so many photos more. Raises plusx.Error."""
        if (made := self.work.made(block)) is not None:
            return made
        with block.open() as photos:
            rows = Rows([photo.name for photo in photos], self.classifier.classes)
            self._answer(rows, [photo.source for photo in photos], heard)
        made = Made(block.name, self.work.scoring, len(photos), rows.bad, self._computed())
        write_part(part_path(Path(self.work.out), block.name), rows, made)
        return made

    def _answer(self, rows: Rows, sources: Sequence[Source], heard: Heard | None) -> None:
        for places, answered in self.classifier.answered(self._batches(rows, sources)):
            answers = self.classifier.rule.answers(answered.probabilities, answered.novelty)
            rows.answer(places, answered.probabilities, answers)
            if heard is not None:
                heard(len(places))

    def _batches(self, rows: Rows, sources: Sequence[Source]) -> Iterator[tuple[list[int], Pixels]]:
        """Batches of pixels [n, S, S, 3] with their places; photos that cannot be read fill theirs with the reason."""
        places, pixels = list[int](), list[Pixels]()
        dealt = _Ahead(sources, max(self.size, HELD // (3 * self.pool.preprocess.crop**2)))
        for place, result in _in_order(self.pool.map(dealt)):
            dealt.done = place + 1
            if isinstance(result, BadPhoto):
                rows.fail(place, result.code, result.reason)
                continue
            places.append(place)
            pixels.append(result)
            if len(places) == self.size:
                yield places, np.stack(pixels)
                places, pixels = [], []
        if places:
            yield places, np.stack(pixels)

    def _computed(self) -> str:
        """Where and in which numbers: a cluster may have processors of several kinds."""
        engine = self.classifier.engine
        return f"{getattr(engine, 'device', 'cpu')} {getattr(engine, 'dtype', 'onnx')}"


def _classifier(path: Path, work: Work, cores: int | None) -> Classifier:
    """The classifier, held to so many threads. It loads torch only for a model of torch."""
    from plusx.engines.onnx_engine import OnnxEngine
    from plusx.onnx_file import is_onnx

    if cores is not None and not is_onnx(path):
        import torch

        torch.set_num_threads(cores)
    classifier = Classifier.load(path, device=work.device, precision=work.precision)
    if cores == 1 and isinstance(classifier.engine, OnnxEngine):
        classifier.engine = classifier.engine.on_one_core()
    return classifier


class _Ahead(Iterator[Source]):
    """Sources, dealt until `most` of them are ahead of the first that is not `done`: what comes early has to wait.

    It says then that there are none, and has more later: the pool asks again after every answer.
    """

    def __init__(self, sources: Iterable[Source], most: int) -> None:
        self._rest, self._most, self._dealt, self.done = iter(sources), most, 0, 0

    def __next__(self) -> Source:
        if self._dealt - self.done >= self._most:
            raise StopIteration
        source = next(self._rest)
        self._dealt += 1
        return source


def _in_order(results: Iterator[tuple[int, Result]]) -> Iterator[tuple[int, Result]]:
    """Results as they come, in the order of their places, which start at 0."""
    waiting, following = dict[int, Result](), 0
    for place, result in results:
        waiting[place] = result
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1
