"""Which photos a lab trains on and which it tests on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from plusx.lab.laboratory import Lab
from plusx.lab.photos import Photos, evenly, shuffled


def test_photos_are_taken_evenly_over_classes_by_the_smallest_keys() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    keys = ["c", "a", "b", "z", "x", "y", "w"]
    assert evenly(labels, keys, 4).tolist() == [1, 2, 4, 6]
    assert evenly(labels, keys, 5).tolist() == [0, 1, 2, 4, 6]
    assert evenly(labels, keys, None).tolist() == list(range(7))
    assert evenly(labels, keys, 99).tolist() == list(range(7))


def test_test_photos_are_watched_and_none_of_them_is_trained_on(open_lab: Callable[..., Lab]) -> None:
    lab = open_lab()
    assert lab.counts == {"train": 64, "test": 16}
    hashes = {split: set() for split in ("train", "val")}
    for sha256, split in zip(lab._photos.photos.hashes, lab._photos.photos.splits, strict=True):
        hashes[split].add(sha256)
    assert not hashes["train"] & hashes["val"]
    names = [p.name for p in lab._photos.photos.listing.photos]
    assert all(("test" in n) == (s == "val") for n, s in zip(names, lab._photos.photos.splits, strict=True))


def test_photos_come_as_pixels_and_labels_the_same_each_time(open_lab: Callable[..., Lab]) -> None:
    lab = open_lab()
    some, again = lab.photos("train", 10), lab.photos("train", 10)
    assert some.pixels.shape == (10, 3, 16, 16)
    assert some.pixels.dtype == torch.uint8
    assert torch.equal(some.pixels, again.pixels)
    assert some.labels.bincount().tolist() == [5, 5]
    assert len(lab.photos("test").labels) == 16


def test_photos_are_shuffled_together_with_their_labels() -> None:
    pixels = torch.arange(40).view(40, 1, 1, 1)
    some = shuffled(Photos(pixels, torch.arange(40)))
    assert some.pixels.flatten().equal(some.labels)
    assert sorted(some.labels.tolist()) == list(range(40))
    assert some.labels[:20].float().mean() > 12, "no longer sorted by class"
