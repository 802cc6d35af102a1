"""`predict`: one row per photo, whatever the photo is."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from plusx.classifier import Classifier, Prediction
from plusx.data.source import Photo, walk
from plusx.data.table import cell
from plusx.errors import use as sentences
from plusx.images.decode import BadPhoto
from plusx.model_file import read_header
from plusx.run_folder import model_path

COLUMNS = ("path", "label", "probability", "probabilities", "answer", "error")
SHOWN = 20  # classes of a model, in words
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Row:
    """One photo's answer, or its error as {code, message}."""

    path: str
    label: str | None
    probability: float | None
    probabilities: dict[str, float] | None
    answer: str | None
    error: dict[str, str] | None


@dataclass
class Tally:
    """Counts rows as they pass, for the exit code."""

    good: int = 0
    bad: int = 0

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows."""
        for row in rows:
            self.good += row.error is None
            self.bad += row.error is not None
            yield row

    def exit_code(self, strict: bool) -> int:
        """3 where no photo could be read, or where `strict` and one could not; else 0."""
        return 3 if self.good == 0 or (strict and self.bad) else 0


def predict(
    model: str | Path,
    paths: Sequence[str | Path],
    *,
    device: str = "auto",
    batch_size: int = 64,
    precision: str = "auto",
    on_progress: Progress | None = None,
) -> Iterator[Row]:
    """Rows for photos, folders, globs and tars, in their order. A photo that cannot be read is a row with an error.

    `on_progress` hears (photos done, all photos).
    """
    if not paths:
        raise sentences.no_paths()
    classifier = Classifier.load(model, device=device, precision=precision)
    photos = walk(paths)
    if not photos:
        raise sentences.nothing_found(" ".join(map(str, paths)))
    results = classifier.predict_many([photo.source for photo in photos], batch_size=batch_size)
    return _rows(photos, results, on_progress)


def described(model: str | Path) -> str:
    """What a model file or run folder is, in a line."""
    header = read_header(model_path(Path(model)))
    network, size = header.network.get("name"), header.size or header.preprocess.crop
    views, classes = ", ".join(header.views), ", ".join(header.classes[:SHOWN])
    classes += f" and {len(header.classes) - SHOWN:,} more" if len(header.classes) > SHOWN else ""
    return f"{model}: {network}, step {header.step:,}, {size} px; views {views}; classes {classes}"


def _rows(
    photos: Sequence[Photo], results: Iterable[tuple[int, Prediction | BadPhoto]], on_progress: Progress | None
) -> Iterator[Row]:
    """Answers come as they are decoded and leave in the order of the photos."""
    waiting: dict[int, Row] = {}
    following = 0
    for done, (place, result) in enumerate(results, start=1):
        if on_progress is not None:
            on_progress(done, len(photos))
        waiting[place] = _row(photos[place].name, result)
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _row(name: str, result: Prediction | BadPhoto) -> Row:
    if isinstance(result, BadPhoto):
        return Row(name, None, None, None, None, {"code": result.code, "message": result.reason})
    return Row(name, result.label, result.probability, result.probabilities, result.answer, None)


def to_json(rows: Iterable[Row], file: TextIO) -> None:
    """One JSON document: {"predictions": [...]}."""
    document = {"predictions": [asdict(row) for row in rows]}
    file.write(json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False) + "\n")


def to_csv(rows: Iterable[Row], file: TextIO) -> None:
    """CSV with a header; cells that a spreadsheet would take for a formula are marked (`plusx.data.table`)."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(value) for value in asdict(row).values()])


def to_kaggle(rows: Iterable[Row], file: TextIO) -> None:
    """`id,label` as the Kaggle competitions want it: the number in the file name, the second class's probability.

    A photo that cannot be read gets 0.5. Raises UsageError unless there are two classes.
    """
    writer = csv.writer(file)
    writer.writerow(("id", "label"))
    for row in rows:
        if row.probabilities is not None and len(row.probabilities) != 2:
            raise sentences.kaggle_needs_two(len(row.probabilities))
        label = 0.5 if row.probabilities is None else list(row.probabilities.values())[1]
        writer.writerow((_kaggle_id(row.path), f"{label:.6f}"))


def _kaggle_id(path: str) -> str:
    """Not marked as a cell of a spreadsheet would be: a machine compares it."""
    stem = Path(path).stem.encode("utf-8", "backslashreplace").decode()
    numbers = re.findall(r"\d+", stem)
    return numbers[-1] if numbers else stem


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=True)
    if isinstance(value, float):
        return repr(value)
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return cell(text)
