"""What of a PNG file is not for Pillow: chunks by name, without a look at what they hold (PNG, third edition, 5.3)."""

from __future__ import annotations

from collections.abc import Iterator

_SIGNATURE = 8  # bytes before the first chunk
_FRAME = 12  # bytes of a chunk beside its content: length, name, checksum


def without_profile(data: bytes) -> bytes:
    """A PNG without its colour profile, which is not applied (`plusx.images.colour`).

    Pillow would unpack it, and refuse the photo for a profile that is damaged or takes over a megabyte.
    """
    for start, end, name in _chunks_before_pixels(data):
        if name == b"iCCP":
            return data[:start] + data[end:]
    return data


def _chunks_before_pixels(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Start, end and name of every whole chunk up to the first with pixels."""
    start = _SIGNATURE
    while start + _FRAME <= len(data):
        name = data[start + 4 : start + 8]
        end = start + _FRAME + int.from_bytes(data[start : start + 4], "big")
        if name in (b"IDAT", b"IEND") or end > len(data):
            return
        yield start, end, name
        start = end
