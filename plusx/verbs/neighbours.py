"""The features of training photos, kept in the run folder, so that an explanation can show what is nearest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from plusx import keyed
from plusx.data.source import Photo, content_hashes, scan
from plusx.durable import write_file
from plusx.errors import Error
from plusx.errors import explain as sentences
from plusx.run_folder import RunFolder
from plusx.tensor_file import contents, parsed, read_regular
from plusx.verbs.labelled import Indices, LabelledPhotos

FILE = "neighbours.safetensors"
KEY = "plusx"
MOST = 4_000  # photos
FEWEST = 100
SHARE = 0.015  # of the photos that a training shows: about a fiftieth of what it computes, all looks counted
SHOWN = 5


@dataclass(frozen=True)
class Neighbour:
    """A training photo, its class, and the cosine of its features to those of the photo that is explained."""

    path: str
    label: str
    cosine: float
    sha256: str


@dataclass(frozen=True)
class Neighbours:
    """Unit features [n, D], names, class names and SHA-256 of training photos."""

    features: npt.NDArray[np.float16]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    hashes: tuple[str, ...]

    def nearest(self, features: npt.NDArray[np.float32], sha256: str, count: int = SHOWN) -> list[Neighbour]:
        """The photos nearest to unit `features` [D], nearest first, without the photo whose hash is `sha256`.

        None where the file is of another network, whose features have another length.
        """
        if self.features.shape[1] != len(features):
            return []
        cosines = self.features.astype(np.float32) @ features
        order = [i for i in np.argsort(-cosines, kind="stable") if self.hashes[i] != sha256][:count]
        return [Neighbour(self.names[i], self.labels[i], float(cosines[i]), self.hashes[i]) for i in order]


def remembered(photos: int, shown: int) -> int:
    """How many of so many training photos are remembered by a run that is shown so many photos, repeats counted."""
    return min(photos, MOST, max(FEWEST, round(SHARE * shown)))


def remember(run: RunFolder, features: npt.NDArray[np.float32], photos: LabelledPhotos, rows: Indices) -> None:
    """Write neighbours.safetensors: unit features [n, D] of the training photos at `rows` of the listing."""
    write_file(run.path / FILE, to_bytes(features, rows, photos))


def balanced(labels: Indices, seed: int, most: int = MOST) -> Indices:
    """Positions of at most `most` photos: taken class by class in turn, in an order drawn by `seed`; sorted."""
    order = keyed.permutation(seed, 0, len(labels), "neighbours")
    turn = np.empty(len(labels), dtype=np.int64)  # how many of its class come before a photo
    for label in np.unique(labels):
        turn[order[labels[order] == label]] = np.arange((labels == label).sum())
    return np.sort(order[np.argsort(turn[order], kind="stable")][:most])


def to_bytes(features: npt.NDArray[np.float32], rows: Indices, photos: LabelledPhotos) -> bytes:
    """The file: features [n, D] float16 and labels [n]; names, SHA-256 and classes as JSON."""
    told: dict[str, list[str]] = {
        "names": [photo.name for photo in photos.photos(rows)],
        "sha256": [photos.hashes[i] for i in rows],
        "classes": list(photos.listing.classes),
    }
    arrays: dict[str, npt.NDArray[Any]] = {"features": features.astype(np.float16), "labels": photos.labels(rows)}
    return safetensors.numpy.save(arrays, metadata={KEY: json.dumps(told)})


def read(run: Path) -> Neighbours | None:
    """What a run remembers; None where it remembers nothing. Raises ModelError where the file is damaged."""
    path = run / FILE
    if not path.exists():
        return None
    try:
        told = parsed((contents(path).metadata or {})[KEY])
        tensors = safetensors.numpy.load(read_regular(path))
        features, labels = tensors["features"], tensors["labels"]
        if features.dtype != np.float16 or features.ndim != 2 or labels.dtype != np.int64 or labels.min(initial=0) < 0:
            raise ValueError("its features or labels are of another kind")
        names = tuple(str(told["classes"][label]) for label in labels.tolist())
        if not len(features) == len(labels) == len(told["names"]) == len(told["sha256"]):
            raise ValueError("its parts have different lengths")
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, IndexError, TypeError) as error:
        raise sentences.damaged_neighbours(path, str(error)[:200]) from None
    return Neighbours(features, tuple(map(str, told["names"])), names, tuple(map(str, told["sha256"])))


def still_there(data: Sequence[str], near: Sequence[Neighbour]) -> dict[str, Photo]:
    """Those of the neighbours, by SHA-256, that still lie in DATA, unchanged; none where DATA is gone."""
    try:
        by_name = {photo.name: photo for photo in scan(list(data), trainable=False).photos}
    except Error:
        return {}
    found = [by_name[n.path] for n in near if n.path in by_name]
    wanted = {n.sha256 for n in near}
    return {h: photo for photo, h in zip(found, content_hashes(found), strict=True) if h in wanted}
