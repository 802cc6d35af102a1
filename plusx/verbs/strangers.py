"""A look at training photos at the end of a training: what the network remembers of them, and the score of novelty.

The score sets training photos against photos made from them that show nothing (`plusx.data.negatives`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from plusx import keyed
from plusx.data.loader import in_order
from plusx.data.negatives import Quarters, made, quarters
from plusx.engines.torch_engine import TorchEngine
from plusx.errors import UsageError
from plusx.trust.novelty import Discriminant, Floats, fit_discriminant
from plusx.verbs.labelled import Indices, Store
from plusx.verbs.testing import BATCH

MOST_CUT = 2_000  # photos that others are made from
LEAST = 20  # training photos: from fewer nothing can be learned
LOOKS = 4  # at a photo: for its features, for its descriptor, and at two photos made of it


@dataclass
class Looked:
    """Of training photos in a drawn order: which of `rows` they are [n], their features, what was seen of them."""

    order: Indices
    features: list[Floats] = field(default_factory=list)  # none of a network without a fully connected layer
    descriptors: list[Floats] = field(default_factory=list)  # none of a network that the engine does not describe
    cut: list[Quarters] = field(default_factory=list)


def look(engine: TorchEngine, store: Store, rows: Indices, seed: int) -> Looked:
    """Read the store's training photos at `rows` once, and take note of what the network sees in them."""
    order = keyed.permutation(seed, 0, len(rows), "strangers")  # the first are cut, whatever their class
    looked, size = Looked(order), min(BATCH, engine.most)
    for number, pixels in enumerate(in_order(store, rows[order], size)):
        _features(engine, pixels, looked)
        if engine.describes:
            descriptors, activity = engine.described(pixels)
            looked.descriptors.append(descriptors)
            looked.cut += [quarters(pixels, activity)] if number * size < MOST_CUT else []
    return looked


def fit(engine: TorchEngine, looked: Looked, seed: int) -> Discriminant | None:
    """The score of novelty; None where the network or too few photos give none."""
    if len(looked.order) < LEAST or not looked.descriptors:
        return None
    cut = made(looked.cut, seed)
    known, strange = (_described(engine, pixels) for pixels in (cut.something, cut.nothing))
    return fit_discriminant(np.concatenate([*looked.descriptors, known]), strange)


def _features(engine: TorchEngine, pixels: npt.NDArray[np.uint8], looked: Looked) -> None:
    try:
        looked.features.append(engine.features(pixels))
    except UsageError:  # there is no fully connected layer
        return


def _described(engine: TorchEngine, pixels: npt.NDArray[np.uint8]) -> Floats:
    size = min(BATCH, engine.most)
    return np.concatenate([engine.described(pixels[i : i + size])[0] for i in range(0, len(pixels), size)])
