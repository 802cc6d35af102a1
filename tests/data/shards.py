"""Small sets of photos in every layout, and shards of them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from plusx.data.survey import survey
from plusx.verbs.shard import ShardReport, shard

KINDS = {"jpg": "JPEG", "png": "PNG", "webp": "WebP", "bmp": "BMP", "gif": "GIF", "tif": "TIFF"}


def photo(number: int, ending: str = "png") -> bytes:
    """A picture that no other number has."""
    picture = io.BytesIO()
    image = Image.new("RGB", (8, 8), (number % 256, 40 * number % 256, 90))
    image.putpixel((number % 8, 3), (255, 255 - number % 256, 0))
    image.save(picture, KINDS[ending])
    return picture.getvalue()


def put(path: Path, number: int) -> None:
    """A photo as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(photo(number, path.suffix[1:]))


def folder(root: Path, prefix: str = "", first: int = 0, each: int = 4) -> Path:
    """Class folders of photos of every kind that is read."""
    endings = list(KINDS)
    for label, name in enumerate(("cat", "dog")):
        for i in range(each):
            number = first + each * label + i
            put(root / prefix / name / f"{number}.{endings[number % len(endings)]}", number)
    return root


def with_splits(root: Path) -> Path:
    """train/, val/ and test/ of class folders."""
    for place, name in enumerate(("train", "val", "test")):
        folder(root, name, first=20 * place)
    return root


def flat(root: Path) -> Path:
    """cat.0.jpg and so on."""
    for number in range(8):
        put(root / f"{('cat', 'dog')[number % 2]}.{number}.jpg", number)
    return root


def table(root: Path) -> Path:
    """A CSV with splits, its rows in no order of names."""
    folder(root, each=6)
    rows = [f"{p.relative_to(root)},{p.parent.name},{('train', 'train', 'val')[i % 3]}" for i, p in _files(root)]
    (root / "photos.csv").write_text("\n".join(["path,label,split", *reversed(rows)]) + "\n")
    return root / "photos.csv"


def tar(root: Path) -> Path:
    """A tar of class folders."""
    return _packed(root, [(str(p.relative_to(root / "f")), p.read_bytes()) for _, p in _files(folder(root / "f"))])


def webdataset(root: Path) -> Path:
    """A tar of numbers with classes that are numbers, too, which sort by value."""
    members = []
    for number in range(9):
        members += [(f"{number}.jpg", photo(number, "jpg")), (f"{number}.cls", b"%d" % (2 + 4 * (number % 3)))]
    return _packed(root, members)


def _files(root: Path) -> list[tuple[int, Path]]:
    return list(enumerate(sorted(p for p in root.rglob("*.*") if p.suffix[1:] in KINDS)))


def _packed(root: Path, members: list[tuple[str, bytes]]) -> Path:
    root.mkdir(exist_ok=True)
    with tarfile.open(root / "photos.tar", "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return root / "photos.tar"


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "folder": folder,
    "splits": with_splits,
    "flat": flat,
    "table": table,
    "tar": tar,
    "webdataset": webdataset,
}


def decoding_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos are looked at in this process: starting others takes longer than so few of them."""
    monkeypatch.setattr("plusx.verbs.shard.survey", partial(survey, workers=0))


def written(data: Path, out: Path, size: str = "8KB") -> ShardReport:
    """Shards of DATA, several of them."""
    return shard(data, out, size=size)
