"""Photos behind s3:// URLs: the same answers, bits and sentences as from disk, over a network that fails."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from s3fs import S3FileSystem

from plusx.cli.run import run as cli
from plusx.data import fetch, remote, shards, unpacked
from plusx.data.entries import cache_size, clear
from plusx.data.fetch import Patience
from plusx.data.source import content_hashes, scan, walk
from plusx.data.split import read_split_csv
from plusx.errors import DataError, UsageError
from plusx.training.checkpoint import found
from plusx.training.events import Notice, StepDone
from plusx.training.world import World
from plusx.verbs.check import check
from plusx.verbs.evaluate import evaluate
from plusx.verbs.predict import predict
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.data.s3 import Server, Wire
from tests.verbs.conftest import QUICK, SETS, draw

FAST = (*SETS, "views=[identity]", "average=none")
STREAMED = 0.00017  # GB of cache: too few for 60 decoded photos, enough for four of eight archives


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fetch, "PATIENCE", Patience(seconds=60.0, first=0.02, longest=0.2, silence=30.0))
    shards._listing.cache_clear()
    yield
    remote.forget()
    for _ in range(6000):  # one may be under way; a minute is never
        if shards._users:
            time.sleep(0.01)
    assert not shards._users, "everything that was opened was let go"


def jpeg(label: int, number: int) -> bytes:
    file = io.BytesIO()
    draw(label, number).save(file, "JPEG", quality=90)
    return file.getvalue()


def packed(files: dict[str, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture(scope="module")
def archives() -> dict[str, bytes]:
    """60 photos of two classes, dealt over eight archives."""
    names = ("lying", "standing")
    photos = {f"{names[label]}/{number}.jpg": jpeg(label, number) for number in range(30) for label in (0, 1)}
    dealt = [dict(list(photos.items())[i::8]) for i in range(8)]
    return {f"{i}.tar": packed(files) for i, files in enumerate(dealt)}


@pytest.fixture
def twice(server: Server, wire: Wire, archives: dict[str, bytes], tmp_path: Path) -> tuple[str, str]:
    """The same archives on disk and behind URLs, as patterns."""
    (tmp_path / "pets").mkdir()
    for name, data in archives.items():
        (tmp_path / "pets" / name).write_bytes(data)
    server.put("pets", archives)
    return str(tmp_path / "pets" / "*.tar"), "s3://pets/*.tar"


def wish(out: Path, *sets: str, **flags: Any) -> Wish:
    return Wish(flags=QUICK | {"epochs": 2} | flags, sets=(*FAST, *sets), out=out)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def figures_of(run: Path) -> dict[str, Any]:
    """What `evaluate` measures of a run, without speeds."""
    return {name: value for name, value in evaluate(run).figures.items() if "second" not in name}


def on_disk(name: str) -> str:
    return name.removeprefix("s3://pets/")


def test_urls_are_listed_and_hashed_as_the_same_files_are(twice: tuple[str, str], wire: Wire) -> None:
    disk, url = (scan(data) for data in twice)
    assert [on_disk(photo.name) for photo in url.photos] == [photo.name for photo in disk.photos]
    assert url.photos[0].name == "s3://pets/0.tar!/lying/0.jpg"
    assert [(p.label, p.source.offset, p.source.length) for p in url.photos] == [
        (p.label, p.source.offset, p.source.length) for p in disk.photos
    ]
    assert content_hashes(url.photos) == content_hashes(disk.photos)
    assert [on_disk(photo.name) for photo in walk([twice[1]])] == [
        Path(photo.name).relative_to(Path(twice[0]).parent).as_posix() for photo in walk([twice[0]])
    ]


def test_what_is_in_an_archive_is_remembered_without_the_archive(twice: tuple[str, str], wire: Wire) -> None:
    hashes = content_hashes(scan(twice[1]).photos)
    shards._listing.cache_clear()
    remote.forget()  # as a new process
    for entry in Path(remote.cache_folder()).glob("*/object"):
        entry.unlink()
    sent = wire.sent
    assert content_hashes(scan(twice[1]).photos) == hashes
    assert wire.sent - sent < 10_000, "one list of names"


def test_folders_splits_labels_in_files_and_compression_work_behind_urls(
    server: Server, wire: Wire, tmp_path: Path
) -> None:
    classes = {f"{n}.cls": str(n % 2).encode() for n in range(4)}
    pictures = {f"{n}.jpg": jpeg(n % 2, n) for n in range(4)}
    server.put("pets", {
        "set/train/0.tar.gz": packed(classes | pictures, "w:gz"),
        "set/test/0.tar": packed({"9.jpg": jpeg(1, 9), "9.cls": b"1"}),
        "set/index.json": b"{}",
    })  # fmt: skip
    listing = scan("s3://pets/set/")
    assert [(p.name, p.label, p.split) for p in listing.photos] == [
        ("s3://pets/set/test/0.tar!/9.jpg", 1, "test"),
        *((f"s3://pets/set/train/0.tar.gz!/{n}.jpg", n % 2, "train") for n in range(4)),
    ]
    known = {hashlib.sha256(data).hexdigest() for data in (*pictures.values(), jpeg(1, 9))}
    assert set(content_hashes(listing.photos)) == known
    assert unpacked._held == {}, "let go of with the archive it came from"


def test_training_from_urls_gives_the_bits_of_training_from_disk(twice: tuple[str, str], tmp_path: Path) -> None:
    disk = train([twice[0]], wish(tmp_path / "disk"))
    clear()
    url = train([twice[1]], wish(tmp_path / "url"))
    assert sha256(url.model) == sha256(disk.model)
    rows = [read_split_csv(trained.run / "split.csv") for trained in (disk, url)]
    assert [replace(row, path=on_disk(row.path)) for row in rows[1]] == rows[0]
    assert json.loads((url.run / "run.json").read_text())["data"] == ["s3://pets/*.tar"]
    figures = [figures_of(trained.run) for trained in (disk, url)]
    assert figures[0] == figures[1]
    answers = [list(predict(disk.model, [data])) for data in twice]
    assert [row.probabilities for row in answers[0]] == [row.probabilities for row in answers[1]]
    assert answers[1][0].path == "s3://pets/0.tar!/lying/0.jpg"


def test_a_warm_cache_needs_no_archive(twice: tuple[str, str], wire: Wire, tmp_path: Path) -> None:
    train([twice[1]], wish(tmp_path / "first"))
    remote.forget()
    shards._listing.cache_clear()
    for entry in Path(remote.cache_folder()).glob("*/object"):
        entry.unlink()
    wire.sent, sent = 0, list[int]()

    def listen(event: Any) -> None:
        sent.append(wire.sent)

    train([twice[1]], wish(tmp_path / "second", "learning_rate=0.01"), on_event=listen)
    assert sent[-1] < 10_000, "one list of names, until the pages show photos"


def test_check_and_predict_take_urls(twice: tuple[str, str], server: Server, tmp_path: Path) -> None:
    checked = check([twice[1]])
    assert checked.to_json()["photos"] == 60
    trained = train([twice[1]], wish(tmp_path / "run"))
    server.put("more", {"one.jpg": jpeg(0, 99), "broken.tar": b"no archive", "bad.jpg": b"no photo"})
    paths = ["s3://more/one.jpg", "s3://more/bad.jpg", "s3://more/broken.tar", "s3://more/none.jpg"]
    rows = {row.path: row.error and row.error["code"] for row in predict(trained.model, paths)}
    assert rows == {paths[0]: None, paths[1]: "not-an-image", paths[2]: "not-an-image", paths[3]: "unreadable"}


def streamed(monkeypatch: pytest.MonkeyPatch, gigabytes: float = STREAMED) -> None:
    monkeypatch.setenv("PLUSX_CACHE_GB", str(gigabytes))


@contextmanager
def waiting(entered: list[str]) -> Iterator[None]:
    entered.append(threading.current_thread().name)
    yield


def test_photos_that_do_not_fit_are_streamed_within_a_window_and_give_the_bits_of_the_disk(
    twice: tuple[str, str], wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = train([twice[0]], wish(tmp_path / "disk", "window=1"))  # decoded into the cache
    clear()
    streamed(monkeypatch)
    sizes: list[int] = []
    events: list[Any] = []

    def listen(event: Any) -> None:
        events.append(event)
        sizes.append(cache_size())

    wire.sent, entered = 0, list[str]()
    monkeypatch.setattr(World, "alone", lambda _: waiting(entered))
    url = train([twice[1]], wish(tmp_path / "url", "window=1"), on_event=listen)
    steps = sum(isinstance(event, StepDone) for event in events)
    assert len(entered) > steps, "whoever waits for the network of DATA is alone, and not slow"
    assert sha256(url.model) == sha256(disk.model)
    assert max(sizes) <= STREAMED * 1e9
    assert wire.sent > 3 * 60 * 1000, "more passed through than fits"
    told = " ".join(event.text for event in events if isinstance(event, Notice))
    assert "decoded anew in every epoch" in told
    assert "Photos meet within windows of 1 of 8 archives, not all of DATA; in those of the first epoch" in told


def test_a_window_that_does_not_fit_twice_is_refused_with_one_that_does(
    twice: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed(monkeypatch)
    for sets in ((), ("window=5",)):
        with pytest.raises(UsageError) as caught:
            train([twice[1]], wish(tmp_path / "run", *sets))
        assert caught.value.message.startswith("The photos do not fit into the cache decoded")
        assert "set window=1 with --set, or PLUSX_CACHE_GB to more" in caught.value.message
    assert not (tmp_path / "run").exists()


def test_a_network_lost_in_training_leaves_a_run_that_goes_on_with_the_same_bits(
    twice: tuple[str, str], wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed(monkeypatch)
    whole = train([twice[1]], wish(tmp_path / "whole", "window=1"))
    S3FileSystem.clear_instance_cache()
    remote.forget()

    def cutting(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            monkeypatch.setattr(fetch, "PATIENCE", Patience(seconds=0.5, first=0.02, longest=0.1, silence=0.4))
            wire.cut()

    with pytest.raises(DataError) as caught:
        train([twice[1]], wish(tmp_path / "cut", "window=1"), on_event=cutting)
    assert (caught.value.code, caught.value.exit_code) == ("no-network", 3), caught.value.message
    assert caught.value.message.startswith("s3://pets/")
    assert caught.value.message.endswith(f"then go on with: plusx train --resume --out {tmp_path / 'cut'}")
    assert found(tmp_path / "cut" / "checkpoints"), "what was learned is kept"
    monkeypatch.setattr(fetch, "PATIENCE", Patience(seconds=60.0))
    wire.mend()
    resumed = train([], Wish(out=tmp_path / "cut", resume=True))
    assert sha256(resumed.model) == sha256(whole.model)


def test_a_network_that_fails_now_and_then_changes_no_bit(
    twice: tuple[str, str], wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed(monkeypatch)
    whole = train([twice[1]], wish(tmp_path / "whole", "window=1"))
    remote.forget()

    def cutting(event: Any) -> None:
        wire.cut_after = 3000

    shaken = train([twice[1]], wish(tmp_path / "shaken", "window=1"), on_event=cutting)
    assert wire.cuts > 2
    assert sha256(shaken.model) == sha256(whole.model)


def test_the_command_line_ends_with_one_sentence_and_3(
    server: Server, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    server.put("pets", {})
    assert cli(["train", "s3://pets/*.tar", "--epochs", "1"]) == 3
    said = capfd.readouterr()
    assert said.out == ""
    assert " ".join(said.err.split()) == (
        "plusx: Nothing matches s3://pets/*.tar: check the address; tar archives were expected there, "
        "as `plusx shard` writes them."
    )
