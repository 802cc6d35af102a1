"""Whether the bytes of a JPEG can be all of the picture that its header claims (ITU-T T.81, annexes B and F)."""

from __future__ import annotations

_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})  # markers that no length follows
_HUFFMAN = frozenset({0xC0, 0xC1, 0xC2})  # frames in which every block of 8 x 8 samples has a code
_SCAN = 0xDA


def is_too_short(data: bytes) -> bool:
    """Whether the blocks of a picture are more than the bits of its file: each takes one at least.

    Then most of them are missing, and the library that decodes would make room for all and fill them up with grey.
    """
    frame = _frame(data)
    return frame is not None and _blocks(frame) > 8 * len(data)


def _frame(data: bytes) -> bytes | None:
    """The content of the header of a Huffman-coded frame; None where there is none before the first scan."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] == 0xFF or data[at + 1] in _WITHOUT_LENGTH:
            at += 1  # a fill byte, or bytes that decoders pass over
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] in _HUFFMAN:
            return data[at + 4 : end] if end <= len(data) else None
        if data[at + 1] == _SCAN:
            return None
        at = max(end, at + 4)
    return None


def _blocks(frame: bytes) -> int:
    """Blocks of all components; 0 where the header makes no sense."""
    if len(frame) < 6 or len(frame) < 6 + 3 * frame[5]:
        return 0
    height, width = (int.from_bytes(frame[i : i + 2], "big") for i in (1, 3))
    sampling = [divmod(frame[7 + 3 * i], 16) for i in range(frame[5])]  # across, down
    across, down = (max([1, *(factors[i] for factors in sampling)]) for i in (0, 1))
    return sum(-(-width * h // (8 * across)) * -(-height * v // (8 * down)) for h, v in sampling)
