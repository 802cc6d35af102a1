"""What every photo states and roughly shows, from one decoding of each, remembered by its content.

The cache holds one table per decoder: a row of 312 bytes for every photo that was ever surveyed, sorted by SHA-256, so
that a photo is decoded once whatever DATA it lies in. It is an entry of the cache as decoded sets are, and the first
to be given up with them.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plusx.data.entries import building, cache_folder, cache_limit
from plusx.data.near_duplicates import SIDE, thumbnails
from plusx.data.reading import through
from plusx.data.source import Photo
from plusx.durable import TEMPORARY
from plusx.errors import DiskError
from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool, Surveyed
from plusx.images.preprocess import Preprocess
from plusx.images.sniff import IMAGES

FORMATS = tuple(sorted(IMAGES))  # a row holds the position
LOOK = Preprocess(resize=32, crop=32)  # every pixel is decoded whatever the size kept of it
VERSION = 1
MOST = 2_000_000  # rows that are kept

ROW = np.dtype(
    [
        ("sha256", "<u8", (4,)),
        ("width", "<u4"),
        ("height", "<u4"),
        ("frames", "<u4"),
        ("orientation", "u1"),
        ("format", "u1"),
        ("contrast", "u1"),
        ("alpha", "?"),
        ("mode", "S8"),
        ("thumbnail", "u1", (SIDE, SIDE)),
    ]
)
TABLE = "rows.npy"
_TOGETHER = 1024
_WAITING = 64  # looked at, and without a thumbnail yet

Rows = npt.NDArray[np.void]
Words = npt.NDArray[np.uint64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Survey:
    """Rows of ROW, one per photo in order, those of bad photos zeros; and why these cannot be read, by position."""

    rows: Rows
    bad: dict[int, BadPhoto]

    @property
    def good(self) -> npt.NDArray[np.int64]:
        """Positions of the photos that can be read, ascending."""
        readable = np.ones(len(self.rows), bool)
        readable[list(self.bad)] = False
        return np.flatnonzero(readable)


def survey(
    photos: Sequence[Photo],
    hashes: Sequence[str],
    *,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Survey:
    """Look at every photo; those that the cache knows by their SHA-256 (hexadecimal) are not decoded again.

    Photos that cannot be read are tried anew each time. `on_progress` hears (done, all). A cache that cannot be used
    costs time and nothing else.
    """
    words = np.frombuffer(bytes.fromhex("".join(hashes)), "<u8").reshape(-1, 4)
    rows = np.zeros(len(photos), ROW)
    known = _remembered(words, rows)
    missing = np.flatnonzero(~known)
    rows["sha256"] = words
    bad = _look(photos, missing, rows, workers, _counted(on_progress, len(photos), len(missing)))
    fresh = np.setdiff1d(missing, list(bad))
    if len(fresh):
        with contextlib.suppress(OSError, DiskError):
            _remember(rows[fresh])
    return Survey(rows, bad)


def _counted(on_progress: Progress | None, total: int, missing: int) -> Callable[[int], None]:
    def tell(done: int) -> None:
        if on_progress is not None:
            on_progress(total - missing + done, total)

    tell(0)
    return tell


def _look(
    photos: Sequence[Photo],
    missing: npt.NDArray[np.int64],
    rows: Rows,
    workers: int | None,
    tell: Callable[[int], None],
) -> dict[int, BadPhoto]:
    """Decode the photos at `missing` and fill in their rows; why the others cannot be read, by position."""
    bad: dict[int, BadPhoto] = {}
    waiting: list[tuple[int, Surveyed]] = []  # thumbnails are made of many photos at a time
    with DecodePool(LOOK, workers=workers) as pool:
        answers = through(pool.survey, (photos[row].source for row in missing))
        for done, (i, answer) in enumerate(answers, start=1):
            if isinstance(answer, BadPhoto):
                bad[int(missing[i])] = answer
            else:
                waiting.append((int(missing[i]), answer))
            if len(waiting) == _WAITING:
                _fill(rows, waiting)
                waiting.clear()
            tell(done)
    _fill(rows, waiting)
    return dict(sorted(bad.items()))


def _fill(rows: Rows, looked_at: Sequence[tuple[int, Surveyed]]) -> None:
    if not looked_at:
        return
    small = thumbnails(np.stack([seen.pixels for _, seen in looked_at]))
    for (row, seen), thumbnail in zip(looked_at, small, strict=True):
        facts, sha256 = seen.facts, rows[row]["sha256"]
        kind, mode = FORMATS.index(facts.format), facts.mode.encode()
        sizes = (facts.width, facts.height, facts.frames, facts.orientation)
        rows[row] = (sha256, *sizes, kind, seen.contrast, facts.alpha, mode, thumbnail)


def _table() -> Path:
    return cache_folder() / f"survey-{VERSION}-{LOOK.key()}" / TABLE


def _remembered(words: Words, rows: Rows) -> npt.NDArray[np.bool_]:
    """Copy what the cache knows into `rows`; for which photos it knew something, [n]."""
    table = _opened()
    if not len(table) or not len(words):
        return np.zeros(len(words), bool)
    keys = np.ascontiguousarray(table["sha256"][:, 0])
    places = np.searchsorted(keys, words[:, 0]).clip(max=len(keys) - 1)
    known = np.zeros(len(words), bool)
    for start in range(0, len(words), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        found = table[places[part]]
        known[part] = (found["sha256"] == words[part]).all(axis=1)
        rows[part][known[part]] = found[known[part]]
    return known


def _opened() -> Rows:
    """The rows in the cache, mapped; none where there is no table or it is damaged."""
    path = _table()
    try:
        table: Rows = np.lib.format.open_memmap(path, mode="r")  # np.load would open archives and ask for pickles
        if table.dtype != ROW or table.ndim != 1 or int(table["format"].max(initial=0)) >= len(FORMATS):
            raise ValueError("another table")
    except (OSError, ValueError, EOFError):
        return np.zeros(0, ROW)
    with contextlib.suppress(OSError):  # a cache that may only be read
        os.utime(path.parent)
    return table


def _remember(fresh: Rows) -> None:
    """Add rows to the table: written anew beside the old one, synced and renamed."""
    path = _table()
    with building(path.parent.name):
        old = _opened()
        merged = np.concatenate([fresh, old[: max(0, MOST - len(fresh))]])
        _, first = np.unique(merged["sha256"][:, 0], return_index=True)  # sorts, too
        if merged.nbytes <= cache_limit():
            path.parent.mkdir(exist_ok=True)
            _write(path, merged[first])


def _write(path: Path, table: Rows) -> None:
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            np.save(file, table, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
