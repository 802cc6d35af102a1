"""What a file system can do to a folder of photos: rows D15 to D20 and D24 of the fault matrix, as far as listing and
reading go.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import socket
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plusx.data.source import content_hashes, scan, walk
from plusx.doctor.folder import check
from plusx.errors import DataError
from plusx.images import source
from plusx.images.decode import Undecodable
from plusx.images.source import PAUSES, Patience, Source, read
from tests.data.test_source import photos_of, put
from tests.images.bombs import picture, saved

PHOTO = saved(picture(), "PNG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of two different photos each."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "data" / name / f"{i}.png").write_bytes(saved(picture(60 + 9 * label, 40 + 9 * i), "PNG"))
    return tmp_path / "data"


# D16: links


def test_a_link_out_of_data_is_followed_and_named(root: Path, tmp_path: Path) -> None:
    """D16: to a file, to a folder; a link within DATA and a broken one are no news here."""
    (tmp_path / "far" / "more").mkdir(parents=True)
    for name in ("a.png", "more/b.png", "more/c.png"):
        (tmp_path / "far" / name).write_bytes(saved(picture(31 + len(name), 33), "PNG"))
    (root / "cat" / "far.png").symlink_to(tmp_path / "far" / "a.png")
    (root / "bird").symlink_to(tmp_path / "far" / "more")
    (root / "dog" / "near.png").symlink_to("../cat/0.png")
    listing = scan(root)
    assert listing.outside == ("bird", "cat/far.png")
    assert {"bird/b.png", "bird/c.png", "cat/far.png", "dog/near.png"} <= {photo.name for photo in listing.photos}
    report = check(root, workers=0)
    assert report.outside == ("bird", "cat/far.png")
    assert "links that lead outside: 2" in report.lines()
    assert scan([root / "cat", root / "dog"]).outside == ("cat/far.png", "dog/near.png"), "dog alone is DATA there"


def test_links_to_themselves_and_in_a_circle_end(root: Path) -> None:
    """D16: one link to itself, two to each other, a folder in itself; each is named, none is followed for ever."""
    (root / "cat" / "self.png").symlink_to("self.png")
    (root / "dog" / "one.png").symlink_to("two.png")
    (root / "dog" / "two.png").symlink_to("one.png")
    (root / "cat" / "loop").symlink_to("..")
    report = check(root, workers=0)
    assert {bad.name: bad.code for bad in report.unreadable} == dict.fromkeys(
        ("cat/self.png", "dog/one.png", "dog/two.png"), "unreadable"
    )
    assert "Too many levels of symbolic links" in report.unreadable[0].reason
    assert report.junk == ("cat/loop",)


def test_a_folder_linked_twice_is_read_once_for_each_link(root: Path) -> None:
    """D16: not once for every way through them."""
    (root / "cat" / "again").symlink_to("../dog")
    (root / "dog" / "back").symlink_to("../cat")
    names = {photo.name for photo in scan(root).photos}
    assert {"cat/again/0.png", "dog/back/0.png"} <= names
    assert len(names) == 8
    assert scan(root).junk == ("cat/again/back", "dog/back/again")


# D17: what is there and is no photo to be read


def test_sockets_pipes_and_devices_are_listed_and_never_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D17."""
    os.mkfifo(root / "cat" / "pipe.png")
    monkeypatch.chdir(root / "cat")  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
    (root / "dog" / "device.png").symlink_to("/dev/zero")
    (root / "dog" / "folder.png").mkdir()
    began = time.monotonic()
    report = check(root, workers=1)
    assert time.monotonic() - began < 20
    assert report.junk == ("cat/pipe.png", "cat/socket.png", "dog/device.png")
    assert report.photos == 4
    for name, kind in (("cat/pipe.png", "named pipe"), ("cat/socket.png", "socket"), ("dog/device.png", "device")):
        with pytest.raises(Undecodable, match=f"this is a {kind}, not a regular file"):
            read(Source(str(root / name)))


def test_a_file_that_becomes_a_pipe_after_the_scan_is_not_waited_for(root: Path) -> None:
    """D17, between scan and read."""
    listing = scan(root)
    (root / "cat" / "0.png").unlink()
    os.mkfifo(root / "cat" / "0.png")
    hashes = content_hashes(listing.photos)
    assert len(set(hashes)) == 4
    with pytest.raises(Undecodable, match="named pipe"):
        read(listing.photos[0].source)


def refusing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, times: float = float("inf")) -> list[str]:
    """Files called `name` cannot be opened the first `times` times; what was asked for."""
    real, asked = os.open, list[str]()

    def refuse(path: Any, *rest: Any, **named: Any) -> int:
        if str(path).endswith(name):
            asked.append(str(path))
            if len(asked) <= times:
                raise OSError(number, os.strerror(number), str(path))
        return real(path, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(source, "_PATIENCE", Patience())
    return asked


def test_a_photo_that_may_not_be_read_is_named_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D17: without a second try, for permissions do not change by waiting."""
    asked = refusing(monkeypatch, "cat/1.png", errno.EACCES)
    with pytest.raises(Undecodable) as caught:
        read(Source(str(root / "cat" / "1.png")))
    assert caught.value.reason == (
        "the file could not be read (Permission denied); check that it is there and may be read"
    )
    assert len(asked) == 1
    report = check(root, workers=0)
    assert [(bad.name, bad.code) for bad in report.unreadable] == [("cat/1.png", "unreadable")]


# D18: what fails once may come


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOENT])
@pytest.mark.parametrize("times", [1, 2])
def test_a_photo_that_fails_once_or_twice_is_read_all_the_same(
    number: int, times: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D18: as network file systems fail, and as a file looks that is being replaced."""
    asked = refusing(monkeypatch, "cat/1.png", number, times)
    path = root / "cat" / "1.png"
    assert read(Source(str(path))) == path.read_bytes()
    assert len(asked) == times + 1


def test_a_photo_that_keeps_failing_is_named_after_three_tries(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D18: bounded in number, and in time for all photos together."""
    asked = refusing(monkeypatch, ".png", errno.EIO)
    monkeypatch.setattr(source, "_PATIENCE", Patience(seconds=0.2))
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(Undecodable, match=r"could not be read \(Input/output error\)"):
            read(Source(str(root / "cat" / "1.png")))
    assert time.monotonic() - began < 2
    assert 50 + 2 * len(PAUSES) <= len(asked) <= 60


def test_patience_comes_back_with_the_first_file_that_came(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D18: a training of days meets a glitch now and then."""
    patience = Patience(seconds=0.15)
    answers = iter([OSError(errno.EIO, "x"), OSError(errno.EIO, "x"), b"there"] * 5)

    def attempt() -> bytes:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert [patience.bytes_of(attempt) for _ in range(5)] == [b"there"] * 5


def test_patience_comes_back_with_files_that_come_at_once(tmp_path: Path) -> None:
    """D18: photos that were missing for good do not cost those their second try that come hours later."""
    patience, answers = Patience(seconds=0.1), list[OSError | bytes]()

    def attempt() -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    glitch = OSError(errno.EIO, "x")
    for _ in range(2):
        answers[:] = [glitch] * 3
        with pytest.raises(OSError, match="x"):
            patience.bytes_of(attempt)
    assert answers == [glitch] * 2, "it is exhausted: the second file was asked for once"
    answers[:] = [glitch]
    with pytest.raises(OSError, match="x"):
        patience.bytes_of(attempt)
    for _ in range(20):
        answers[:] = [b"there"]
        assert patience.bytes_of(attempt) == b"there"
    answers[:] = [glitch, b"there"]
    assert patience.bytes_of(attempt) == b"there"
    assert patience.wasted == 0


def test_a_link_to_nothing_is_asked_for_once_and_costs_no_patience(tmp_path: Path) -> None:
    """D18: with 46 of them, nothing was ever asked for twice again."""
    link, patience, asked = tmp_path / "link.png", Patience(), list[int]()
    link.symlink_to("missing.png")

    def attempt() -> bytes:
        asked.append(1)
        return link.read_bytes()

    with pytest.raises(FileNotFoundError):
        patience.bytes_of(attempt)
    assert (len(asked), patience.wasted) == (1, 0)
    with pytest.raises(Undecodable, match="No such file or directory"):
        read(Source(str(link)))


def test_hashes_ask_again_as_the_decoder_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D18: else a photo that was read would be recorded as one that was not."""
    listing, real = scan(root), io.FileIO
    failing = {str(root / "cat" / "0.png"): 1}

    def opened(file: str, *rest: Any) -> io.FileIO:
        if failing.get(file, 0):
            failing[file] -= 1
            raise OSError(errno.ESTALE, "Stale file handle", file)
        return real(file, *rest)

    monkeypatch.setattr(io, "FileIO", opened)
    expected = [hashlib.sha256(Path(photo.source.file).read_bytes()).hexdigest() for photo in listing.photos]
    assert content_hashes(listing.photos) == expected
    assert failing == {str(root / "cat" / "0.png"): 0}


def test_a_photo_that_vanishes_between_scan_and_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D18, with real processes."""
    from plusx.doctor import folder

    real = folder.content_hashes

    def hashed_and_gone(photos: Any) -> list[str]:
        hashes = real(photos)
        (root / "dog" / "1.png").unlink()
        return hashes

    monkeypatch.setattr(folder, "content_hashes", hashed_and_gone)
    report = check(root, workers=1)
    assert [(bad.name, bad.code) for bad in report.unreadable] == [("dog/1.png", "unreadable")]
    assert "No such file or directory" in report.unreadable[0].reason


def test_without_second_tries_a_glitch_costs_the_photo(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D18, the control."""
    refusing(monkeypatch, "cat/1.png", errno.EIO, 1)
    monkeypatch.setattr(source, "_PATIENCE", Patience(seconds=0))
    with pytest.raises(Undecodable):
        read(Source(str(root / "cat" / "1.png")))


# D15: names


def odd_names() -> list[bytes]:
    """Names of photos that trip programs up."""
    twin = "caf\u00e9"
    return [
        b"with space .jpg",
        b'it\'s "so".jpg',
        b"new\nline.jpg",
        b"-rf.jpg",
        b"=cmd.jpg",
        "\U0001f63a.jpg".encode(),
        "\u202egpj.exe.jpg".encode(),
        "\u05e9\u05dc\u05d5\u05dd.jpg".encode(),
        unicodedata.normalize("NFC", twin).encode() + b".jpg",
        unicodedata.normalize("NFD", twin).encode() + b".jpg",
        b"a" * 251 + b".jpg",
        b"caf\xe9.jpg",
        b"<b>&amp;.jpg",
        b"%00%2e%2e.jpg",
    ]


@pytest.mark.parametrize("name", odd_names(), ids=ascii)
def test_a_photo_of_any_name_is_listed_hashed_and_walked_to(name: bytes, root: Path) -> None:
    """D15."""
    path = os.path.join(os.fsencode(root / "cat"), name)
    try:
        with open(path, "wb") as file:
            file.write(PHOTO)
    except OSError:
        pytest.skip("this file system does not take the name")
    shown = os.fsdecode(b"cat/" + name)
    (photo,) = (photo for photo in scan(root).photos if photo.name == shown)
    assert content_hashes([photo]) == [hashlib.sha256(PHOTO).hexdigest()]
    assert str(root / shown) in {found.name for found in walk([root])}
    assert read(photo.source) == PHOTO


def test_two_names_that_look_alike_are_two_photos(root: Path) -> None:
    """D15: composed and decomposed; on a file system that makes one of them, there is one."""
    for form in ("NFC", "NFD"):
        (root / "cat" / (unicodedata.normalize(form, "caf\u00e9") + ".png")).write_bytes(saved(picture(20), "PNG"))
    on_disk = [name for name in os.listdir(root / "cat") if name.startswith("caf")]
    found = [p.name for p in scan(root).photos if "caf" in p.name]
    assert sorted(found) == sorted(f"cat/{name}" for name in on_disk)


# D19 and D20: classes and junk


def test_what_programs_leave_behind_is_no_class_and_is_listed(root: Path) -> None:
    """D19."""
    junk = [".git/objects/a.jpg", "__MACOSX/cat/._0.jpg", "cat/.ipynb_checkpoints/0.jpg", "Thumbs.db", "dog/.DS_Store"]
    put(root, *junk)
    listing = scan(root)
    assert listing.classes == ("cat", "dog")
    assert listing.junk == (".git", "Thumbs.db", "__MACOSX", "cat/.ipynb_checkpoints", "dog/.DS_Store")
    assert len(listing.photos) == 4


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["notes.txt"], "holds no photos"),
        (["1.jpg", "2.jpg"], "Nothing in {root} says which class a photo belongs to"),
        (photos_of("", classes=("cat",)), "holds one class only (cat)"),
        (
            [*photos_of(""), "bird/0.jpg"],
            "Class bird has one photo to learn from in {root}, and at least two are needed",
        ),
        ([*photos_of(""), "bird/"], "The folder bird in {root} holds no photos: put at least two there"),
    ],
)
def test_too_few_classes_or_photos_are_a_sentence_with_the_minimum(
    names: list[str], sentence: str, tmp_path: Path
) -> None:
    """D19, D20."""
    put(tmp_path / "few", *names)
    with pytest.raises(DataError) as caught:
        scan(tmp_path / "few")
    assert sentence.format(root=tmp_path / "few") in caught.value.message


def lines_of(stage: Callable[[Path], Any], data: Path) -> int:
    from tests.data.test_growth import lines_run

    return lines_run(stage, data)


def test_a_folder_of_four_times_as_many_files_is_four_times_the_work(tmp_path: Path) -> None:
    """D24: files in one folder; of tars, tests/data/test_growth.py says the same."""
    for count in (100, 400):
        put(tmp_path / str(count), *(f"{name}/{i}.jpg" for name in ("cat", "dog") for i in range(count // 2)))
    few, many = tmp_path / "100", tmp_path / "400"
    scan(few)
    assert lines_of(scan, many) <= 1.05 * 4 * lines_of(scan, few)


def test_ten_times_as_many_classes_are_ten_times_the_work(tmp_path: Path) -> None:
    """D20: nothing looks at every pair of classes."""
    for count in (40, 400):
        put(tmp_path / str(count), *(f"{name:05}/{i}.jpg" for name in range(count) for i in range(2)))
    few, many = tmp_path / "40", tmp_path / "400"
    scan(few)
    assert lines_of(scan, many) <= 1.05 * 10 * lines_of(scan, few)
