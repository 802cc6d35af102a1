"""What a trained network sees in photos: the values by which its last layer decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plusx.data.reading import through
from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool, Source
from plusx.model_file import load
from plusx.run_folder import model_path

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]

_TOGETHER = 64


def features(
    model: Path, sources: Sequence[Source], device: str = "auto", workers: int | None = None
) -> tuple[Rows, Features]:
    """Positions in `sources` of the photos that can be read, ascending [n], and their features, unit vectors [n, D].

    `model` is a model file or a run folder. Raises ModelError where there is none.
    """
    from plusx.engines.torch_engine import TorchEngine
    from plusx.training.environment import choose_device

    file = model_path(model)
    loaded = load(file)
    engine = TorchEngine(loaded, choose_device(device), file)
    rows, found = list[int](), [np.zeros((0, 1), np.float32)]
    with DecodePool(loaded.header.preprocess, workers) as pool:
        for places, pixels in _batches(pool, sources):
            rows += places
            found.append(engine.features(pixels))
    order = np.argsort(rows)
    return np.array(rows, np.int64)[order], np.concatenate(found[1:] or found)[order]


def _batches(pool: DecodePool, sources: Sequence[Source]) -> Iterator[tuple[list[int], Pixels]]:
    places, rows = list[int](), list[Pixels]()
    for i, result in through(pool.map, sources):
        if not isinstance(result, BadPhoto):
            places.append(i)
            rows.append(result)
        if len(rows) == _TOGETHER:
            yield places, np.stack(rows)
            places, rows = [], []
    if rows:
        yield places, np.stack(rows)
