"""What the service proves before it says that it is ready: that it decodes and answers as the library does."""

from __future__ import annotations

import io

import numpy as np

from plusx.data.drawn import draw
from plusx.errors import serve as sentences
from plusx.images.preprocess import Pixels
from plusx.serve.served import Served

ROUNDING = 1e-4  # by which a probability may depend on what else is in the batch


def proof_photo() -> bytes:
    """A drawn picture as a JPEG file."""
    file = io.BytesIO()
    draw(seed=0, index=0, label=0, size=160).save(file, "JPEG", quality=90)
    return file.getvalue()


def prove(served: Served, decoded: Pixels) -> None:
    """Compare what came out of a decoding process with what this process decodes, and answers alone with those of a
    batch. Raises ModelError.
    """
    classifier = served.classifier
    expected = classifier.header.preprocess.from_bytes(proof_photo())
    name = served.name
    if not np.array_equal(decoded, expected):
        raise sentences.self_test_failed(name, "its decoding processes give other pixels than this one")
    alone = classifier.answers(expected[None])[0]
    among = classifier.answers(np.stack([expected[:, ::-1], expected, expected[::-1]]))[1]
    one, other = (np.array([*answer.probabilities.values()]) for answer in (alone, among))
    if not np.isfinite(one).all() or abs(float(one.sum()) - 1) > ROUNDING:
        raise sentences.self_test_failed(name, "its probabilities do not add up to 1")
    if float(np.abs(one - other).max()) > ROUNDING:
        raise sentences.self_test_failed(name, "an answer depends on the other photos of its batch")
