"""The photos of a lab: some to train on, some to watch the error on, decoded once.

Nothing is chosen or fitted on any photo here, so what DATA calls its test photos takes the place of validation: their
error is known all along the training, as in figure 6 of He et al. 2015. The validation photos of DATA are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plusx import keyed
from plusx.config import Config
from plusx.errors import lab as sentences
from plusx.training.events import Notice
from plusx.verbs import decoding, labelled
from plusx.verbs.labelled import Indices, LabelledPhotos, Pixels
from plusx.verbs.session import Decoded, Session

WATCHED = "val"  # the split whose error training tells


@dataclass(frozen=True)
class Amount:
    """At most so many photos; None means all there are."""

    train: int | None = None
    test: int | None = None


@dataclass(frozen=True)
class Photos:
    """Pixels uint8 [n, 3, S, S] and labels int64 [n], both on the lab's device."""

    pixels: Tensor
    labels: Tensor


class Watching(LabelledPhotos):
    """Photos of which those that are watched all count: none is needed to calibrate."""

    def chooses(self, rows: Indices, seed: int) -> npt.NDArray[np.bool_]:  # noqa: ARG002 as its kind has it
        """All of them."""
        return np.ones(len(rows), dtype=np.bool_)


@dataclass(frozen=True)
class LabPhotos:
    """The chosen photos of DATA with their split, "train" or "val", and their pixels."""

    photos: LabelledPhotos
    decoded: Decoded

    def some(self, split: str, count: int | None, device: torch.device) -> Photos:
        """`count` photos of "train" or "test", as many of each class as there are; all of them for None."""
        pixels = self.decoded.training if split == "train" else self.decoded.validation
        assert pixels is not None
        labels = self.photos.labels(pixels.rows)
        hashes = [self.photos.hashes[row] for row in pixels.rows]
        kept = evenly(labels, hashes, count)
        images = torch.from_numpy(pixels.store.read(pixels.store_rows[kept])).permute(0, 3, 1, 2)
        return Photos(images.to(device), torch.from_numpy(labels[kept]).to(device))


def gather(data: Sequence[str], config: Config, amount: Amount, listen: Callable[[Any], None]) -> LabPhotos:
    """List, decode, split and choose. Raises DataError and UsageError for what cannot be trained and tested on."""
    session = Session(tuple(data), config, torch.device("cpu"), 0.0, listen)
    photos = labelled.look(data, config)
    pixels = decoding.decode(session, photos, "", None)
    if not photos.listing.has_splits:
        photos = decoding.kept_together(session, photos, pixels)
    chosen = _chosen(photos, pixels, amount)
    if not len(chosen["test"]):
        raise sentences.no_test_photos(photos.listing.root)
    if pixels.bad:
        listen(Notice(f"{len(pixels.bad):,} photos that cannot be read are left out."))
    return _only(photos, pixels, chosen, session)


def evenly(labels: Indices, keys: Sequence[str], count: int | None) -> Indices:
    """Positions of `count` photos, as many of each class as there are, those with the smallest keys; in order."""
    if count is None or count >= len(labels):
        return np.arange(len(labels), dtype=np.int64)
    classes = np.unique(labels)
    order = np.argsort(np.array(keys), kind="stable")
    by_class = [order[labels[order] == label] for label in classes]
    shares = [count // len(classes) + (i < count % len(classes)) for i in range(len(classes))]
    taken = np.concatenate([rows[:share] for rows, share in zip(by_class, shares, strict=True)])
    return np.sort(taken).astype(np.int64)


def shuffled(photos: Photos) -> Photos:
    """The photos in an order without classes: batches of one class would have statistics that training never saw."""
    order = torch.from_numpy(keyed.permutation(0, 0, len(photos.labels), "landscape")).to(photos.labels.device)
    return Photos(photos.pixels[order], photos.labels[order])


def _chosen(photos: LabelledPhotos, pixels: Pixels, amount: Amount) -> Mapping[str, Indices]:
    """Positions among the readable photos of those to train on and those to test on."""
    splits = np.array([photos.splits[row] for row in pixels.rows])
    labels = photos.labels(pixels.rows)
    found = {}
    for name, count in (("train", amount.train), ("test", amount.test)):
        places = np.nonzero(splits == name)[0]
        keys = [photos.hashes[row] for row in pixels.rows[places]]
        found[name] = places[evenly(labels[places], keys, count)]
    return found


def _only(photos: LabelledPhotos, pixels: Pixels, chosen: Mapping[str, Indices], session: Session) -> LabPhotos:
    places = np.sort(np.concatenate([chosen["train"], chosen["test"]]))
    rows = pixels.rows[places].tolist()
    tested = set(pixels.rows[chosen["test"]].tolist())
    fewer = Watching(
        replace(photos.listing, photos=tuple(photos.photos(np.array(rows)))),
        tuple(photos.hashes[row] for row in rows),
        tuple(WATCHED if row in tested else "train" for row in rows),
        tuple(photos.keys[row] for row in rows),
        photos.decided,
    )
    kept = Pixels(pixels.store, np.arange(len(rows), dtype=np.int64), pixels.store_rows[places], ())
    return LabPhotos(fewer, decoding.parted(session, fewer, kept))
