"""What a file is, judged by its first bytes; its name is never asked."""

from __future__ import annotations

import re

IMAGES = frozenset({"JPEG", "PNG", "WebP", "BMP", "GIF", "TIFF", "HEIC"})
OTHER_IMAGES = frozenset({"AVIF", "JPEG 2000", "JPEG XL", "a Photoshop file", "an icon file"})
UNKNOWN = "unknown data"

_HEAD = 1024
_DIB_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})  # the sizes a BMP's second header can have
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"})

_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"8BPS", "a Photoshop file"),
    (b"\x00\x00\x01\x00", "an icon file"),
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a Windows compound file (such as Thumbs.db)"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"SQLite format 3\x00", "a SQLite database"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"OggS", "an Ogg recording"),
    (b"ID3", "an MP3 recording"),
    (b"\x1a\x45\xdf\xa3", "a video"),
    (b"\x00\x05\x16\x07", "a macOS resource file"),
)


def sniff(data: bytes) -> str:
    """The detected type: a member of IMAGES or OTHER_IMAGES, words such as "HTML text", or UNKNOWN."""
    head = bytes(data[:_HEAD])
    if not head:
        return "nothing"
    for prefix, kind in _PREFIXES:
        if head.startswith(prefix):
            return kind
    return _container(head) or _text(head) or UNKNOWN


def _container(head: bytes) -> str | None:
    if head[:4] == b"RIFF":
        return {b"WEBP": "WebP", b"AVI ": "a video", b"WAVE": "a sound recording"}.get(head[8:12], UNKNOWN)
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _DIB_HEADERS:
        return "BMP"
    return "a tar archive" if head[257:262] == b"ustar" else None


def _iso_media(head: bytes) -> str:
    end = min(int.from_bytes(head[:4], "big"), len(head))  # a box can claim 4 GB of brands
    brands = {head[8:12], *(head[i : i + 4] for i in range(16, end, 4))}
    if brands & {b"avif", b"avis"}:  # AVIF files also list mif1, so they come first
        return "AVIF"
    return "HEIC" if brands & _HEIF_BRANDS else "a video"


def _text(head: bytes) -> str | None:
    text = _as_text(head)
    if text is None:
        return None
    start = text.lstrip("\ufeff \t\r\n").lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<body")):
        return "HTML text"
    if "<svg" in start and start.startswith(("<svg", "<?xml", "<!--", "<!doctype svg")):
        return "an SVG drawing"
    if start.startswith("<?xml"):
        return "XML text"
    if re.match(r"[{\[]\s*[\"\[{\]}]", start):
        return "JSON text"
    return "text"


def _as_text(head: bytes) -> str | None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return head.decode("utf-16", errors="replace")
    try:
        text = head[:-3].decode() if len(head) == _HEAD else head.decode()
    except UnicodeDecodeError as error:
        if error.end < len(head) - 6:  # else a character that the end of the head cut through
            return None
        text = head[: error.start].decode()
    return None if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text) else text or None
