"""No verb writes into DATA: its paths, bytes, modes, times and links are the same before and after (row D23 of the
fault matrix). And what hashes find that no decoder does (D02).
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plusx.cli.run import VERBS
from plusx.cli.run import run as cli
from plusx.data.source import content_hashes, scan
from plusx.data.split import read_split_csv
from plusx.errors import Interrupted
from plusx.images.decode import Undecodable, decode
from plusx.training.events import StepDone
from plusx.verbs.check_labels import LabelWish, check_labels
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS, fill

FLAGS = ["--model", "resnet20", "--size", "32", "--batch-size", "16", "--epochs", "1", "--device", "cpu", "-q"]
SETTINGS = [token for text in SETS for token in ("--set", text)]
TAKES_NO_PHOTOS = {"models", "bench", "cache", "demo", "download"}
PHOTOS = {"data", "paths", "image", "photos", "run", "runs", "model", "run_or_model"}  # parameters that lead to some


def tree(root: Path) -> str:
    """SHA-256 over everything below a folder, itself included, that writing there could change."""
    digest = hashlib.sha256()
    for path in (root, *sorted(root.rglob("*"))):
        status = path.lstat()
        digest.update(f"{path.relative_to(root)!s} {status.st_mode:o} {status.st_size} {status.st_mtime_ns} ".encode())
        digest.update(f"{status.st_uid} {status.st_gid} {status.st_nlink} {sorted(_attributes(path))}\n".encode())
        if path.is_symlink():
            digest.update(os.readlink(path).encode())
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _attributes(path: Path) -> list[str]:
    return os.listxattr(path, follow_symlinks=False) if hasattr(os, "listxattr") else []


class World:
    """A tiny folder of photos with all that is odd in it, a run on it, and where everything else goes."""

    def __init__(self, root: Path) -> None:
        self.root, self.data, self.run = root, fill(root / "data", {"lying": 24, "standing": 24}), root / "run"
        turned = Image.Exif()
        turned[0x0112] = 6
        photo = self.data / "lying" / "0.jpg"
        Image.open(photo).save(self.data / "lying" / "turned.jpg", exif=turned)
        (self.data / "lying" / "no-end.jpg").write_bytes(photo.read_bytes()[:-2])  # some programs mend that in place
        (self.data / "standing" / "empty.jpg").write_bytes(b"")
        (self.data / "standing" / "link.jpg").symlink_to("../lying/0.jpg")
        (self.data / "Thumbs.db").write_bytes(b"x")
        self.photo = str(photo)

    def typed(self, *words: object, code: int = 0) -> None:
        """A command line, and the exit code that is due."""
        assert cli([*map(str, words)]) == code


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("untouched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        yield World(root)


def check(world: World) -> None:
    world.typed("check", "data", "-q", code=1)
    world.typed("check", "data", "--out", "checked", "-q", code=1)
    flags = {"model": "resnet20", "size": 32, "batch_size": 16, "device": "cpu", "seed": 1}
    sets = ("width=0.25", "max_epochs=1", "workers=0", "sizes=[]")
    check_labels(["data"], LabelWish(world.root / "labels", 2, "120s", flags, sets))  # what --labels does


def _stop(event: Any) -> None:
    if isinstance(event, StepDone) and event.step == 2:
        raise KeyboardInterrupt


def train_and_resume(world: World) -> None:
    world.typed("train", "data", *FLAGS, *SETTINGS, code=3)  # there are photos that cannot be read

    wish = Wish(QUICK | {"skip_bad": True, "epochs": 2}, SETS, out=world.run)
    with pytest.raises(Interrupted):
        train([str(world.data)], wish, on_event=_stop)
    world.typed("train", "--resume", "--out", world.run, "-q")
    world.typed("train", "data", *FLAGS, *SETTINGS, "--skip-bad", "--seed", 2, "--out", "other")
    world.typed("train", "data", *FLAGS, *SETTINGS, "--decisions", "checked/quarantine.csv", "--out", "decided")


def evaluate(world: World) -> None:
    world.typed("evaluate", world.run, "-q")
    world.typed("evaluate", world.run, "data", "--report", "page.html", "-q")


def compare(world: World) -> None:
    world.typed("compare", world.run, "other", "--out", "compare.html")


def predict(world: World) -> None:
    world.typed("predict", world.run, "data", "--json", "--out", "answers.json", "-q")
    world.typed("predict", world.run, world.photo, "-q")


def explain(world: World) -> None:
    world.typed("explain", world.run, world.photo, "--out", "explained.png", "-q")
    world.typed("explain", world.run, world.photo, "-q")


def export(world: World) -> None:
    """Five seconds for a file of a tiny network, and the photos of validation that it has to agree on."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    world.typed("export", world.run, "--out", "model.onnx", "-q")


def serve(world: World) -> None:
    pytest.importorskip("uvicorn")
    from tests.serve.service import running

    with running(world.run) as service:
        assert service.photo(Path(world.photo).read_bytes()).status == 200
        assert service.photo(b"").status == 422


def watch(world: World) -> None:
    pytest.importorskip("uvicorn")
    from tests.serve.test_watch import Server

    with Server(world.run) as server:
        shown = server.run()
        assert shown["images"]["key"]
        assert server.get("/").status == 200


def lab(world: World) -> None:
    """The photos of every experiment and a training on them; a whole one would start a dozen processes."""
    from plusx.lab import conduct, degradation
    from plusx.lab.conduct import LabWish, Size
    from plusx.lab.photos import Amount
    from tests.lab.conftest import TINY, train_here

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conduct, "_size", lambda *_: Size(TINY, Amount(32, 6), steps=2, seeds=1))
        opened = conduct.open_lab("degradation", ["data"], LabWish(out=world.root / "lab"), lambda _: None)
        train_here(opened, degradation.networks(opened)[:1])


def shards(world: World) -> None:
    world.typed("shard", world.data, world.root / "shards", code=3)  # a photo is empty
    world.typed("shard", world.data, world.root / "shards", "--skip-bad", "--size", "30KB")
    world.typed("shard", world.data, world.data / "shards", code=2)


USES: dict[str, Callable[[World], None]] = {  # in this order, since later ones use what earlier ones made
    "check": check,
    "train": train_and_resume,
    "evaluate": evaluate,
    "compare": compare,
    "predict": predict,
    "explain": explain,
    "export": export,
    "serve": serve,
    "watch": watch,
    "lab": lab,
    "shard": shards,
}


def test_every_verb_is_used_here_or_takes_no_photos() -> None:
    """D23: a new verb needs a row of its own."""
    assert set(USES) | TAKES_NO_PHOTOS == set(VERBS)
    assert not set(USES) & TAKES_NO_PHOTOS
    for verb in TAKES_NO_PHOTOS - {"bench"}:
        function = getattr(importlib.import_module(f"plusx.cli.{verb}"), verb)
        assert not PHOTOS & set(inspect.signature(function).parameters), verb


@pytest.mark.parametrize("verb", USES)
def test_a_verb_leaves_data_as_it_was(verb: str, world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """D23."""
    before = tree(world.data)
    USES[verb](world)
    assert tree(world.data) == before


def test_going_on_with_photos_that_changed_leaves_data_as_it_is_now(tmp_path: Path) -> None:
    """D23: `train --resume --accept-changes`, which other verbs here need no changed photos for."""
    data, out = fill(tmp_path / "data", {"lying": 24, "standing": 24}), tmp_path / "run"
    with pytest.raises(Interrupted):
        train([str(data)], Wish(QUICK | {"epochs": 2}, SETS, out=out), on_event=_stop)
    (data / "lying" / "0.jpg").rename(data / "lying" / "other.jpg")
    (data / "standing" / "1.jpg").unlink()
    before = tree(data)
    assert cli(["train", "--resume", "--accept-changes", "--out", str(out), "-q"]) == 0
    assert (out / "changes.json").exists()
    assert tree(data) == before


def _mend(data: Path) -> None:
    """As a known program does with JPEGs that lack their end marker."""
    with (data / "lying" / "no-end.jpg").open("ab") as file:
        file.write(b"\xff\xd9")


def _save_anew(data: Path) -> None:
    photo = data / "lying" / "0.jpg"
    status = photo.stat()
    Image.open(photo).save(photo)
    os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "write",
    [
        _mend,
        _save_anew,
        lambda data: (data / "lying" / "labels.cache").write_bytes(b""),
        lambda data: (data / ".hidden").mkdir(),
        lambda data: (data / "lying" / "1.jpg").chmod(0o600),
        lambda data: os.utime(data / "lying" / "1.jpg"),
        lambda data: (data / "lying" / "1.jpg").rename(data / "lying" / "99.jpg"),
        lambda data: (data / "Thumbs.db").unlink(),
        lambda data: os.link(data / "lying" / "1.jpg", data.parent / "elsewhere.jpg"),
    ],
    ids=["mended", "saved anew", "cache", "folder", "mode", "time", "renamed", "removed", "linked"],
)
def test_a_verb_that_writes_there_is_caught(write: Callable[[Path], object], world: World, tmp_path: Path) -> None:
    """D23, the control."""
    data = tmp_path / "data"
    shutil.copytree(world.data, data, symlinks=True)
    before = tree(data)
    assert tree(data) == before
    write(data)
    assert tree(data) != before


# D02


def silently_damaged(photo: bytes) -> bytes:
    """A JPEG with one byte changed that still decodes, to other pixels."""
    start, whole = photo.index(b"\xff\xda") + 14, np.asarray(decode(photo))
    for at in range(start, len(photo) - 2):
        data = bytearray(photo)
        data[at] ^= 0x10
        try:
            pixels = np.asarray(decode(bytes(data)))
        except Undecodable:
            continue
        if pixels.shape == whole.shape and not np.array_equal(pixels, whole):
            return bytes(data)
    raise AssertionError("every damage was seen by the decoder")


def test_damage_that_decodes_is_found_by_the_hashes_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """D02: `check` of the folder alone says nothing; the run that saw it whole refuses and names it."""
    data = fill(tmp_path / "data", {"lying": 20, "standing": 20})
    flags = [*FLAGS, *SETTINGS]
    assert cli(["train", str(data), *flags, "--out", str(tmp_path / "run")]) == 0
    rows = read_split_csv(tmp_path / "run" / "split.csv")
    for split, command in (
        ("test", ["evaluate", str(tmp_path / "run")]),
        ("train", ["train", "--resume", "--out", str(tmp_path / "run")]),
    ):
        path = next(data / row.path for row in rows if row.split == split)
        whole = path.read_bytes()
        path.write_bytes(silently_damaged(whole))
        assert cli(["check", str(data)]) == 0, "nothing can be seen in one file"
        if split == "train":
            (tmp_path / "run" / "model.safetensors").unlink()
        capsys.readouterr()
        assert cli([*command, "-q"]) == 3
        said = capsys.readouterr().err
        assert "has changed since the run was started" in said
        assert str(path.relative_to(data)) in said
        path.write_bytes(whole)
        assert cli([*command, "-q"]) == 0


def test_no_two_photos_that_differ_in_a_bit_share_a_hash(tmp_path: Path) -> None:
    """D02: the hashes that a run records are of every byte."""
    data = fill(tmp_path / "data", {"lying": 2, "standing": 2})
    listing, threads = scan(data), threading.active_count()
    before = content_hashes(listing.photos)
    photo = data / "lying" / "0.jpg"
    whole = bytearray(photo.read_bytes())
    for at in (0, len(whole) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[at] ^= 1
        photo.write_bytes(changed)
        assert [a == b for a, b in zip(content_hashes(listing.photos), before, strict=True)].count(False) == 1
    assert threading.active_count() == threads
