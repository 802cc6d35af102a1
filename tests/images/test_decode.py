"""The decoder: which bytes become pixels, which pixels, and what is said of the others."""

from __future__ import annotations

import importlib.metadata
import io
import struct
import threading
import time
import warnings
import zipfile
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plusx.errors import DataError
from plusx.images import decode as module
from plusx.images.decode import Undecodable, decode, inspect, sniff
from tests.images.heic import heic


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def noise(width: int = 61, height: int = 47) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def pixels(data: bytes, **options: Any) -> np.ndarray[Any, Any]:
    return np.asarray(decode(data, **options))


def refusal(data: bytes) -> Undecodable:
    with pytest.raises(Undecodable) as caught:
        decode(data)
    return caught.value


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    clear = chunk(b"tRNS", extra) if extra else b""
    return b"\x89PNG\r\n\x1a\n" + header + clear + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_every_format_is_read_by_content(format: str) -> None:
    """D06: the name is never asked."""
    options = {"lossless": True} if format == "WEBP" else {}
    flat = Image.new("RGB", (20, 10), (10, 200, 30))
    image = decode(saved(flat, format, **options))
    assert (image.mode, image.size) == ("RGB", (20, 10))
    assert np.abs(np.asarray(image).astype(int) - (10, 200, 30)).max() <= (2 if format == "JPEG" else 0)


def test_a_lossless_picture_keeps_every_pixel() -> None:
    assert np.array_equal(pixels(saved(noise(), "PNG")), np.asarray(noise()))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_each_exif_orientation_is_turned_upright(orientation: int, format: str) -> None:
    """D10."""
    # Four flat quarters, upright: red green / blue white; each orientation stores them another way.
    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:16, :32], upright[:16, 32:], upright[16:, :32], upright[16:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    upright[16:, :32] = (0, 0, 255)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],  # the camera was turned: rotate by 90 degrees clockwise to view
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    data = saved(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif, **options)
    assert np.abs(pixels(data).astype(int) - upright).max() <= 2
    assert inspect(data).orientation == orientation


@pytest.mark.parametrize("body", [b"garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff\1\x12"])
def test_bad_exif_is_passed_over(body: bytes) -> None:
    """D10."""
    data = saved(noise(), "JPEG", exif=b"Exif\0\0" + body)
    assert decode(data).size == (61, 47)
    assert inspect(data).orientation == 1


def test_an_orientation_out_of_range_is_passed_over() -> None:
    """D10."""
    exif = Image.Exif()
    exif[0x0112] = 9
    assert decode(saved(noise(), "JPEG", exif=exif)).size == (61, 47)


def test_a_cmyk_jpeg_has_its_colours() -> None:
    """D07."""
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow make red
    assert np.abs(pixels(saved(ink, "JPEG", quality=100)).astype(int) - (255, 0, 0)).max() <= 3


def test_a_ycck_jpeg_has_its_colours() -> None:
    """D07."""
    # Pillow writes no YCCK, but four channels whose Adobe marker says 2 are YCCK. Adobe stores inks inverted, so
    # the Y, Cb and Cr of the amounts of ink themselves: red is no cyan, all magenta, all yellow.
    ink = Image.new("RGB", (1, 1), (0, 255, 255)).convert("YCbCr").getpixel((0, 0))
    assert isinstance(ink, tuple)
    stored = Image.new("CMYK", (16, 16), (255 - ink[0], 255 - ink[1], 255 - ink[2], 0))
    data = bytearray(saved(stored, "JPEG", quality=100))
    data[data.index(b"Adobe") + 11] = 2
    assert np.abs(pixels(bytes(data)).astype(int) - (255, 0, 0)).max() <= 4


def test_16_bit_grey_png_is_scaled_not_clipped() -> None:
    """D08."""
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    data = saved(Image.fromarray(values), "PNG")
    assert pixels(data)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_16_bit_grey_tiff_is_scaled_in_both_byte_orders() -> None:
    """D08."""
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    assert pixels(saved(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 1, 128, 255]
    big = Image.frombytes("I;16B", (4, 1), values.astype(">u2").tobytes())
    assert pixels(saved(big, "TIFF"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_tiff_that_calls_zero_white_is_inverted() -> None:
    """D08."""
    data = bytearray(saved(Image.fromarray(np.array([[0, 257, 65535]], np.uint16)), "TIFF"))
    tag = data.index(struct.pack("<HHI", 262, 3, 1))
    data[tag + 8] = 0
    assert pixels(bytes(data))[0, :, 0].tolist() == [255, 254, 0]


def test_16_bit_rgb_png_is_scaled_not_clipped() -> None:
    """D08."""
    values = np.array([[[0, 32768, 65535], [257, 514, 2570]]], ">u2")
    data = png(2, 1, 16, 2, b"\0" + values.tobytes())
    assert pixels(data).tolist() == [[[0, 128, 255], [1, 2, 10]]]


def test_16_bit_grey_png_with_a_transparent_grey_shows_the_background() -> None:
    """D08, D09."""
    values = np.array([[4096, 65535]], ">u2")
    data = png(2, 1, 16, 0, b"\0" + values.tobytes(), struct.pack(">H", 4096))
    assert pixels(data, background=(9, 8, 7)).tolist() == [[[9, 8, 7], [255, 255, 255]]]


def test_16_bit_rgb_png_with_a_transparent_colour_shows_the_background() -> None:
    """D08, D09."""
    values = np.array([[[65535, 0, 0], [0, 65535, 0]]], ">u2")
    data = png(2, 1, 16, 2, b"\0" + values.tobytes(), struct.pack(">HHH", 65535, 0, 0))
    assert pixels(data, background=(9, 8, 7)).tolist() == [[[9, 8, 7], [0, 255, 0]]]


def test_a_2_bit_grey_png_with_a_transparent_grey_shows_the_background() -> None:
    """D09."""
    data = png(4, 1, 2, 0, b"\0\x1b", struct.pack(">H", 2))  # samples 0 1 2 3
    assert pixels(data, background=(9, 9, 9))[0, :, 0].tolist() == [0, 85, 9, 255]


def test_32_bit_integers_and_floats_follow_the_stated_rule() -> None:
    """D08."""

    def grey(values: Any) -> list[int]:
        image = Image.fromarray(np.array([values]))
        return pixels(saved(image, "TIFF"))[0, :, 0].tolist()

    assert grey(np.array([0, 100, 255, -5], np.int32)) == [0, 100, 255, 0]
    assert grey(np.array([0, 32768, 65535], np.int32)) == [0, 128, 255]
    assert grey(np.array([0.0, 0.5, 1.0, np.nan], np.float32)) == [0, 128, 255, 0]
    assert grey(np.array([0.0, 51.0, 255.0], np.float32)) == [0, 51, 255]
    assert grey(np.array([0.0, 1e6], np.float32)) == [0, 255]


def test_transparency_is_laid_over_the_background() -> None:
    """D09."""
    half = Image.new("RGBA", (2, 1), (200, 100, 0, 128))
    half.putpixel((1, 0), (200, 100, 0, 0))
    data = saved(half, "PNG")
    assert np.abs(pixels(data).astype(int) - [[[227, 177, 127], [255, 255, 255]]]).max() <= 1
    assert np.abs(pixels(data, background=(0, 0, 0)).astype(int) - [[[100, 50, 0], [0, 0, 0]]]).max() <= 1
    grey = Image.new("LA", (1, 1), (0, 0))
    assert pixels(saved(grey, "PNG"), background=(1, 2, 3)).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\x80"])
def test_a_palette_with_transparency_is_laid_over_the_background(transparency: int | bytes) -> None:
    """D09."""
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    shown = pixels(saved(image, "PNG", transparency=transparency), background=(0, 0, 0))[0].astype(int)
    blue = 255 if isinstance(transparency, int) else 128
    assert np.abs(shown - [[255, 0, 0], [0, 0, 0], [0, 0, blue]]).max() <= 1


def test_palette_one_bit_and_grey_become_rgb() -> None:
    """D09."""
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    assert pixels(saved(image, "PNG")).tolist() == [[[255, 0, 0], [0, 255, 0]]]
    one = Image.new("1", (2, 1))
    one.putpixel((1, 0), 255)
    assert pixels(saved(one, "PNG")).tolist() == [[[0, 0, 0], [255, 255, 255]]]
    assert pixels(saved(Image.new("L", (1, 1), 77), "PNG")).tolist() == [[[77, 77, 77]]]


def test_lab_becomes_the_colour_it_names() -> None:
    """D09."""
    lab = Image.frombytes("LAB", (1, 1), bytes([138, 81, 70]))  # L 54, a +81, b +70: sRGB red, by CIELAB under D50
    assert np.abs(pixels(saved(lab, "TIFF")).astype(int) - (255, 0, 0)).max() <= 8
    assert pixels(saved(Image.frombytes("LAB", (1, 1), bytes([255, 0, 0])), "TIFF")).min() >= 253


def test_a_pa_image_given_as_an_object_is_flattened() -> None:
    image = Image.new("RGBA", (1, 1), (0, 0, 0, 0)).convert("PA")
    assert np.asarray(module.upright_rgb(image, (5, 6, 7))).tolist() == [[[5, 6, 7]]]


def test_an_animation_gives_its_first_frame() -> None:
    """D11."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(data)[0, 0].tolist() == [255, 0, 0]
    assert inspect(data).frames == 2


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_or_pages_the_first_counts(format: str) -> None:
    """D11."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert (pixels(data) == (255, 0, 0)).all()
    assert inspect(data).frames == 3


def test_a_reduced_jpeg_is_never_below_the_asked_side() -> None:
    data = saved(noise(800, 600), "JPEG")
    assert decode(data, draft=300).size == (400, 300)
    assert decode(data, draft=301).size == (800, 600)
    assert decode(data, draft=140).size == (200, 150)


def test_an_empty_file_is_named_so() -> None:
    """D04."""
    error = refusal(b"")
    assert error.code == "empty"
    assert error.reason == "the file is empty (0 bytes); copy or download it again, or remove it"
    assert isinstance(error, DataError)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.95, 0.99])
def test_a_truncated_photo_is_named_with_its_reason(format: str, share: float) -> None:
    """D01, D03."""
    data = saved(noise(200, 150), format)
    half = data[: int(len(data) * share)]
    error = refusal(half)
    kind = "WebP" if format == "WEBP" else format
    assert error.code == "truncated"
    assert error.reason == (
        f"the {kind} is cut off: its {len(half):,} bytes end before the picture does; copy or download it again"
    )


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_tiff_is_refused(compression: str, share: float) -> None:
    """D03: its directory may stand before or behind the pixels, so what is missing may be either."""
    data = saved(noise(200, 150), "TIFF", compression=compression)
    assert refusal(data[: int(len(data) * share)]).code in {"truncated", "unreadable"}


def test_a_png_with_a_wrong_checksum_is_refused() -> None:
    """D03: of its header, and that of its pixels which zlib keeps itself; a flipped bit is seen wherever it is."""
    whole, rng = saved(noise(), "PNG"), np.random.default_rng(4)
    for at in (29, *rng.integers(whole.index(b"IDAT") + 6, len(whole) - 16, 50)):
        data = bytearray(whole)
        data[at] ^= 1 << rng.integers(8)
        error = refusal(bytes(data))
        assert error.code in {"unreadable", "truncated"}
        assert error.reason.startswith(("the PNG is damaged", "the PNG is cut off"))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_byte_or_a_header_alone_is_refused(format: str) -> None:
    """D04."""
    data = saved(noise(), format)
    for length in (1, 2, 4, 8, 12, 20):
        assert refusal(data[:length]).code in {"truncated", "unreadable", "not-an-image"}


def test_a_truncated_progressive_jpeg_is_refused() -> None:
    """D01."""
    data = saved(noise(200, 150), "JPEG", progressive=True)
    assert refusal(data[: len(data) // 2]).code == "truncated"


def test_a_jpeg_without_its_end_marker_is_refused_unless_every_row_had_come() -> None:
    """D01."""
    codes = []
    for side in range(8, 40):
        data = saved(noise(side, side).convert("CMYK"), "JPEG")
        try:
            shown = pixels(data[:-2])
        except Undecodable as error:
            codes.append(error.code)
        else:
            assert np.array_equal(shown, pixels(data))
    assert set(codes) == {"truncated"}
    assert len(codes) > 16


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML text"),
        (b'\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b'<?xml version="1.0"?><svg/>', "an SVG drawing"),
        (b"<?xml version='1.0'?><a/>", "XML text"),
        (b"%PDF-1.7\n", "a PDF"),
        (b'{"error": 404}', "JSON text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "text"),
        ("größe ist egal, ".encode() * 200, "text"),
        (b"BMW is a car", "text"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "a Windows compound file (such as Thumbs.db)"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video"),
    ],
)
def test_what_is_no_image_is_named_as_what_it_is(data: bytes, kind: str) -> None:
    """D05."""
    error = refusal(data)
    assert sniff(data) == kind
    assert error.code == "not-an-image"
    assert error.reason == f"the content looks like {kind}, not like a picture; remove it or replace it by a photo"


@pytest.mark.parametrize("size", [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x01"])
def test_a_box_that_claims_gigabytes_of_brands_is_judged_at_once(size: bytes) -> None:
    """D13: found by campaigns/fuzz.py, which waited for a billion steps over 24 bytes."""
    began = time.monotonic()
    assert sniff(size + b"ftypheic" + bytes(12)) == "HEIC"
    assert sniff(size + b"ftypmp42" + bytes(4) + b"isom") == "a video"
    assert time.monotonic() - began < 1


def test_a_zip_is_named_as_one() -> None:
    """D05."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jpg", b"x")
    assert refusal(file.getvalue()).code == "not-an-image"


def test_an_image_format_off_the_list_is_named() -> None:
    """D05."""
    error = refusal(saved(noise(), "JPEG2000"))
    assert error.code == "unreadable"
    assert error.reason.startswith("the content looks like JPEG 2000, which plusx does not read; save it as JPEG, PNG")
    assert sniff(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf") == "AVIF"


def test_unknown_bytes_are_unreadable() -> None:
    error = refusal(np.random.default_rng(1).bytes(2000))
    assert error.code == "unreadable"
    assert error.reason.startswith("the content is of no known format (JPEG, PNG, WebP")


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"II*\0", b"RIFF\x10\0\0\0WEBP", b"GIF89a", b"\xff\xd8\xff"])
def test_headers_before_nonsense_give_a_reason_and_no_other_error(start: bytes) -> None:
    """D04."""
    for seed in range(20):
        assert refusal(start + np.random.default_rng(seed).bytes(300)).code in {"unreadable", "truncated", "too-large"}


def test_a_damaged_photo_never_raises_anything_else() -> None:
    """D02, D25."""
    rng = np.random.default_rng(2)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        whole = saved(noise(), format)
        for _ in range(40):
            data = bytearray(whole)
            for at in rng.integers(0, len(data), 8):
                data[at] = rng.integers(0, 256)
            try:
                decode(bytes(data))
            except Undecodable as error:
                assert error.reason.isprintable()  # noqa: PT017 - most decode, and may


def test_a_picture_over_the_limit_is_refused_before_memory_is_asked_for() -> None:
    """D13."""
    data = png(8001, 8000, 8, 2, b"")
    error = refusal(data)
    assert error.code == "too-large"
    assert error.reason == "the picture claims 8,001 x 8,000 pixels and at most 64 million are read; save it smaller"


def test_a_decompression_bomb_is_refused_without_a_warning() -> None:
    """D13."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert refusal(png(10_000, 10_000, 8, 2, b"")).code == "too-large"  # here Pillow warns
        assert refusal(png(60_000, 60_000, 8, 2, b"")).code == "too-large"  # here it raises
        decode(saved(noise(), "PNG"))
    assert heard == []


def test_decoding_in_threads_leaves_the_warning_filters_as_they_were() -> None:
    before = list(warnings.filters)
    data = saved(noise(), "JPEG")
    threads = [threading.Thread(target=lambda: [decode(data) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def test_heic_without_its_extra_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """D05."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "pi-heif":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    error = refusal(heic(shades()))
    assert error.code == "unreadable"
    assert error.reason == (
        "the content is a HEIC or HEIF picture, which needs an extra: pip install 'plusx[heif]', or save it as JPEG"
    )


def shades() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (32, 48), dtype=np.uint8)


def test_a_heic_gives_its_very_samples() -> None:
    pytest.importorskip("pi_heif")
    shown = pixels(heic(shades()))
    assert np.array_equal(shown, np.repeat(shades()[:, :, None], 3, axis=2))
    facts = inspect(heic(shades()))
    assert (facts.format, facts.mode, facts.width, facts.height) == ("HEIC", "RGB", 48, 32)


def test_a_heic_has_its_colours() -> None:
    pytest.importorskip("pi_heif")
    red = heic(np.full((16, 16), 76, np.uint8), blue=85, red=255)  # BT.601: Y 76, Cb 85, Cr 255
    assert np.abs(pixels(red).astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_heic_is_turned_once(turns: int) -> None:
    pytest.importorskip("pi_heif")
    assert np.array_equal(pixels(heic(shades(), turns=turns))[:, :, 0], np.rot90(shades(), turns))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_cut_heic_is_named_with_its_reason(share: float) -> None:
    """D03."""
    pytest.importorskip("pi_heif")
    data = heic(shades())
    assert refusal(data[: int(len(data) * share)]).reason.startswith("the HEIC is cut off: its ")


def test_heic_nonsense_is_refused() -> None:
    pytest.importorskip("pi_heif")
    assert refusal(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50)).code in {"unreadable", "truncated"}


def test_inspect_states_the_facts_without_decoding() -> None:
    data = saved(noise(200, 150), "JPEG")
    facts = inspect(data[: len(data) // 2])
    assert (facts.format, facts.mode, facts.width, facts.height, facts.frames, facts.orientation) == (
        "JPEG", "RGB", 200, 150, 1, 1,
    )  # fmt: skip
