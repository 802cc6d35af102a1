"""The score of novelty at the end of a training: training photos against photos made from them that show nothing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from plusx import keyed
from plusx.data.loader import in_order
from plusx.data.negatives import made, quarters
from plusx.engines.torch_engine import TorchEngine
from plusx.trust.novelty import Discriminant, Floats, fit_discriminant
from plusx.verbs.labelled import Indices, Store
from plusx.verbs.testing import BATCH

MOST_CUT = 2_000  # photos that others are made from
LEAST = 20  # training photos: from fewer nothing can be learned


def described_photos(known: int) -> int:
    """How many photos are looked at to fit the score with so many `known` ones, made photos included."""
    return known + 2 * min(known, MOST_CUT)


def fit(engine: TorchEngine, store: Store, rows: Indices, seed: int) -> Discriminant | None:
    """The score, from the store's training photos at `rows`; None where the network or too few photos give none."""
    if not engine.describes or len(rows) < LEAST:
        return None
    size, seen, quiet = min(BATCH, engine.most), [], []
    rows = rows[keyed.permutation(seed, 0, len(rows), "strangers")]  # the first are cut, whatever their class
    for start, pixels in enumerate(in_order(store, rows, size)):
        descriptors, activity = engine.described(pixels)
        seen.append(descriptors)
        if start * size < MOST_CUT:
            quiet.append(quarters(pixels, activity))
    cut = made(quiet, seed)
    known, strange = (_described(engine, pixels, size) for pixels in (cut.something, cut.nothing))
    return fit_discriminant(np.concatenate([*seen, known]), strange)


def _described(engine: TorchEngine, pixels: npt.NDArray[np.uint8], size: int) -> Floats:
    batches: Iterable[npt.NDArray[np.uint8]] = (pixels[i : i + size] for i in range(0, len(pixels), size))
    return np.concatenate([engine.described(batch)[0] for batch in batches])
