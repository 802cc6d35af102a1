"""How many frames a GIF or pages a TIFF has, by what links them: nothing is decoded, and time grows with size alone.

Pillow looks through all directories it has seen for every further one of a TIFF, and reads every frame of a GIF: a file
of few megabytes could keep it busy for minutes over a number that is only told.
"""

from __future__ import annotations

from typing import Literal

MOST_BLOCKS = 1_000_000  # of a GIF: 255 MB of pictures; of smaller ones, half a second

_IMAGE, _EXTENSION = 0x2C, 0x21  # what may follow in a GIF (GIF89a, sections 20 and 24) before its trailer
_HAS_PALETTE = 0x80


def gif_frames(data: bytes) -> int:
    """Image descriptors of a GIF, at least 1, before a byte that begins nothing, and within MOST_BLOCKS."""
    at, count, left = 13 + _palette(data, 10), 0, MOST_BLOCKS
    while left > 0 and at + 9 < len(data) and data[at] in (_IMAGE, _EXTENSION):
        is_image = data[at] == _IMAGE
        count += is_image
        at, left = _after_blocks(data, at + 11 + _palette(data, at + 9) if is_image else at + 2, left - 1)
    return max(1, count)


def tiff_pages(data: bytes) -> int:
    """Directories of a TIFF that lead from one to the next, at least 1 (TIFF 6.0, section 2; BigTIFF)."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    large = 43 in data[2:4]
    first, width, counted, entry = (8, 8, 8, 20) if large else (4, 4, 2, 12)
    seen, at = set[int](), int.from_bytes(data[first : first + width], order)
    while at and at not in seen and at + counted <= len(data):
        seen.add(at)
        link = at + counted + entry * int.from_bytes(data[at : at + counted], order)
        at = int.from_bytes(data[link : link + width], order) if link + width <= len(data) else 0
    return max(1, len(seen))


def _palette(data: bytes, flags: int) -> int:
    """Bytes of the palette that the flags at a position announce."""
    told = data[flags] if flags < len(data) else 0
    return 3 << (told & 7) + 1 if told & _HAS_PALETTE else 0


def _after_blocks(data: bytes, at: int, left: int) -> tuple[int, int]:
    """Where the blocks end that begin at a position, each with its length in front, the last of none.

    And how many are `left` of those that may be gone through.
    """
    while left > 0 and at < len(data) and data[at]:
        at, left = at + 1 + data[at], left - 1
    return at + 1, left
