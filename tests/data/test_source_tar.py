"""Tar archives as DATA, read in place."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from plusx.data.source import content_hashes, scan, walk
from plusx.errors import DataError
from plusx.images.source import read

NAMES = ("cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg")


def make_tar(path: Path, files: dict[str, bytes] | tuple[str, ...] = NAMES, kind: int = tarfile.PAX_FORMAT) -> Path:
    contents = files if isinstance(files, dict) else {name: b"bytes of " + name.encode() for name in files}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def message(data: Path) -> str:
    with pytest.raises(DataError) as caught:
        scan(data)
    return caught.value.message


def test_members_are_read_in_place(tmp_path: Path) -> None:
    listing = scan(make_tar(tmp_path / "a.tar"))
    assert [p.name for p in listing.photos] == [f"a.tar!/{name}" for name in NAMES]
    assert listing.classes == ("cat", "dog")
    assert [read(p.source) for p in listing.photos] == [b"bytes of " + n.encode() for n in NAMES]


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("name", ["cat/" + "long" * 60 + ".jpg", "./cat/ä 😺.jpg"])
def test_long_and_odd_member_names_survive(tmp_path: Path, kind: int, name: str) -> None:
    listing = scan(make_tar(tmp_path / "a.tar", (*NAMES, name), kind))
    photo = next(p for p in listing.photos if p.name == f"a.tar!/{name.removeprefix('./')}")
    assert read(photo.source) == b"bytes of " + name.encode()


def test_several_shards_a_glob_and_a_folder_of_them_are_the_same_data(tmp_path: Path) -> None:
    make_tar(tmp_path / "s-0.tar", NAMES[:3])
    make_tar(tmp_path / "s-1.tar", ("cat/7.jpg", "dog/7.jpg"))
    whole = scan(tmp_path)
    assert len(whole.photos) == 5
    for data in (f"{tmp_path}/*.tar", [tmp_path / "s-0.tar", tmp_path / "s-1.tar"]):
        assert scan(data).photos == whole.photos


def test_split_folders_hold_shards_or_lie_within_them(tmp_path: Path) -> None:
    make_tar(tmp_path / "outside" / "train" / "0.tar")
    make_tar(tmp_path / "outside" / "test" / "0.tar")
    make_tar(tmp_path / "inside.tar", tuple(f"{s}/{n}" for s in ("train", "test") for n in NAMES))
    outside, inside = scan(tmp_path / "outside"), scan(tmp_path / "inside.tar")
    assert outside.photos[0].name == "test/0.tar!/cat/0.jpg"
    assert [(p.label, p.split) for p in outside.photos] == [(p.label, p.split) for p in inside.photos]


def test_folders_of_shards_are_no_classes(tmp_path: Path) -> None:
    make_tar(tmp_path / "part-a" / "0.tar", NAMES[:2])
    make_tar(tmp_path / "part-b" / "0.tar", NAMES[1:])
    listing = scan(tmp_path)
    assert listing.classes == ("cat", "dog")
    assert len({p.name for p in listing.photos}) == 5


def test_a_class_folder_may_hold_a_shard(tmp_path: Path) -> None:
    make_tar(tmp_path / "cat" / "0.tar", ("0.jpg", "1.jpg"))
    make_tar(tmp_path / "dog" / "0.tar", ("0.jpg", "1.jpg"))
    assert [p.label for p in scan(tmp_path).photos] == [0, 0, 1, 1]


def test_a_wrapper_and_kaggle_names_within_a_tar(tmp_path: Path) -> None:
    names = ("train/cat.0.jpg", "train/cat.1.jpg", "train/dog.0.jpg", "train/dog.1.jpg", "__MACOSX/a/b.jpg")
    listing = scan(make_tar(tmp_path / "a.tar", names))
    assert listing.classes == ("cat", "dog")
    assert listing.junk == ("a.tar!/__MACOSX",)


@pytest.mark.parametrize(("labels", "classes"), [("ba", ("a", "b")), (("10", "9"), ("9", "10"))])
def test_webdataset_pairs_give_names_or_numbers(tmp_path: Path, labels: str, classes: tuple[str, ...]) -> None:
    files = {}
    for i, label in enumerate([*labels, *labels]):
        files |= {f"{i:04}.jpg": bytes([i]), f"{i:04}.cls": f"{label}\n".encode(), f"{i:04}.json": b"{}"}
    listing = scan(make_tar(tmp_path / "a.tar", files))
    assert listing.classes == classes
    assert [listing.classes[p.label or 0] for p in listing.photos] == [*labels, *labels]
    assert listing.junk == tuple(f"a.tar!/{i:04}.json" for i in range(4))


def test_webdataset_numbers_sort_by_value_and_then_by_name(tmp_path: Path) -> None:
    names = ["10", "9", "1", "01", "001", "2", "1" * 255]
    files = {}
    for i, label in enumerate([*names, *names]):
        files |= {f"{i:04}.jpg": bytes([i]), f"{i:04}.cls": label.encode()}
    listing = scan(make_tar(tmp_path / "a.tar", files))
    assert listing.classes == ("001", "01", "1", "2", "9", "10", "1" * 255)


def test_webdataset_numbers_beside_words_sort_by_name(tmp_path: Path) -> None:
    files = {f"{i}.{kind}": kind.encode() for i in range(6) for kind in ("jpg", "cls")}
    files |= {f"{i}.cls": label for i, label in enumerate([b"10", b"9", b"cat"] * 2)}
    assert scan(make_tar(tmp_path / "a.tar", files)).classes == ("10", "9", "cat")


def test_names_in_a_tar_that_are_no_utf8_survive(tmp_path: Path) -> None:
    names = [os.fsdecode(name) for name in (b"caf\xe9/\xff.jpg", b"caf\xe9/1.jpg", b"dog/0.jpg", b"dog/1.jpg")]
    contents = {name: os.fsencode(name) for name in names}
    listing = scan(make_tar(tmp_path / "a.tar", contents, tarfile.GNU_FORMAT))
    assert {p.name for p in listing.photos} == {f"a.tar!/{name}" for name in names}
    assert [os.fsencode(name) for name in listing.classes] == [b"caf\xe9", b"dog"]
    assert len(set(content_hashes(listing.photos))) == 4


def test_a_webdataset_photo_without_class_is_named(tmp_path: Path) -> None:
    files = {"0.jpg": b"0", "0.cls": b"cat", "1.jpg": b"1"}
    assert message(make_tar(tmp_path / "a.tar", files)).startswith("a.tar!/1.jpg has no class")


def test_a_hard_link_is_the_same_photo_under_a_second_name(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        link = tarfile.TarInfo("dog/link.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "dog/0.jpg"
        archive.addfile(link)
    listing = scan(tmp_path / "a.tar")
    hashes = dict(zip((p.name for p in listing.photos), content_hashes(listing.photos), strict=True))
    assert hashes["a.tar!/dog/link.jpg"] == hashes["a.tar!/dog/0.jpg"]


@pytest.mark.parametrize("kept", [700, 1024, 2048, 4096])
def test_a_cut_tar_is_a_sentence_wherever_it_was_cut(tmp_path: Path, kept: int) -> None:
    """D01, of archives."""
    data = make_tar(tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[:kept])
    assert message(tmp_path / "a.tar").startswith(f"{tmp_path}/a.tar is no whole tar archive (")


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    data = bytearray(make_tar(tmp_path / "a.tar").read_bytes())
    data[1024:1100] = b"\xff" * 76
    (tmp_path / "a.tar").write_bytes(data)
    assert "the header at byte 1,024 makes no sense" in message(tmp_path / "a.tar")


def test_no_tar_at_all_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("hello")
    assert "is no whole tar archive" in message(tmp_path / "a.tar")


def test_walk_names_members_after_the_path_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tar(tmp_path / "d" / "a.tar")
    monkeypatch.chdir(tmp_path)
    expected = [f"d/a.tar!/{name}" for name in NAMES]
    for given in ("d/a.tar", "d", "d/*.tar"):
        assert [p.name for p in walk([given])] == expected


def test_an_archive_that_shrank_after_the_scan_gives_unreadable_hashes(tmp_path: Path) -> None:
    listing = scan(make_tar(tmp_path / "a.tar"))
    (tmp_path / "a.tar").write_bytes(b"")
    assert len(set(content_hashes(listing.photos))) == 4


def test_the_real_shards_are_listed_and_hashed(photos: Path) -> None:
    listing = scan(photos / "dogs-vs-cats" / "train-0.tar")
    assert len(listing.photos) == 5000
    assert listing.classes == ("cat", "dog")
    hashes = content_hashes(listing.photos[:50])
    assert all(read(p.source)[:2] == b"\xff\xd8" for p in listing.photos[:50])
    assert len(set(hashes)) == 50
