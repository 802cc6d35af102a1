"""Bombs, in real decoding processes whose memory is looked at: rows D10, D12, D13 and D14 of the fault matrix."""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from plusx.images.answers import Surveyed
from plusx.images.decode import BadPhoto, decode, inspect
from plusx.images.pool import DecodePool, Source
from plusx.images.preprocess import Preprocess
from plusx.images.process import DecodingProcess, Limits, worker_command
from tests.images import bombs
from tests.images.bombs import picture, saved

LIMIT = 512_000_000  # bytes that a refused photo may cost
RULE = Preprocess(64, 56)
Found = Surveyed | BadPhoto

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the most memory a process had")

BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {  # and the code, or "pixels" where the first picture is whole
    "PNG of 400 megapixels": (lambda: bombs.png(20_000, 20_000, b""), "too-large"),
    "PNG of 65535 x 65535": (lambda: bombs.png(65_535, 65_535, b""), "too-large"),
    "PNG of 2 MB that is 2 GB": (bombs.two_gigabytes_claimed, "too-large"),
    "PNG with 2 GB behind its pixels": (bombs.two_gigabytes_unclaimed, "pixels"),
    "PNG of 64 megapixels without any": (lambda: bombs.png(8_000, 8_000, b"", colour=6), "truncated"),
    "zTXt": (lambda: bombs.texts(b"zTXt", 1_000), "too-large"),
    "iTXt": (lambda: bombs.texts(b"iTXt", 1_000), "too-large"),
    "70 texts of a megabyte": (lambda: bombs.texts(b"zTXt", 1, 70), "too-large"),
    "iCCP": (lambda: bombs.profile(1_000), "pixels"),
    "GIF of 65535 x 65535": (lambda: bombs.gif(65_535, 65_535), "too-large"),
    "GIF, second frame": (lambda: bombs.gif(0, 0, (65_535, 65_535)), "pixels"),
    "GIF of 100,000 frames": (lambda: bombs.gif_chain(100_000), "pixels"),
    "APNG, second frame": (bombs.animated_png, "pixels"),
    "TIFF, second page": (bombs.tiff_pages, "pixels"),
    "TIFF of 100,000 directories": (lambda: bombs.tiff_chain(100_000), "pixels"),
    "TIFF in a tile of 20,000 x 20,000": (lambda: bombs.tiff_tile(20_000), "too-large"),
    "JPEG of 65,500 x 65,500": (lambda: bombs.jpeg(65_500, 65_500), "too-large"),
    "JPEG of 64 megapixels without any": (lambda: bombs.jpeg(8_000, 8_000), "truncated"),
    "progressive JPEG of 64 megapixels without any": (lambda: bombs.jpeg(8_000, 8_000, progressive=True), "truncated"),
    "WebP of 65535 x 65535": (lambda: bombs.webp(65_535, 65_535), "too-large"),
    "BMP of 65535 x 65535": (lambda: bombs.bmp(65_535, 65_535), "too-large"),
}


class Gauged:
    """A real decoding process that is asked for one photo at a time, and the most memory it has had since it began."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.process = DecodingProcess(worker_command(), RULE, limits or Limits())
        self.number = 0

    def look(self, photo: bytes, seconds: float = 20.0) -> Found:
        """What is found out about a photo; its facts are looked at, too."""
        self.number += 1
        self.process.send_bytes(self.number, photo, facts=True)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.process.receive()
            for _, answer in self.process.answers():
                found: Found = answer
                return found
            assert not self.process.ended, "the process died"
            time.sleep(0.002)
        raise TimeoutError(f"no answer within {seconds} s")

    @property
    def peak(self) -> int:
        """Bytes."""
        status = Path(f"/proc/{self.process._process.pid}/status").read_text()
        return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.fixture
def gauged() -> Iterator[Gauged]:
    made = Gauged()
    yield made
    made.process.end()


@pytest.fixture(scope="module")
def together() -> Iterator[Gauged]:
    """One process for all bombs: the peak is that of the worst."""
    made = Gauged()
    yield made
    made.process.end()


def code_of(found: Found) -> str:
    return found.code if isinstance(found, BadPhoto) else "pixels"


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_room_is_made_for_it(name: str, together: Gauged) -> None:
    """D13: by the documented code, within five seconds, in 512 MB."""
    build, expected = BOMBS[name]
    photo = build()
    assert len(photo) < 5_500_000
    began, before = time.monotonic(), together.peak
    found = together.look(photo)
    assert code_of(found) == expected
    assert time.monotonic() - began < 5
    assert together.peak <= LIMIT, f"{name}: {together.peak / 1e6:.0f} MB, before it {before / 1e6:.0f} MB"


def test_without_the_bound_on_pixels_a_bomb_takes_its_room() -> None:
    """D13, the control: the same gauge, a bound that lets 132 megapixels pass."""
    unbounded = Gauged(Limits(pixels=10**9))
    try:
        unbounded.look(bombs.png(11_500, 11_500, bombs.zeros(380)))
        assert unbounded.peak > LIMIT
    finally:
        unbounded.process.end()


def test_a_text_bomb_has_a_sentence_of_its_own(gauged: Gauged) -> None:
    """D13."""
    found = gauged.look(bombs.texts(b"zTXt", 2))
    assert isinstance(found, BadPhoto)
    assert found.reason == (
        "the texts beside the picture unpack to megabytes, which no photo needs; save it without them"
    )
    assert code_of(gauged.look(bombs.texts(b"iTXt", 1))) == "pixels", "a megabyte is let pass"


def test_a_tile_that_is_larger_than_any_picture_has_a_sentence_of_its_own(gauged: Gauged) -> None:
    """D13: 16 x 16 pixels in a tile of 20,000 x 20,000 took 1.25 GB and 15 s."""
    found = gauged.look(bombs.tiff_tile(20_000))
    assert isinstance(found, BadPhoto)
    assert found.reason == "a tile of it claims more than the 64 million pixels that are read; save it anew"
    assert code_of(gauged.look(bombs.tiff_tile(16))) == "pixels"


def test_a_tile_without_a_size_is_damage_and_not_a_bomb(gauged: Gauged) -> None:
    """D13: its width as a floating-point number."""
    data = bytearray(bombs.tiff_tile(16))
    entry = data.index(struct.pack("<HHI", 322, 4, 1))
    struct.pack_into("<HHIf", data, entry, 322, 11, 1, 16.0)
    found = gauged.look(bytes(data))
    assert isinstance(found, BadPhoto)
    assert (found.code, found.reason) == (
        "unreadable",
        "the TIFF is damaged (its tiles have no size); copy or download it again",
    )


def test_a_stream_that_is_larger_than_its_container_claims_stays_small(gauged: Gauged) -> None:
    """D13: HEIC states its size twice."""
    pytest.importorskip("pi_heif")
    assert isinstance(gauged.look(bombs.heic_of(16)), Surveyed)
    assert isinstance(gauged.look(bombs.heic_of(8_176)), BadPhoto)
    assert gauged.peak <= LIMIT


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_huge_or_corrupt_colour_profile_costs_nothing(format: str) -> None:
    """D12: profiles are not applied, so nothing about one is a reason to refuse a photo."""
    options = {"lossless": True} if format == "WEBP" else {}
    plain = np.asarray(decode(saved(picture(), format, **options)))
    noise = np.random.default_rng(3).bytes(1_500_000)  # as ImageNet has one
    for profile in (noise, b"no profile at all", b"\0"):
        assert np.array_equal(plain, np.asarray(decode(saved(picture(), format, icc_profile=profile, **options))))


def test_a_profile_that_does_not_unpack_costs_nothing() -> None:
    """D12: a wrong checksum, a method of compression that there is not, and what is no compressed data."""
    plain = saved(picture(), "PNG")
    broken = bytearray(bombs.chunk(b"iCCP", b"name\0\0" + bombs.zeros(1)))
    broken[-1] ^= 1
    for profile in (bytes(broken), bombs.chunk(b"iCCP", b"name\0\7x"), bombs.chunk(b"iCCP", b"name\0\0nonsense")):
        data = bombs.with_chunks(plain, profile)
        assert np.array_equal(np.asarray(decode(data)), np.asarray(picture()))
        assert inspect(data).format == "PNG"


def test_a_megabyte_of_exif_that_points_at_itself_takes_no_time(gauged: Gauged) -> None:
    """D10."""
    photo = bombs.exif_loop()
    assert len(photo) > 1_000_000
    gauged.look(saved(picture(), "PNG"))  # the start of the process is not the photo's
    began = time.monotonic()
    assert code_of(gauged.look(photo)) == "pixels"
    assert time.monotonic() - began < 2
    assert np.array_equal(np.asarray(decode(photo)), np.asarray(picture()))


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (65_535, 1), (1, 65_535), (65_535, 976)])
def test_slivers_are_read_up_to_the_same_64_megapixels_as_other_photos(size: tuple[int, int], gauged: Gauged) -> None:
    """D14: the one rule is the number of pixels, and a sliver costs no more than others of as many."""
    megabytes = 3 * size[0] * size[1] // bombs.MEGABYTE + 1
    found = gauged.look(bombs.png(*size, bombs.zeros(megabytes)))
    assert isinstance(found, Surveyed)
    assert (found.facts.width, found.facts.height) == size
    assert found.pixels.shape == (56, 56, 3)
    assert not found.pixels.any()
    assert gauged.peak <= LIMIT


def test_a_sliver_over_the_limit_is_refused_as_others_are(gauged: Gauged) -> None:
    """D14."""
    assert code_of(gauged.look(bombs.png(65_535, 977, b""))) == "too-large"


def test_the_pool_names_a_bomb_and_reads_its_neighbours(tmp_path: Path) -> None:
    """D13: files, as `check` and training read them."""
    for i, photo in enumerate((saved(picture(), "PNG"), bombs.two_gigabytes_claimed(), saved(picture(), "JPEG"))):
        (tmp_path / f"{i}.png").write_bytes(photo)
    with DecodePool(RULE, 1) as pool:
        found = dict(pool.map([Source(str(tmp_path / f"{i}.png")) for i in range(3)]))
    assert [getattr(found[i], "code", "pixels") for i in range(3)] == ["pixels", "too-large", "pixels"]
