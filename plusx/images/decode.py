"""The one decoder: image bytes become upright 8-bit RGB pixels, or a named reason why not.

Equal bytes give equal pixels, everywhere. Rules:

- the format is judged by content and must be on the list; the file's name is never asked;
- of several frames the first is taken;
- EXIF orientation is applied; EXIF that makes no sense is passed over;
- no more than MAX_PIXELS are decoded, and the claim is checked before memory is asked for;
- a file that ends early is refused, never filled up with grey. That holds for a JPEG that lacks
  only its end marker, too, unless the decoder had all its rows before it missed the marker:
  nothing else tells a complete picture from a cut one;
- damage inside the compressed data of a JPEG, WebP or HEIC often still decodes, to other pixels. No look at one file
  tells that: what was recorded of it before does, its SHA-256 in split.csv, for `--resume` and for `evaluate`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from plusx.errors import images as errors
from plusx.errors.images import Undecodable
from plusx.images.colour import WHITE, Background, flatten
from plusx.images.frames import gif_frames, tiff_pages
from plusx.images.jpeg import is_too_short
from plusx.images.png import without_profile
from plusx.images.sniff import IMAGES, OTHER_IMAGES, UNKNOWN, sniff

__all__ = ["MAX_PIXELS", "WHITE", "BadPhoto", "Facts", "Undecodable", "decode", "heif_version", "inspect"]
__all__ += ["sniff", "upright_rgb"]

MAX_PIXELS = 64_000_000

_ORIENTATION = 0x0112  # the EXIF and TIFF tag
_TILE = (322, 323)  # TIFF tags: the sides of a tile
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PLUGINS = {"JPEG": "Jpeg", "PNG": "Png", "WebP": "WebP", "BMP": "Bmp", "GIF": "Gif", "TIFF": "Tiff"}


@dataclass(frozen=True, slots=True)
class BadPhoto:
    """A photo without pixels. `code` is one of Undecodable's, `reason` a sentence for people."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file states about its picture; sizes in pixels, before the orientation is applied.

    `alpha`: parts of it may be transparent.
    """

    format: str
    mode: str
    width: int
    height: int
    frames: int
    orientation: int
    alpha: bool


def decode(data: bytes, background: Background = WHITE, *, draft: int = 0, most: int = MAX_PIXELS) -> Image.Image:
    """`data` as an upright RGB image; transparent parts show `background`.

    With `draft` > 0 a JPEG is decoded at 1/2, 1/4 or 1/8 of its size (libjpeg's scaled DCT), at the
    smallest of these whose short side is at least `draft` pixels. Raises Undecodable, also for a claim of over `most`
    pixels.
    """
    with _quiet(), _open(data, most) as image, _decoder_faults(data):
        if draft:
            image.draft(None, (draft, draft))
        image.load()
        _mend_transparency(image, data)
        return upright_rgb(image, background)


def upright_rgb(image: Image.Image, background: Background = WHITE) -> Image.Image:
    """A Pillow image of any mode as RGB, turned as its EXIF says."""
    flat = flatten(image, background)
    # Pillow turns TIFFs, and pi-heif HEICs, while loading; doing it again would undo that.
    turn = None if image.format in ("TIFF", "HEIF") else _TRANSPOSE.get(_exif_orientation(image))
    return flat.transpose(turn) if turn is not None else flat


def inspect(data: bytes) -> Facts:
    """What the headers of `data` state; no pixel is decoded. Raises Undecodable as `decode` does."""
    with _quiet(), _open(data) as image:
        return Facts(
            format=sniff(data),
            mode=image.mode,
            width=image.width,
            height=image.height,
            frames=_frames(image, data),
            orientation=_stated_orientation(image),
            alpha=image.has_transparency_data,
        )


def heif_version() -> str | None:
    """The version of pi-heif, which reads HEIC; None where it is not installed."""
    from importlib import metadata  # here, since every decoding process would load it for nothing

    try:
        return metadata.version("pi-heif")  # its own __version__ would load the library to be asked
    except metadata.PackageNotFoundError:
        return None


def _open(data: bytes, most: int = MAX_PIXELS) -> Image.Image:
    kind = _known_kind(data)
    with _decoder_faults(data):
        content = without_profile(data) if kind == "PNG" else data
        image = Image.open(io.BytesIO(content), formats=[_registered_format(kind)])
    if image.width * image.height > most:
        raise errors.too_many_pixels(image.width, image.height, most)
    if kind == "JPEG" and is_too_short(data):
        raise errors.truncated(kind, len(data))
    if kind == "TIFF":
        _refuse_large_tile(image, most)
    return image


def _refuse_large_tile(image: Image.Image, most: int) -> None:
    """A tile is unpacked whole, however little of it is in the picture."""
    tags = getattr(image, "tag_v2", {})
    width, height = (tags.get(tag, 0) for tag in _TILE)
    if not (isinstance(width, int) and isinstance(height, int)):
        raise errors.damaged("TIFF", "its tiles have no size")
    if width * height > most:
        raise errors.large_tile(most)


def _known_kind(data: bytes) -> str:
    if not data:
        raise errors.empty()
    kind = sniff(data)
    if kind in IMAGES:
        return kind
    if kind == UNKNOWN:
        raise errors.unknown_content()
    raise errors.unsupported(kind) if kind in OTHER_IMAGES else errors.not_an_image(kind)


def _registered_format(kind: str) -> str:
    # Importing the one plugin spares Pillow's search through all of them.
    if kind != "HEIC":
        importlib.import_module(f"PIL.{_PLUGINS[kind]}ImagePlugin")
        return kind.upper()
    if heif_version() is None:
        raise errors.needs_heif()
    importlib.import_module("pi_heif").register_heif_opener()
    return "HEIF"


@contextlib.contextmanager
def _decoder_faults(data: bytes) -> Iterator[None]:
    try:
        yield
    except Undecodable:
        raise
    except Image.DecompressionBombError:
        raise errors.bomb(MAX_PIXELS) from None
    except MemoryError:
        raise errors.out_of_memory() from None
    except Exception as error:  # a hostile file can reach any line of a plugin, and so any exception
        if "PngImagePlugin.MAX_TEXT" in str(error) or "MAX_TEXT_MEMORY" in str(error):
            raise errors.text_bomb() from error
        if "truncated" in str(error).lower() or _ends_early(data):
            raise errors.truncated(sniff(data), len(data)) from error
        raise errors.damaged(sniff(data), _detail(error)) from error


def _detail(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text shows an address in memory
        return "its headers make no sense"
    words = " ".join(str(error).split())[:200]
    return "".join(letter if letter.isprintable() else "?" for letter in words)


def _ends_early(data: bytes) -> bool:
    """Whether the file's own structure says that bytes are missing; asked only once decoding has failed."""
    kind = sniff(data)
    if kind == "JPEG":
        return data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda")  # no end marker after the last start of scan
    if kind == "PNG":
        return b"IEND" not in data[-16:]
    if kind == "WebP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    if kind == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    return kind == "HEIC" and _boxes_end_early(data)


def _boxes_end_early(data: bytes) -> bool:
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if size < 8:  # 0 reaches to the end of the file by definition; the rest is nonsense
            return False
        position += size
    return position != len(data)


def _mend_transparency(image: Image.Image, data: bytes) -> None:
    # Pillow widens or narrows a PNG's samples to 8 bits but leaves its one transparent colour as it was.
    clear = image.info.get("transparency")
    if image.format != "PNG" or len(data) < 25 or isinstance(clear, bytes):
        return
    depth = data[24]
    if image.mode == "L" and isinstance(clear, int) and depth in (2, 4):
        image.info["transparency"] = clear * (255 // (2**depth - 1))
    elif image.mode == "RGB" and isinstance(clear, tuple) and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _exif_orientation(image: Image.Image) -> int:
    raw = image.info.get("exif")
    if not raw:
        return 1
    exif = Image.Exif()
    try:
        exif.load(raw)
        value = exif.get(_ORIENTATION, 1)
    except Exception:  # EXIF is decoration: whatever is wrong with it costs nothing but the turn
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _stated_orientation(image: Image.Image) -> int:
    if image.format != "TIFF":
        return _exif_orientation(image)
    value = getattr(image, "tag_v2", {}).get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _frames(image: Image.Image, data: bytes) -> int:
    if image.format in ("GIF", "TIFF"):
        return gif_frames(data) if image.format == "GIF" else tiff_pages(data)
    try:
        return max(1, int(getattr(image, "n_frames", 1)))
    except Exception:  # damage after the first frame is no concern of ours
        return 1


class _Quiet:
    """Pillow's warnings are not for our users: what matters in them we raise.

    The interpreter has one list of warning filters, so threads that decode together share one change of it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.saved: warnings.catch_warnings[None] | None = None

    def __enter__(self) -> None:
        with self.lock:
            self.users += 1
            if self.users == 1:
                self.saved = warnings.catch_warnings()
                self.saved.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0 and self.saved is not None:
                self.saved.__exit__(None, None, None)
                self.saved = None


_QUIET = _Quiet()


def _quiet() -> _Quiet:
    return _QUIET
