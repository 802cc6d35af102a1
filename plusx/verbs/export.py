"""`export`: a model file as one ONNX file, which is tried on real photos before it counts."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from plusx.classifier import Classifier
from plusx.data.source import Photo, walk
from plusx.durable import write_file
from plusx.engines.onnx_runtime import onnx_runtime
from plusx.errors import DataError, disk
from plusx.errors import export as sentences
from plusx.export.agreement import MOST, Agreement, agreement
from plusx.images.pool import Source
from plusx.model_file import ModelFile, load
from plusx.onnx_file import SUFFIX, is_onnx, signed
from plusx.run_folder import model_path, open_run
from plusx.verbs.int8 import CALIBRATED, Cost, Labelled, in_eight_bits
from plusx.verbs.labelled import split_photos

Thing = TypeVar("Thing")
PHOTOS = 256  # on which model and export have to agree
INT8 = "-int8"  # in the usual name of a file of eight bits


@dataclass(frozen=True)
class Exported:
    """The file that was written, its size in bytes, and how it agreed with its model; `cost` is that of eight bits.

    Of a file of eight bits, `agreement` is that of the file it was made from.
    """

    path: Path
    bytes: int
    agreement: Agreement
    cost: Cost | None = None

    def to_json(self) -> dict[str, Any]:
        """The document of `export --json`."""
        cost = {} if self.cost is None else {"int8": self.cost.to_json()}
        return {"path": str(self.path), "bytes": self.bytes, "agreement": asdict(self.agreement)} | cost

    def lines(self) -> list[str]:
        """For people."""
        size = f"{self.path}: {self.bytes / 1e6:.1f} MB"
        return [size, self.agreement.sentence()] if self.cost is None else [size, *self.cost.lines()]


def export(
    model: str | Path,
    *,
    out: str | Path | None = None,
    photos: Sequence[str] = (),
    count: int = PHOTOS,
    int8: bool = False,
) -> Exported:
    """Write `model`, a run folder or a model file, as ONNX to `out`, beside the model where not named.

    It is tried first on `count` of `photos`, of a run on its own validation photos: from bytes to answer through both.
    `int8` makes it smaller and faster and its answers a little others: of a run alone, calibrated on `photos` or on its
    training photos, and measured on its validation photos. Raises ModelError where the two do not agree or eight bits
    lose too much, UsageError and DataError where there are no photos to try, and nothing is written.
    """
    if count < 1:
        raise sentences.too_few_photos(count)
    path = Path(model)
    found = model_path(path)
    if is_onnx(found):
        raise sentences.exported_already(found)
    if int8 and not path.is_dir():
        raise sentences.int8_of_a_file(path)
    target = Path(out) if out else found.with_name(f"{found.stem}{INT8 if int8 else ''}{SUFFIX}")
    if not is_onnx(target):
        raise sentences.other_suffix(target)
    if target.exists():
        raise sentences.out_taken(target)
    if not target.parent.is_dir():
        raise disk.cannot_write(target, FileNotFoundError(errno.ENOENT, "No such file or directory"))
    sources = spread(_sources(path, () if int8 else photos), count)
    content, agreed = _tried(load(found), found, sources)
    content, cost = _smaller(content, path, photos) if int8 else (content, None)
    content = signed(content)
    write_file(target, content)
    return Exported(target, len(content), agreed, cost)


def _smaller(content: bytes, path: Path, named: Sequence[str]) -> tuple[bytes, Cost]:
    """The same in eight bits, and what it costs. Raises DataError where the run's photos have moved."""
    run = open_run(path)
    every = split_photos(run.read("run")["data"], run)
    rows = every.rows("val")
    shown = walk(named) if named else every.photos(every.rows("train"))
    return in_eight_bits(content, spread(shown, CALIBRATED), Labelled(path, every.photos(rows), every.labels(rows)))


def spread(sources: Sequence[Thing], count: int) -> list[Thing]:
    """At most `count` of them, from beginning to end: photos are listed class by class."""
    step = max(1.0, len(sources) / count)
    return [sources[int(step * i)] for i in range(min(count, len(sources)))]


def _tried(model: ModelFile, origin: Path, sources: Sequence[Source]) -> tuple[bytes, Agreement]:
    """The bytes of the exported file, once they have answered as the model does."""
    try:
        import onnx  # noqa: F401 - what the exporter needs besides torch
        import onnxscript  # noqa: F401
    except ImportError:
        raise sentences.no_exporter() from None
    onnx_runtime()
    from plusx.export.onnx import to_onnx

    content = to_onnx(model)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / f"model{SUFFIX}"
        trial.write_bytes(content)
        agreed = agreement(Classifier.of(model, "cpu", origin, "fp32"), Classifier.exported(trial), sources)
    if not agreed.photos:
        raise sentences.none_readable(len(sources))
    if not agreed.holds:
        raise sentences.disagrees(agreed.photos, agreed.flips, agreed.probability, MOST)
    return content, agreed


def _sources(path: Path, named: Sequence[str]) -> list[Source]:
    """Photos to try: those that are named, or those that a run validated on."""
    found = walk(named) if named else _validated(path)
    if not found:
        raise sentences.no_photos(path)
    return [photo.source for photo in found]


def _validated(path: Path) -> list[Photo]:
    if not path.is_dir():
        return []
    run = open_run(path)
    try:
        every = split_photos(run.read("run")["data"], run)
    except DataError:
        return []  # they have moved; others may be named
    rows = every.rows("val")
    return list(every.photos(rows if len(rows) else every.every))
