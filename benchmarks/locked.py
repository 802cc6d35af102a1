"""Test photos that no training, choice or threshold has seen: picked by content, the same for every benchmark."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from plusx.data.source import Photo, content_hashes, scan
from plusx.images.source import read

LOCKED = "01"  # first hexadecimal digit of the SHA-256: one photo in eight


def lock_away(data: Sequence[str], work: Path) -> Path:
    """The folder with `train.tar` and `test.tar`, class folders inside, the files as they are; made once."""
    made = work / "photos"
    if made.exists():
        return made
    listing = scan(list(data))
    hashes = content_hashes(listing.photos)
    partial = work / "photos.partial"
    partial.mkdir(parents=True, exist_ok=True)
    for name, wanted in (("train", False), ("test", True)):
        chosen = [(p, h) for p, h in zip(listing.photos, hashes, strict=True) if (h[0] in LOCKED) == wanted]
        _write(partial / f"{name}.tar", listing.classes, chosen)
    return partial.rename(made)


def _write(path: Path, classes: Sequence[str], photos: Sequence[tuple[Photo, str]]) -> None:
    with tarfile.open(path, "w") as tar:
        for photo, sha256 in photos:
            entry = tarfile.TarInfo(f"{classes[photo.label or 0]}/{sha256[:16]}{Path(photo.name).suffix}")
            content = read(photo.source)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
