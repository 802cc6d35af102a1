"""The cost of a photo does not depend on how many there are: work and memory counted, no clock asked."""

from __future__ import annotations

import io
import sys
import tarfile
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from plusx.data.cache import pixel_store
from plusx.data.entries import clear
from plusx.data.source import Listing, content_hashes, scan
from plusx.data.split import assign
from plusx.doctor.folder import check
from plusx.images.preprocess import Preprocess

FEW, MANY = 150, 600
BYTES = 900  # at the peak, for each photo


def shard(folder: Path, count: int) -> Path:
    """A tar of distinct photos in two classes."""
    path = folder / f"{count}.tar"
    with tarfile.open(path, "w") as tar:
        for i in range(count):
            picture = io.BytesIO()
            Image.new("RGB", (2, 2), (i >> 8, i & 255, 0)).save(picture, "BMP")
            entry = tarfile.TarInfo(f"{'cat' if i % 2 else 'dog'}/{i}.bmp")
            entry.size = picture.tell()
            picture.seek(0)
            tar.addfile(entry, picture)
    return path


def look(data: Path) -> tuple[Listing, list[str]]:
    listing = scan(data)
    return listing, content_hashes(listing.photos)


def decode_into_the_cache(data: Path) -> None:
    listing, hashes = look(data)
    store, bad = pixel_store(listing.photos, hashes, Preprocess(resize=2, crop=2), workers=0)
    store.close()
    clear()
    assert (len(store), bad) == (len(hashes), {})


def split(data: Path) -> None:
    listing, hashes = look(data)
    assign(listing, hashes, None, seed=0)


def report(data: Path) -> None:
    clear()  # what is remembered of photos seen before would make this one cheaper
    check(data, workers=0)


STAGES = [scan, look, split, decode_into_the_cache, report]


def lines_run(stage: Callable[[Path], Any], data: Path) -> int:
    """How many lines of Python a stage runs, in all of its threads, every turn of a loop counted."""
    found = 0

    def count(_frame: object, event: str, _argument: object) -> Any:
        nonlocal found
        found += event == "line"
        return count

    before = sys.gettrace()
    threading.settrace(count)
    sys.settrace(count)
    try:
        stage(data)
    finally:
        sys.settrace(before)
        threading.settrace(before)  # type: ignore[arg-type]
    return found


def peak(stage: Callable[[Path], Any], data: Path) -> int:
    """Bytes of Python objects at the worst moment of a stage."""
    tracemalloc.start()
    try:
        stage(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("stage", STAGES)
def test_four_times_the_photos_are_four_times_the_work(stage: Callable[[Path], Any], tmp_path: Path) -> None:
    """D24; what a million take, docs/benchmarks.md says."""
    few, many = (shard(tmp_path, count) for count in (FEW, MANY))
    stage(few)  # imports what it needs
    assert lines_run(stage, many) <= 1.05 * MANY / FEW * lines_run(stage, few)


@pytest.mark.parametrize("stage", STAGES)
def test_a_photo_more_takes_less_than_a_kilobyte(stage: Callable[[Path], Any], tmp_path: Path) -> None:
    """D24."""
    few, many = (shard(tmp_path, count) for count in (FEW, MANY))
    stage(few)
    assert peak(stage, many) - peak(stage, few) < BYTES * (MANY - FEW)
