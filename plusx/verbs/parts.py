"""The answers of one block as one Parquet file, whole or not there; its footer says what it is of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.durable import write_file
from plusx.errors import scoring as sentences

FORMAT = 1
KEY = b"plusx"  # of the footer's metadata
Strings = list[str | None]


@dataclass(frozen=True)
class Made:
    """What a footer says: the block, how it was scored, and how many photos it holds, of which `bad` are errors."""

    block: str
    scoring: str
    photos: int
    bad: int
    computed: str


@dataclass
class Rows:
    """The rows of a block: one place for each of its photos, each of which is filled once."""

    names: Sequence[str]
    classes: Sequence[str]

    def __post_init__(self) -> None:
        count = len(self.names)
        self.probabilities: npt.NDArray[np.float32] = np.zeros((count, len(self.classes)), np.float32)
        self.answers: Strings = [None] * count
        self.codes: Strings = [None] * count
        self.reasons: Strings = [None] * count
        self.filled = np.zeros(count, np.int64)  # how often

    def answer(self, places: list[int], probabilities: npt.NDArray[Any], answers: Sequence[str]) -> None:
        """Fill `places` with probabilities [n, C] and n answers."""
        np.add.at(self.filled, places, 1)  # += counts a place that is named twice once
        self.probabilities[places] = probabilities
        for place, text in zip(places, answers, strict=True):
            self.answers[place] = text

    def fail(self, place: int, code: str, reason: str) -> None:
        """Fill `place` with why there is no answer."""
        self.filled[place] += 1
        self.codes[place], self.reasons[place] = code, reason

    @property
    def bad(self) -> int:
        """How many are errors."""
        return len(self.names) - self.codes.count(None)

    def table(self) -> Any:
        """As an Arrow table. Raises RunError unless every place was filled exactly once."""
        if not (self.filled == 1).all():
            raise sentences.miscounted("A part", len(self.names), int(self.filled.sum()))
        arrow = pyarrow()
        bad = np.array([code is not None for code in self.codes], dtype=bool)
        likeliest = self.probabilities.argmax(axis=1) if len(bad) else np.zeros(0, np.int64)
        labels = [None if wrong else self.classes[i] for i, wrong in zip(likeliest, bad, strict=True)]
        probability = arrow.array(self.probabilities.max(axis=1, initial=0), mask=bad)
        columns = [[_text(name) for name in self.names], labels, probability, self._lists(bad), self.answers]
        return arrow.table([*columns, self.codes, self.reasons], schema=schema(self.classes))

    def _lists(self, bad: npt.NDArray[np.bool_]) -> Any:
        """Probabilities of every class as lists, none where there is no answer."""
        arrow, width = pyarrow(), len(self.classes)
        offsets = np.concatenate([[0], np.cumsum(np.where(bad, 0, width))]).astype(np.int32)
        values = arrow.array(self.probabilities[~bad].ravel())
        return arrow.ListArray.from_arrays(offsets, values, mask=arrow.array(bad))


def schema(classes: Sequence[str]) -> Any:
    """The columns of a part, those of `predict`; the metadata has the classes, in the order of the probabilities."""
    arrow = pyarrow()
    text, number = arrow.string(), arrow.float32()
    fields = [
        arrow.field("path", text, nullable=False),
        *(arrow.field("label", text), arrow.field("probability", number)),
        *(arrow.field("probabilities", arrow.list_(number)), arrow.field("answer", text)),
        *(arrow.field("error_code", text), arrow.field("error_message", text)),
    ]
    return arrow.schema(fields, metadata={"classes": json.dumps(list(classes))})


def part_path(out: Path, block: str) -> Path:
    """Where the answers of a block lie."""
    return out / f"part-{block}.parquet"


def write_part(path: Path, rows: Rows, made: Made) -> None:
    """Write the part, whole or not at all. Raises DiskError, RunError where rows are missing or double."""
    table = rows.table()
    about = {
        b"classes": table.schema.metadata[b"classes"],
        KEY: json.dumps({"format": FORMAT, **asdict(made)}).encode(),
    }
    sink = pyarrow().BufferOutputStream()
    parquet().write_table(table.replace_schema_metadata(about), sink, compression="zstd", write_page_checksum=True)
    write_file(path, sink.getvalue().to_pybytes())


def read_made(path: Path) -> Made | None:
    """What the footer of a part says; None where there is no part, or no whole one, or not as many rows as it says."""
    try:
        footer = parquet().read_metadata(path)
        about = json.loads(footer.metadata[KEY])
        made = Made(**{name: about[name] for name in Made.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError):  # pyarrow's errors are kinds of these
        return None
    return made if about.get("format") == FORMAT and footer.num_rows == made.photos else None


def pyarrow() -> Any:
    """The module `pyarrow`. Raises UsageError where it is not installed."""
    try:
        import pyarrow as found
    except ImportError:
        raise sentences.no_pyarrow() from None
    return found


def parquet() -> Any:
    """The module `pyarrow.parquet`. Raises UsageError where it is not installed."""
    try:
        import pyarrow.parquet as found
    except ImportError:
        raise sentences.no_pyarrow() from None
    return found


def _text(name: str) -> str:
    """A name as UTF-8; other bytes in it as `--csv` writes them."""
    return name.encode("utf-8", "backslashreplace").decode()
