"""A photo is the same pixels in this process, as training and testing read it in pools, and as the service reads it:
row P01 of the fault matrix.
"""

from __future__ import annotations

import asyncio
import itertools
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plusx.images.decode import BadPhoto, Undecodable
from plusx.images.pool import DecodePool, Source
from plusx.images.preprocess import Pixels, Preprocess
from plusx.images.process import Limits
from plusx.serve.decoders import Decoders
from tests.images.heic import heic
from tests.images.test_decode import noise, png, saved, shades
from tests.serve.test_faults import uploads

Outcome = Pixels | tuple[str, str]  # or code and sentence
RULES = (Preprocess(64, 56), Preprocess(37, 37, background=(9, 8, 7), decoder_scale=True))
MANY = 1_000


def in_this_process(rule: Preprocess, photos: list[bytes]) -> list[Outcome]:
    """As `plusx.load(...).predict(photo)` looks at photos."""
    found: list[Outcome] = []
    for photo in photos:
        try:
            found.append(rule.from_bytes(photo))
        except Undecodable as bad:
            found.append((bad.code, bad.reason))
    return found


def in_a_pool(rule: Preprocess, sources: list[Source]) -> list[Outcome]:
    """As trainings and commands look at files."""
    with DecodePool(rule, 2) as pool:
        answers = dict(pool.map(sources))
    results = [answers[i] for i in range(len(sources))]
    return [(found.code, found.reason) if isinstance(found, BadPhoto) else found for found in results]


def in_the_service(rule: Preprocess, photos: list[bytes]) -> list[Outcome]:
    """As the service looks at uploads."""

    async def looked_at() -> list[Any]:
        decoders = Decoders(rule, Limits(), 2, lambda: None)
        await decoders.start()
        try:
            return await asyncio.gather(*map(decoders.pixels, photos), return_exceptions=True)
        finally:
            decoders.close()

    results = asyncio.run(looked_at())
    return [(found.code, found.reason) if isinstance(found, Undecodable) else found for found in results]


def differing(one: Outcome, other: Outcome) -> int:
    """Bytes, or words, that are not the same."""
    if isinstance(one, tuple) or isinstance(other, tuple):
        assert isinstance(one, tuple)
        assert isinstance(other, tuple)
        return sum(a != b for a, b in zip(one, other, strict=True))
    assert one.shape == other.shape
    return int((one != other).sum())


def turned(orientation: int, format: str) -> bytes:
    """A photo whose camera was held another way."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(noise(), format, exif=exif)


def modes() -> dict[str, bytes]:
    """Files of every mode that is read and can be written here."""
    deep = np.random.default_rng(1).integers(0, 65536, (40, 50), dtype=np.uint16)
    colours = np.random.default_rng(2).integers(0, 65536, (40, 50, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in colours)
    ycck = bytearray(saved(noise().convert("CMYK"), "JPEG"))
    ycck[ycck.index(b"Adobe") + 11] = 2
    clear = noise().convert("RGBA")
    clear.putalpha(noise().convert("L"))
    return {
        "16-bit TIFF": saved(Image.fromarray(deep), "TIFF"),
        "16-bit TIFF, big-endian": saved(Image.frombytes("I;16B", (50, 40), deep.astype(">u2").tobytes()), "TIFF"),
        "16-bit RGB PNG": png(50, 40, 16, 2, rows),
        "16-bit RGB PNG, one colour clear": png(50, 40, 16, 2, rows, colours[3, 3].tobytes()),
        "2-bit grey PNG": png(4, 1, 2, 0, b"\0\x1b", b"\0\2"),
        "32-bit TIFF": saved(Image.fromarray(deep.astype(np.int32)), "TIFF"),
        "float TIFF": saved(Image.fromarray((deep / 65535).astype(np.float32)), "TIFF"),
        "LAB TIFF": saved(Image.frombytes("LAB", (61, 47), noise().tobytes()), "TIFF"),
        "YCCK": bytes(ycck),
        "grey JPEG": saved(noise().convert("L"), "JPEG"),
        "progressive JPEG": saved(noise(400, 300), "JPEG", progressive=True),
        "JPEG, 4:4:4": saved(noise(400, 300), "JPEG", subsampling=0),
        "large JPEG": saved(noise(1600, 1200), "JPEG"),
        "alpha": saved(clear, "PNG"),
        "alpha WebP": saved(clear, "WEBP"),
        "grey alpha": saved(clear.convert("LA"), "PNG"),
        "palette, one clear": saved(noise().convert("P"), "PNG", transparency=1),
        "JPEG 2000": saved(noise(), "JPEG2000"),
    }


def every_kind() -> dict[str, bytes]:
    """All photos, good and bad, that tests of the decoder and of the service make of bytes."""
    kinds = itertools.product(range(1, 9), ("JPEG", "PNG", "WEBP", "TIFF"))
    return {
        **uploads(),
        **modes(),
        **{format: saved(noise(), format) for format in ("PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG")},
        **{f"{format}, orientation {number}": turned(number, format) for number, format in kinds},
        **{f"HEIC turned {turns}": heic(shades(), turns=turns) for turns in (1, 2, 3)},
        "HEIC cut": heic(shades())[:300],
    }


@pytest.mark.parametrize("rule", RULES)
def test_every_kind_of_photo_is_the_same_bytes_or_the_same_sentence_everywhere(
    rule: Preprocess, tmp_path: Path
) -> None:
    kinds = every_kind()
    photos, sources = list(kinds.values()), []
    for i, photo in enumerate(photos):
        (tmp_path / f"{i}.jpg").write_bytes(photo)
        sources.append(Source(str(tmp_path / f"{i}.jpg")))
    here = in_this_process(rule, photos)
    for elsewhere in (in_a_pool(rule, sources), in_the_service(rule, photos)):
        apart = {name: differing(*pair) for name, *pair in zip(kinds, here, elsewhere, strict=True)}
        assert {name: count for name, count in apart.items() if count} == {}
    refused = {name for name, found in zip(kinds, here, strict=True) if isinstance(found, tuple)}
    assert refused >= {"D01 cut at 99 %", "D04 empty", "D05 PDF", "D13 bomb", "JPEG 2000"}
    assert len(kinds) - len(refused) >= 60


def test_a_thousand_real_photos_are_the_same_bytes_everywhere(photos: Path) -> None:
    path = photos / "dogs-vs-cats" / "train-0.tar"
    with tarfile.open(path) as archive:
        members = [member for member in itertools.islice(archive, 2 * MANY) if member.isfile()][:MANY]
    sources = [Source(str(path), member.offset_data, member.size) for member in members]
    with path.open("rb") as file:
        bytes_of = [(file.seek(source.offset), file.read(source.length))[1] for source in sources]
    rule = Preprocess(73, 64)
    here = in_this_process(rule, bytes_of)
    assert len(here) == MANY
    assert all(isinstance(found, np.ndarray) for found in here)
    assert sum(map(differing, here, in_a_pool(rule, sources))) == 0
    assert sum(map(differing, here, in_the_service(rule, bytes_of))) == 0


def test_a_single_byte_that_differs_is_counted() -> None:
    rule, photo = RULES[0], saved(noise(), "PNG")
    (one,), (other,) = in_this_process(rule, [photo]), in_this_process(rule, [photo])
    assert differing(one, other) == 0
    assert isinstance(other, np.ndarray)
    other[3, 4, 1] ^= 1
    assert differing(one, other) == 1
    assert differing(("empty", "a"), ("empty", "b")) == 1
