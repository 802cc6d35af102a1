"""What is scored in tests: an untrained network, archives and loose photos, a few of them bad."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from plusx import model_file
from plusx.engines.torch_engine import build
from plusx.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from plusx.model_file import Header, ModelFile
from plusx.verbs.predict import Row, predict
from tests.verbs.conftest import draw

SIZE = 32
NETWORK: dict[str, Any] = {"name": "resnet10", "width": 0.25, "stem": "whitened", "downsampling": "pool"}
CLASSES = ("cat", "dog", "owl")


def model(path: Path, seed: int = 0) -> Path:
    """A model file of an untrained network."""
    torch.manual_seed(seed)
    network = build(NETWORK, len(CLASSES), IMAGENET_MEAN, IMAGENET_STD)
    tensors = {name: value.numpy() for name, value in network.state_dict().items()}
    model_file.save(path, ModelFile(Header(CLASSES, Preprocess(SIZE, SIZE), NETWORK), tensors))
    return path


def jpeg(number: int) -> bytes:
    """A photo."""
    data = io.BytesIO()
    draw(number % 2, number).save(data, "JPEG", quality=80)
    return data.getvalue()


def archive(photos: dict[str, bytes]) -> bytes:
    """A tar of these."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", encoding="utf-8", errors="surrogateescape") as tar:
        for name, content in photos.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def shard(path: Path, first: int, count: int, **others: bytes) -> Path:
    """A tar of `count` photos numbered from `first`, and `others` by name."""
    photos = {f"{number:05d}.jpg": jpeg(number) for number in range(first, first + count)}
    path.write_bytes(archive(photos | {name.replace("_", "."): data for name, data in others.items()}))
    return path


def world(folder: Path) -> Path:
    """Three archives, one with a bad photo and one with a name of odd bytes, and a folder of seven loose photos."""
    folder.mkdir()
    shard(folder / "a.tar", 0, 6)
    shard(folder / "b.tar", 10, 5, empty_jpg=b"", text_jpg=b"no photo")
    (folder / "c.tar").write_bytes(
        archive({"=1\n caf\udce9.jpg": jpeg(20), "é.png": jpeg(21), "notes.txt": b"no photo"})
    )
    (folder / "loose").mkdir()
    for number in range(30, 37):
        (folder / "loose" / f"{number}.jpg").write_bytes(jpeg(number) if number != 33 else b"\xff\xd8\xff")
    return folder


def paths(folder: Path) -> tuple[str, ...]:
    """How all of that is named."""
    return (str(folder / "*.tar"), str(folder / "loose"))


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """All rows of a folder of parts, by path; no path has two."""
    found = [row for part in sorted(out.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]
    assert len({row["path"] for row in found}) == len(found)
    return {row["path"]: row for row in found}


def expected(model: Path, names: tuple[str, ...]) -> list[Row]:
    """What `predict` says."""
    return list(predict(model, names))


def named(row: Row) -> str:
    """A path as it stands in a part."""
    return row.path.encode("utf-8", "backslashreplace").decode()


def assert_as_predicted(out: Path, predicted: list[Row]) -> None:
    """One row for each photo, with the answer of `predict`: labels, answers and errors equal, probabilities too."""
    found = rows(out)
    assert set(found) == {named(row) for row in predicted}
    for row in predicted:
        here = found[named(row)]
        error = {"code": here["error_code"], "message": here["error_message"]}
        assert (here["label"], here["answer"]) == (row.label, row.answer)
        assert (None if error["code"] is None else error) == row.error
        if row.probabilities is None:
            assert here["probability"] is here["probabilities"] is None
        else:
            largest = max(abs(a - b) for a, b in zip(here["probabilities"], row.probabilities.values(), strict=True))
            assert largest < 2e-6, "a batch of one is computed in another order"
            assert abs(here["probability"] - (row.probability or 0)) < 2e-6
