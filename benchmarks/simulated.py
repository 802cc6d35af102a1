"""Shards of a million photos, of which a thousand exist: a few real tars, and an index that names their members again.

Names and SHA-256 differ from photo to photo, as those of real ones do; shards and places repeat. What is measured on it
is what every photo costs before it is read, and the first batch is read from real tars.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import safetensors.numpy

from plusx import keyed
from plusx.data.index import INDEX, KEY, Index, open_index
from plusx.images.source import Source
from plusx.verbs.shard import shard


def unchecked(file: str, offset: int, length: int, _: str) -> Source:
    """In place of the Source of a photo of shards: its SHA-256 is made up here, and not compared with its bytes."""
    return Source(file, offset, length)


def simulated(folder: Path, photos: Path, count: int) -> Path:
    """The folder with the shards of the tars in `photos` and an index of `count` photos; made once."""
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shard(photos, partial)
        real = open_index(partial / INDEX, f"{partial}/")
        (partial / INDEX).write_bytes(_repeated(real, count))
        partial.rename(folder)
    return folder


def _repeated(real: Index, count: int) -> bytes:
    """The bytes of an index of `count` photos that lie where those of a real one do."""
    rows = np.arange(count) % len(real)
    names = b"".join(b"%s/%09d.png" % (real.classes[real.label[row]].encode(), i) for i, row in enumerate(rows))
    ends = np.cumsum([len(real.classes[label]) + 14 for label in real.label.tolist()])
    rounds = np.arange(count) // len(real)
    columns = {
        **{name: getattr(real, name)[rows] for name in ("shard", "offset", "length", "label", "split")},
        "group": np.arange(count),
        "sha256": keyed.words(0, 0, np.arange(count), "simulated", 4).view(np.uint8).reshape(count, 32),
        "name_ends": ends[rows] + rounds * ends[-1],
        "names": np.frombuffer(names, np.uint8),
    }
    shards = {"shards": [s.name for s in real.shards], "bytes": [s.bytes for s in real.shards]}
    document = {"format": 1, "classes": list(real.classes), **shards, "sha256": [s.sha256 for s in real.shards]}
    return safetensors.numpy.save(
        {name: np.ascontiguousarray(column) for name, column in columns.items()}, metadata={KEY: json.dumps(document)}
    )
