"""Real HEIC files without an encoder: every block is coded as its own samples (ITU-T H.265, pcm_flag).

One picture of 16 x 16 blocks in 4:2:0, in the container of ISO/IEC 23008-12. Nothing is predicted or
transformed, so a decoder gives exactly the samples that went in.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

BLOCK = 16
LPS = (240, 227, 216, 205, 195, 185, 175, 166)  # table 9-52, column 3: all that is needed by a few blocks

Samples = npt.NDArray[np.uint8]


class Bits:
    """Bits, most significant first, with H.265's codes for numbers."""

    def __init__(self) -> None:
        self.bits: list[int] = []

    def put(self, value: int, count: int = 1) -> None:
        self.bits += [(value >> i) & 1 for i in reversed(range(count))]

    def ue(self, *values: int) -> None:
        for value in values:
            self.put(value + 1, 2 * (value + 1).bit_length() - 1)

    def align(self) -> None:
        self.put(0, -len(self.bits) % 8)

    def done(self) -> bytes:
        self.put(1)
        self.align()
        return np.packbits(self.bits).tobytes()


class Coder:
    """The arithmetic encoder of section 9.3.5, for the two kinds of bins that are needed."""

    def __init__(self, out: Bits) -> None:
        self.out, self.state = out, 0  # part_mode starts in state 0 with 1 as the likely value
        self.restart()

    def restart(self) -> None:
        self.low, self.range, self.first, self.outstanding = 0, 510, True, 0

    def likely(self) -> None:
        self.range -= LPS[self.state]
        self.state += 1
        assert self.range >= 256, "no bit is due yet"

    def terminate(self, value: int) -> None:
        self.range -= 2
        if value:
            self.low += self.range
            self.range = 2
            while self.range < 256:
                self._shift()
            self._put((self.low >> 9) & 1)
            self.out.put((self.low >> 7) & 3 | 1, 2)

    def _shift(self) -> None:
        if self.low < 256:
            self._put(0)
        elif self.low >= 512:
            self.low -= 512
            self._put(1)
        else:
            self.low -= 256
            self.outstanding += 1
        self.range, self.low = self.range << 1, self.low << 1

    def _put(self, bit: int) -> None:
        if not self.first:
            self.out.put(bit)
        self.first = False
        for _ in range(self.outstanding):
            self.out.put(1 - bit)
        self.outstanding = 0


def heic(luma: Samples, blue: int = 128, red: int = 128, turns: int = 0) -> bytes:
    """A HEIC of `luma` [H, W], multiples of 16, with one Cb and Cr; shown turned left by `turns` right angles."""
    height, width = luma.shape
    slice_ = struct.pack(">I", len(nal := _nal(20, _slice(luma, blue, red)))) + nal
    parameters = (_nal(32, _video()), _nal(33, _sequence(width, height)), _nal(34, _picture()))
    config = struct.pack(
        ">BBIIHBHBBBBHBB", 1, 3, 0x70000000, 0x90000000, 0, 30, 0xF000, 0xFC, 0xFD, 0xF8, 0xF8, 0, 15, 3
    )
    for nal in parameters:
        config += struct.pack(">BHH", 0x80 | nal[0] >> 1, 1, len(nal)) + nal
    properties = (
        _box("hvcC", config)
        + _box("ispe", struct.pack(">III", 0, width, height))
        + _box("colr", b"nclx" + struct.pack(">HHHB", 1, 13, 6, 0x80))  # BT.601, full range
        + _box("irot", bytes([turns]))
    )
    head = _box("ftyp", b"heic\0\0\0\0mif1heic")
    size = len(head) + len(_meta(properties, 0, 0)) + 8
    return head + _meta(properties, size, len(slice_)) + _box("mdat", slice_)


def _meta(properties: bytes, offset: int, length: int) -> bytes:
    item = _box("infe", b"\x02\0\0\0" + struct.pack(">HH4s", 1, 0, b"hvc1") + b"\0")
    uses = struct.pack(">IIHB", 0, 1, 1, 4) + bytes([0x81, 2, 3, 0x84])
    return _box(
        "meta",
        bytes(4)
        + _box("hdlr", bytes(8) + b"pict" + bytes(13))
        + _box("pitm", struct.pack(">IH", 0, 1))
        + _box("iinf", struct.pack(">IH", 0, 1) + item)
        + _box("iprp", _box("ipco", properties) + _box("ipma", uses))
        + _box("iloc", struct.pack(">IBBHHHHII", 0, 0x44, 0, 1, 1, 0, 1, offset, length)),
    )


def _box(name: str, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + name.encode() + body


def _nal(kind: int, payload: bytes) -> bytes:
    out, zeros = bytearray([kind << 1, 1]), 0
    for byte in payload:
        if zeros == 2 and byte <= 3:
            out.append(3)  # else two zeros and this byte would look like the start of another unit
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)


def _profile(bits: Bits) -> None:
    bits.put(3, 8)  # Main Still Picture
    bits.put(0x70000000, 32)
    bits.put(0b1001, 4)
    bits.put(0, 44)
    bits.put(30, 8)


def _video() -> bytes:
    bits = Bits()
    bits.put(0b0000_11_000000_000_1, 16)
    bits.put(0xFFFF, 16)
    _profile(bits)
    bits.put(1)
    bits.ue(0, 0, 0)
    bits.put(0, 6)
    bits.ue(0)
    bits.put(0, 2)
    return bits.done()


def _sequence(width: int, height: int) -> bytes:
    bits = Bits()
    bits.put(0b0000_000_1, 8)
    _profile(bits)
    bits.ue(0, 1, width, height)  # 4:2:0
    bits.put(0)
    bits.ue(0, 0, 0)
    bits.put(1)
    bits.ue(0, 0, 0)
    bits.ue(1, 0, 0, 2, 0, 0)  # blocks of 16, transforms of 4 to 16
    bits.put(0b000_1, 4)  # of scaling lists, AMP, SAO and PCM only the last
    bits.put(0x77, 8)
    bits.ue(1, 0)
    bits.put(1)
    bits.ue(0)
    bits.put(0, 5)
    return bits.done()


def _picture() -> bytes:
    bits = Bits()
    bits.ue(0, 0)
    bits.put(0, 7)
    bits.ue(0, 0, 0)
    bits.put(0, 3)
    bits.ue(0, 0)
    bits.put(0, 7)
    bits.put(0b1_0_1, 3)  # no deblocking
    bits.put(0, 2)
    bits.ue(0)
    bits.put(0, 2)
    return bits.done()


def _slice(luma: Samples, blue: int, red: int) -> bytes:
    bits = Bits()
    bits.put(0b10, 2)
    bits.ue(0, 2, 0)
    bits.put(1)
    bits.align()
    coder = Coder(bits)
    corners = [(y, x) for y in range(0, luma.shape[0], BLOCK) for x in range(0, luma.shape[1], BLOCK)]
    for y, x in corners:
        coder.likely()  # part_mode: one block, not four
        coder.terminate(1)  # pcm_flag
        bits.align()
        chroma = bytes([blue]) * (BLOCK**2 // 4) + bytes([red]) * (BLOCK**2 // 4)
        for sample in luma[y : y + BLOCK, x : x + BLOCK].tobytes() + chroma:
            bits.put(sample, 8)
        coder.restart()
        coder.terminate((y, x) == corners[-1])
    bits.bits.pop()  # the end of the arithmetic code is the stop bit that done() puts
    return bits.done()
