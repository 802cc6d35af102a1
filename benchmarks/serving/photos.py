"""The photos that are sent, and the bytes of the requests that carry them."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from plusx import keyed

BOUNDARY = "photo-4cd1a9e07b"
JPEG = (".jpg", ".jpeg")


def read(source: Path, seed: int = 0) -> list[bytes]:
    """The JPEGs of a tar or a folder in keyed order. Raises ValueError where there are none."""
    found = _of_tar(source) if source.is_file() else _of_folder(source)
    if not found:
        raise ValueError(f"{source} has no JPEGs")
    return [found[place] for place in keyed.permutation(seed, 0, len(found), "load")]


def _of_tar(source: Path) -> list[bytes]:
    with tarfile.open(source) as tar:
        members = sorted((m for m in tar if m.isfile() and m.name.lower().endswith(JPEG)), key=lambda m: m.name)
        files = [tar.extractfile(member) for member in members]
        return [file.read() for file in files if file is not None]


def _of_folder(source: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(source.rglob("*")) if path.suffix.lower() in JPEG]


def requests(photos: Sequence[bytes], path: str, address: tuple[str, int], *, multipart: bool) -> list[bytes]:
    """One whole HTTP/1.1 POST for every photo: its bytes as the body, or as the file `photo` of a form."""
    return [request(photo, path, address, multipart=multipart) for photo in photos]


def request(photo: bytes, path: str, address: tuple[str, int], *, multipart: bool) -> bytes:
    """The POST that carries one photo."""
    kind, body = ("multipart/form-data; boundary=" + BOUNDARY, _form(photo)) if multipart else ("image/jpeg", photo)
    lines = (
        f"POST {path} HTTP/1.1",
        f"Host: {address[0]}:{address[1]}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "\r\n",
    )
    return "\r\n".join(lines).encode() + body


def _form(photo: bytes) -> bytes:
    disposition = 'Content-Disposition: form-data; name="photo"; filename="photo.jpg"'
    head = f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: image/jpeg\r\n\r\n"
    return head.encode() + photo + f"\r\n--{BOUNDARY}--\r\n".encode()
