"""Near-duplicates: what is found, what is not joined, and that only the contents decide."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from plusx.data import near_duplicates as near
from plusx.data.drawn import draw
from plusx.data.near_duplicates import fingerprints, near_groups, spreads, thumbnails
from plusx.data.source import scan
from plusx.images.pool import DecodePool
from plusx.images.preprocess import Preprocess

SMALL = Preprocess(resize=32, crop=32)
N = 60


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [draw(5, i, i % 2) for i in range(N)]


def thumbs_of(pictures: list[Image.Image]) -> np.ndarray:
    return thumbnails(np.stack([SMALL(picture) for picture in pictures]))


def saved_anew(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=60)
    return Image.open(file)


def cropped(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    return picture.crop((2, 0, width, height - 2))  # of 96: 2 %


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved anew": saved_anew,
    "half the size": lambda picture: picture.resize((48, 48), Image.Resampling.BILINEAR),
    "cropped": cropped,
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
    "grey": lambda picture: picture.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_of_the_group_of_its_original(pictures: list[Image.Image], change: str) -> None:
    copies = [CHANGES[change](picture) for picture in pictures]
    groups = near_groups(thumbs_of(pictures + copies))
    assert np.array_equal(groups[:N], np.arange(N))
    assert (groups[N:] == np.arange(N)).mean() >= 0.95


def test_mirrored_copies_are_joined_where_asked_for(pictures: list[Image.Image]) -> None:
    thumbs = thumbs_of(pictures + [p.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for p in pictures])
    assert np.array_equal(near_groups(thumbs), np.arange(2 * N))
    assert np.array_equal(near_groups(thumbs, mirrored=True), np.tile(np.arange(N), 2))


def test_only_the_contents_decide(pictures: list[Image.Image]) -> None:
    thumbs = thumbs_of([*pictures, *map(saved_anew, pictures[:20]), *map(cropped, pictures[:9])])
    order = np.random.default_rng(0).permutation(len(thumbs))
    groups, shuffled = near_groups(thumbs), near_groups(thumbs[order])
    together = groups[order][:, None] == groups[order][None, :]
    assert np.array_equal(together, shuffled[:, None] == shuffled[None, :])
    assert all(shuffled[i] == np.flatnonzero(shuffled == shuffled[i])[0] for i in range(len(thumbs)))


def test_flat_photos_are_alone_even_if_they_are_equal() -> None:
    shades = np.repeat(np.array([0, 0, 90, 255], np.uint8), 32 * 32 * 3).reshape(4, 32, 32, 3)
    shades[1, 5:7, 5:7] = 30
    assert np.array_equal(near_groups(thumbnails(shades)), np.arange(4))


def test_no_photos_have_no_groups() -> None:
    assert near_groups(np.zeros((0, 16, 16), np.uint8)).shape == (0,)


@pytest.mark.parametrize("side", [16, 23, 48, 128])
def test_a_thumbnail_holds_means_of_boxes(side: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    edges = [i * side // 16 for i in range(17)]
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    box = grey[:, edges[4] : edges[5], edges[15] : edges[16]].mean(axis=(1, 2))
    assert np.abs(thumbnails(pixels)[:, 4, 15] - box).max() <= 0.5 + 1e-9


def test_fingerprints_are_signs_of_the_cosine_transform(pictures: list[Image.Image]) -> None:
    from scipy.fft import dctn

    thumbs = thumbs_of(pictures)
    spectrum = dctn(thumbs.astype(float), axes=(1, 2), type=2)
    found = np.unpackbits(fingerprints(thumbs).astype(">u8").view(np.uint8).reshape(N, 8), axis=1)
    lowest = [(r, d - r) for d in range(1, 17) for r in range(d + 1) if r < 9 and d - r < 9][:64]
    expected = np.stack([spectrum[:, r, c] > 0 for r, c in lowest], axis=1)
    sure = np.stack([np.abs(spectrum[:, r, c]) > 60 for r, c in lowest], axis=1)  # rounding decides below
    assert sure.mean() > 0.9
    assert np.array_equal(found[sure], expected[sure])


def test_candidates_that_fill_one_bucket_are_compared_with_their_neighbours_alone() -> None:
    rng = np.random.default_rng(1)
    hashes = np.sort(rng.integers(0, 2**48, 3000, dtype=np.uint64))
    compared = list(near._near_in_buckets(np.zeros(3000, np.uint64), hashes))
    assert len(compared) == near._WINDOW
    equal = list(near._near_in_buckets(np.zeros(5, np.uint64), np.zeros(5, np.uint64)))
    assert sum(map(len, equal)) == 10


def test_a_long_chain_is_one_group() -> None:
    pairs = np.stack([np.arange(99)[::-1], np.arange(1, 100)[::-1]], axis=1)
    assert not near._components(100, pairs).any()


def test_spread_is_the_standard_deviation() -> None:
    thumbs = np.random.default_rng(2).integers(0, 256, (7, 16, 16), dtype=np.uint8)
    assert np.allclose(spreads(thumbs), [thumb.std() for thumb in thumbs])


def test_real_photos_that_differ_are_not_joined(photos: Path) -> None:
    """Among these 5,000 no picture is there twice; the set has 22 such pairs, which lie in different archives."""
    listing = scan(photos / "dogs-vs-cats" / "train-0.tar")
    pixels = np.zeros((len(listing.photos), 32, 32, 3), np.uint8)
    with DecodePool(SMALL, workers=2) as pool:
        for i, result in pool.map(photo.source for photo in listing.photos):
            pixels[i] = result
    groups = near_groups(thumbnails(pixels))
    assert np.array_equal(groups, np.arange(5000))
