"""A JPEG that cannot hold the picture it claims is refused before room is made for it; no whole one is (D01, D13)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from PIL import Image

from plusx.images.decode import Undecodable, decode
from plusx.images.jpeg import is_too_short
from tests.images import bombs
from tests.images.bombs import saved

WAYS: list[dict[str, Any]] = [
    {"progressive": p, "optimize": o, "subsampling": s, "quality": q}
    for p, o, s, q in itertools.product((False, True), (False, True), (0, 2), (1, 95))
]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_not_even_the_emptiest_picture_is_too_short(mode: str) -> None:
    """The control: one colour, as small as it can be coded."""
    flat = Image.new(mode, (1200, 900))
    for options in WAYS:
        data = saved(flat, "JPEG", **options)
        assert not is_too_short(data), options
        assert decode(data).size == (1200, 900)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_picture_that_is_mostly_missing_is_cut_off_whatever_stands_at_its_end(progressive: bool) -> None:
    """D01: an end marker after a hundredth of the picture; it would have been filled up with grey."""
    data = bombs.jpeg(6_000, 6_000, progressive=progressive)
    assert data.endswith(b"\xff\xd9")
    with pytest.raises(Undecodable) as caught:
        decode(data)
    assert (caught.value.code, caught.value.reason.startswith("the JPEG is cut off: its ")) == ("truncated", True)


def test_headers_that_make_no_sense_are_left_to_the_decoder() -> None:
    whole = saved(Image.new("RGB", (64, 64)), "JPEG")
    for length in range(0, len(whole), 5):
        is_too_short(whole[:length])
    arithmetic = bytearray(bombs.jpeg(8_000, 8_000))
    arithmetic[arithmetic.index(b"\xff\xc0") + 1] = 0xC9
    assert not is_too_short(bytes(arithmetic)), "arithmetic codes may take less than a bit"
    assert not is_too_short(b"\xff\xd8" + b"\xff" * 50)
    assert not is_too_short(b"\xff\xd8\xff\xc0\x00\x00\xff\xc0\x00\x01")
