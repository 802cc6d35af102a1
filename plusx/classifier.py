"""A trained model as people use it: photos in, answers out. Importing this loads no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from plusx.data.reading import through
from plusx.errors.export import computed_by_onnx
from plusx.errors.model_file import not_as_written
from plusx.errors.usage import no_batch, unknown_precision
from plusx.images.decode import BadPhoto, upright_rgb
from plusx.images.pool import DecodePool, Source
from plusx.model_file import Header, ModelFile, load, read_header
from plusx.onnx_file import is_onnx
from plusx.run_folder import model_path
from plusx.trust.calibration import Calibration, temper
from plusx.trust.decide import Rule
from plusx.trust.novelty import Discriminant

Key = TypeVar("Key")
Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.floating[Any]]
Places = list[int]
Photo = Image.Image | Pixels | bytes | str | os.PathLike[str]

PRECISIONS = ("auto", "fp32", "bf16")
FEW = 16  # so few photos are decoded in this process: starting workers would take longer


class Said(Protocol):
    """What an engine says of n photos: probabilities [n, C], and descriptors [n, D] if it has any."""

    @property
    def probabilities(self) -> Probabilities:
        """One row per photo; rows sum to 1."""

    @property
    def descriptors(self) -> npt.NDArray[np.float32] | None:
        """What was seen of each photo."""

    @property
    def novelty(self) -> npt.NDArray[np.float32] | None:
        """How strange each photo is, of an engine that gives final answers: calibrated, nothing to be done."""


class Engine(Protocol):
    """uint8 pixels [n, S, S, 3] to what is said of them.

    `streams` is how many batches it computes side by side, `most` how many photos there should be in one at most.
    """

    streams: int
    most: int

    def answers(self, pixels: Pixels) -> Said:
        """What it says of the photos of one batch."""

    def many(self, batches: Iterable[tuple[Key, Pixels]]) -> Iterator[tuple[Key, Said]]:
        """The same for many batches, each with the key it came with, in order."""


@dataclass(frozen=True)
class Answered:
    """Calibrated probabilities [n, C] of n photos, and their novelty [n]: NaN where the model cannot tell."""

    probabilities: Probabilities
    novelty: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """An answer: the likeliest class, its probability, and all probabilities by class name, calibrated.

    `answer` is what should be acted on: "none of these" where `novelty`, which is higher the stranger the photo, is
    above the model's threshold; "unsure" where the probability is below the one that it holds for this class; else the
    label. `novelty` is None where the model cannot tell.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    answer: str
    novelty: float | None = None


class Classifier:
    """Preprocess, engine, classes, calibration, thresholds and the score of novelty of one model file."""

    def __init__(self, header: Header, engine: Engine, discriminant: Discriminant | None = None) -> None:
        self.header, self.engine, self.discriminant = header, engine, discriminant
        self.temperature = Calibration.from_json(header.calibration).temperature if header.calibration else 1.0
        self.rule = Rule.of(header)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto", precision: str = "auto") -> Classifier:
        """The classifier in a model file or run folder. Raises ModelError where there is none.

        `precision` is "fp32", "bf16" or "auto": bf16 where the processor multiplies in it, which moves probabilities a
        little (docs/decisions/0008-how-answers-are-computed.md).
        """
        found = model_path(Path(path))
        return cls.exported(found, device) if is_onnx(found) else cls.of(load(found), device, found, precision)

    @classmethod
    def exported(cls, path: Path, device: str = "auto") -> Classifier:
        """The classifier in an exported file, whose graph gives final answers; loads no torch.

        Raises ModelError, and UsageError for another device than the CPU, and without ONNX Runtime.
        """
        from plusx.engines.onnx_engine import OnnxEngine

        if device not in ("auto", "cpu"):
            raise computed_by_onnx(path, device)
        header = read_header(path)
        return cls._whole(path, header, OnnxEngine(path, len(header.classes), header.preprocess.crop))

    @classmethod
    def of(cls, model: ModelFile, device: str, origin: Path, precision: str = "auto") -> Classifier:
        """The classifier of a model file that is read already; `origin` names it in errors.

        Raises UsageError for a device that is not there and for an unknown precision.
        """
        from plusx.engines.torch_engine import TorchEngine
        from plusx.training.environment import choose_device, choose_precision, keep_freed_memory

        if precision not in PRECISIONS:
            raise unknown_precision(precision, PRECISIONS)
        there = choose_device(device)
        keep_freed_memory()
        engine = TorchEngine(model, there, origin, choose_precision(there, precision))
        try:
            return cls._whole(origin, model.header, engine, Discriminant.found(model.tensors, engine.descriptor_size))
        except ValueError as error:
            raise not_as_written(origin, error) from None

    @classmethod
    def _whole(
        cls, origin: Path, header: Header, engine: Engine, discriminant: Discriminant | None = None
    ) -> Classifier:
        """The classifier, or ModelError where calibration or thresholds of the header are damaged."""
        try:
            return cls(header, engine, discriminant)
        except (TypeError, KeyError, ValueError) as error:
            raise not_as_written(origin, error) from None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.header.classes

    def predict(self, photo: Photo) -> Prediction:
        """The answer for one photo: a Pillow image, uint8 pixels [H, W, 3], the bytes of a file, or its path.

        Raises DataError where the photo cannot be read.
        """
        from plusx.errors.use import unreadable_photo
        from plusx.images.decode import Undecodable

        try:
            pixels = self._pixels(photo)
        except (Undecodable, OSError, TypeError) as error:  # TypeError: an array that holds no pixels
            name = str(photo) if isinstance(photo, str | os.PathLike) else "the photo"
            raise unreadable_photo(name, error) from None
        return self.answers(pixels[None])[0]

    def predict_many(
        self, sources: Sequence[Source], *, workers: int | None = None, batch_size: int = 64
    ) -> Iterator[tuple[int, Prediction | BadPhoto]]:
        """Answers for photos by position, in the order in which they are decoded."""
        for places, answered in self.answers_many(sources, workers=workers, batch_size=batch_size):
            if isinstance(answered, BadPhoto):
                yield places[0], answered
            else:
                yield from zip(places, self._predictions(answered), strict=True)

    def answers_many(
        self, sources: Sequence[Source], *, workers: int | None = None, batch_size: int = 64
    ) -> Iterator[tuple[Places, Answered | BadPhoto]]:
        """Batches of answers with their photos' positions; a photo that cannot be read comes alone.

        A batch holds at most `batch_size` photos, fewer where that is faster or a stream of the engine would get none.
        Raises UsageError for a batch of none.
        """
        if batch_size < 1:
            raise no_batch(batch_size)
        bad: list[tuple[int, BadPhoto]] = []
        share = -(-len(sources) // self.engine.streams)
        batches = self._decoded(sources, workers, min(batch_size, self.engine.most, share), bad)
        for places, answered in self.answered(batches):
            yield places, answered
            while bad:
                yield [bad[0][0]], bad.pop(0)[1]
        yield from (([place], why) for place, why in bad)

    def answered(self, batches: Iterable[tuple[Key, Pixels]]) -> Iterator[tuple[Key, Answered]]:
        """Answers for batches of preprocessed pixels [n, S, S, 3], each with the key it came with, in order."""
        return ((key, self._answered(said)) for key, said in self.engine.many(batches))

    def _decoded(
        self, sources: Sequence[Source], workers: int | None, batch_size: int, bad: list[tuple[int, BadPhoto]]
    ) -> Iterator[tuple[Places, Pixels]]:
        """Batches of pixels [n, S, S, 3] with their positions; photos that cannot be read are put into `bad`."""
        if workers is None and len(sources) <= FEW:
            workers = 0
        places: Places = []
        rows: list[Pixels] = []
        with DecodePool(self.header.preprocess, workers) as pool:
            for place, result in through(pool.map, sources):
                if isinstance(result, BadPhoto):
                    bad.append((place, result))
                    continue
                places.append(place)
                rows.append(result)
                if len(rows) == batch_size:
                    yield places, np.stack(rows)
                    places, rows = [], []
            if rows:
                yield places, np.stack(rows)

    def answers(self, pixels: Pixels) -> list[Prediction]:
        """Answers for preprocessed pixels [n, S, S, 3]."""
        return self._predictions(self._answered(self.engine.answers(pixels)))

    def _answered(self, said: Said) -> Answered:
        """What the engine says, calibrated, with how strange the photos are."""
        if said.novelty is not None:
            return Answered(said.probabilities, said.novelty)
        rows, seen = said.probabilities, said.descriptors
        novelty = np.full(len(rows), np.nan, dtype=np.float32)
        if self.discriminant is not None and seen is not None:
            novelty = self.discriminant.score(seen)
        return Answered(temper(rows, self.temperature), novelty)

    def _predictions(self, answered: Answered) -> list[Prediction]:
        answers = self.rule.answers(answered.probabilities, answered.novelty)
        return [
            self._prediction(row, answer, None if np.isnan(score) else float(score))
            for row, answer, score in zip(answered.probabilities, answers, answered.novelty, strict=True)
        ]

    def _prediction(self, row: Probabilities, answer: str, novelty: float | None) -> Prediction:
        label = self.classes[int(row.argmax())]
        named = {name: float(p) for name, p in zip(self.classes, row, strict=True)}
        return Prediction(label, named[label], named, answer, novelty)

    def _pixels(self, photo: Photo) -> Pixels:
        preprocess = self.header.preprocess
        if isinstance(photo, bytes):
            return preprocess.from_bytes(photo)
        if isinstance(photo, Image.Image):
            return preprocess(upright_rgb(photo, preprocess.background))
        if isinstance(photo, np.ndarray):
            return preprocess(Image.fromarray(photo))
        return preprocess.from_bytes(Path(photo).read_bytes())


def load_classifier(path: str | os.PathLike[str], *, device: str = "auto", precision: str = "auto") -> Classifier:
    """The classifier in a model file or run folder: `plusx.load`."""
    return Classifier.load(path, device=device, precision=precision)
