"""Frames and pages are counted as Pillow counts them, and in no time. Rows D11 and D13 of the fault matrix."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from PIL import Image

from plusx.images.decode import inspect
from plusx.images.frames import MOST_BLOCKS, gif_frames, tiff_pages
from tests.images import bombs
from tests.images.bombs import picture, saved


def several(count: int, format: str, **options: Any) -> bytes:
    frames = [picture(40 + i, 30).convert(options.pop("mode", "RGB")).resize((40, 30)) for i in range(count)]
    return saved(frames[0], format, save_all=True, append_images=frames[1:], **options)


def files() -> dict[str, bytes]:
    """GIFs and TIFFs of one and of several pictures, written in several ways."""
    found = {}
    for count in (1, 2, 7):
        found[f"GIF {count}"] = several(count, "GIF")
        found[f"GIF {count}, with comments, a loop and times"] = several(
            count, "GIF", comment=b"a comment " * 40, loop=3, duration=50, optimize=False, interlace=0
        )
        found[f"GIF {count}, grey"] = several(count, "GIF", mode="L")
        found[f"TIFF {count}"] = several(count, "TIFF")
        found[f"TIFF {count}, packed"] = several(count, "TIFF", compression="tiff_lzw")
        found[f"TIFF {count}, large offsets"] = several(count, "TIFF", big_tiff=True)
    return found


@pytest.mark.parametrize("name", files())
def test_frames_are_counted_as_pillow_counts_them(name: str) -> None:
    data = files()[name]
    with Image.open(io.BytesIO(data)) as image:
        assert inspect(data).frames == image.n_frames == int(name.split()[1].strip(","))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_whose_directories_go_in_a_circle_has_an_end(order: str) -> None:
    data = bytearray(several(3, "TIFF"))
    first = int.from_bytes(data[4:8], "little")
    assert tiff_pages(bytes(data)) == 3
    at, links = first, []
    while at:
        link = at + 2 + 12 * int.from_bytes(data[at : at + 2], "little")
        links.append(link)
        at = int.from_bytes(data[link : link + 4], "little")
    data[links[-1] : links[-1] + 4] = first.to_bytes(4, "little")
    assert tiff_pages(bytes(data)) == 3
    assert tiff_pages(b"MM\0*" + (8).to_bytes(4, "big") + b"\0\0" + (8).to_bytes(4, "big")) == 1


def test_a_hundred_thousand_frames_or_pages_are_counted_at_once() -> None:
    """D13: with Pillow's own count, the TIFF takes a minute."""
    began = time.monotonic()
    assert gif_frames(bombs.gif_chain(100_000)) == 100_001
    assert tiff_pages(bombs.tiff_chain(100_000)) == 100_001
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"II*\0", b"MM\0+\0\x08\0\0", b"GIF89a" + b"\xff" * 50])
def test_headers_alone_have_one_frame(data: bytes) -> None:
    assert gif_frames(data) == 1
    assert tiff_pages(data) == 1


class Counted(bytes):
    """Bytes that know how often one of them was looked at."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        self.looks += 1
        return super().__getitem__(at)


@pytest.mark.parametrize(
    ("rest", "most"),
    [
        (bytes(20_000_000), 10),
        (b"!\xff" + b"\x01a" * 2_000_000, 3 * MOST_BLOCKS),
        (b"!\xff\0" * 2_000_000, 3 * MOST_BLOCKS),
    ],
    ids=["zeros", "blocks of one byte", "extensions of nothing"],
)
def test_a_gif_that_goes_on_and_on_is_given_up(rest: bytes, most: int) -> None:
    """D13: 20 MB of zeros took 3.3 s."""
    data = Counted(b"GIF89a" + bytes(7) + rest)
    assert gif_frames(data) == 1
    assert data.looks <= most


def test_every_cut_is_counted_without_an_error() -> None:
    for data in (several(2, "GIF"), several(2, "TIFF")):
        for length in range(0, len(data), 7):
            gif_frames(data[:length])
            tiff_pages(data[:length])
