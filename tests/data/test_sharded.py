"""`plusx shard`: every layout there and back, equal bytes, other readers, nothing that only looks finished."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from plusx.data import sharded
from plusx.data.index import INDEX, open_index
from plusx.data.listing import IndexedPhotos
from plusx.data.source import content_hashes, scan
from plusx.errors import DataError, DiskError, UsageError
from plusx.images.source import read
from plusx.verbs.shard import parsed_size, shard
from tests.data.shards import LAYOUTS, decoding_here, folder, photo, with_splits, written


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    decoding_here(monkeypatch)


def everything(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_comes_back_as_it_was(layout: str, tmp_path: Path) -> None:
    data = LAYOUTS[layout](tmp_path / "data")
    before = everything(tmp_path / "data")
    report = written(data, tmp_path / "out")
    assert report.shards > 1
    whole, back = scan(data), scan(tmp_path / "out")
    assert isinstance(back.photos, IndexedPhotos)
    assert (back.classes, back.has_splits, len(back.photos)) == (whole.classes, whole.has_splits, len(whole.photos))
    for one, other in zip(whole.photos, back.photos, strict=True):
        assert (one.name, one.label, one.split) == (other.name, other.label, other.split)
        assert read(one.source) == read(other.source)
    assert content_hashes(back.photos) == content_hashes(list(back.photos)) == content_hashes(whole.photos)
    assert everything(tmp_path / "data") == before


def test_equal_photos_give_equal_bytes_and_other_sizes_the_same_order(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    for out, size in (("a", "8KB"), ("b", "8KB"), ("whole", "1MB")):
        written(data, tmp_path / out, size)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")

    def order(out: str) -> list[bytes]:
        index = open_index(tmp_path / out / INDEX, f"{tmp_path / out}/")
        return sorted(index.sha256[row].tobytes() for row in range(len(index)))

    assert order("a") == order("whole")
    assert {p.stat().st_size <= 8000 for p in (tmp_path / "a").glob("*.tar")} == {True}


@pytest.mark.parametrize("layout", ["folder", "splits", "webdataset"])
def test_other_tools_read_the_shards(layout: str, tmp_path: Path) -> None:
    """Pairs of KEY.ending and KEY.cls behind each other, by Python's tarfile; and sha256sum -c."""
    data = LAYOUTS[layout](tmp_path / "data")
    written(data, tmp_path / "out")
    listing, keys, found = scan(data), [], []
    for path in sorted((tmp_path / "out").rglob("*.tar")):
        with tarfile.open(path) as archive:
            members = archive.getmembers()
            assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in members} == {(0, 0, 0, 0o644, "")}
            contents = [archive.extractfile(m).read() for m in members]  # type: ignore[union-attr]
        for (one, image), (other, label) in list(pairwise(zip(members, contents, strict=True)))[::2]:
            key, ending = one.name.split(".")
            assert other.name == f"{key}.cls"
            assert ending in ("jpg", "png", "webp", "bmp", "gif", "tif")
            keys.append(key)
            found.append((image, label.decode(), path.parent.name))
    assert len({*keys}) == len(keys) == len(listing.photos)
    assert sorted((image, label) for image, label, _ in found) == sorted(
        (read(p.source), listing.classes[p.label or 0]) for p in listing.photos
    )
    assert {where for *_, where in found} == ({"train", "val", "test"} if listing.has_splits else {"out"})
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "out", check=True)
    without = scan([str(p) for p in sorted((tmp_path / "out").rglob("*.tar"))])
    assert sorted(without.classes) == sorted(listing.classes)


def test_every_shard_is_a_sample_of_all_classes(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", each=40)
    written(data, tmp_path / "out", "40KB")
    index = open_index(tmp_path / "out" / INDEX, f"{tmp_path / 'out'}/")
    for number in range(len(index.shards) - 1):
        assert {0, 1} == set(index.label[index.shard == number].tolist())


def test_names_of_any_bytes_come_back(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    odd = [os.fsdecode(b"caf\xe9 \xff.jpg"), "new\nline.jpg", "=1+1.jpg", "\u202egpj.jpg", "\U0001f63a.jpg"]
    for number, name in enumerate(odd):
        (data / "cat" / name).write_bytes(photo(100 + number, "jpg"))
    (data / os.fsdecode(b"\xe9t\xe9")).mkdir()
    for number in range(2):
        (data / os.fsdecode(b"\xe9t\xe9") / f"{number}.jpg").write_bytes(photo(200 + number, "jpg"))
    written(data, tmp_path / "out")
    whole, back = scan(data), scan(tmp_path / "out")
    assert [p.name for p in back.photos] == [p.name for p in whole.photos]
    assert back.classes == whole.classes
    assert {f"cat/{name}" for name in odd} <= {p.name for p in back.photos}


def test_a_photo_that_cannot_be_read_is_refused_or_left_out_and_named(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    (data / "cat" / "bad.jpg").write_bytes(b"\xff\xd8\xff but no photo")
    with pytest.raises(DataError, match=r"cat/bad.jpg") as caught:
        shard(data, tmp_path / "out")
    assert f"plusx shard {data} {tmp_path / 'out'} --skip-bad" in caught.value.message
    assert not (tmp_path / "out").exists()
    report = shard(data, tmp_path / "out", skip_bad=True)
    assert [name for name, _ in report.left_out] == ["cat/bad.jpg"]
    assert report.lines()[0].startswith("left out: cat/bad.jpg: ")
    assert "cat/bad.jpg" not in {p.name for p in scan(tmp_path / "out").photos}


def test_what_was_decided_is_written(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    listing = scan(data)
    rows = [f"{p.name},{h}" for p, h in zip(listing.photos, content_hashes(listing.photos), strict=True)]
    (tmp_path / "decided.csv").write_text(f"path,sha256,decision\n{rows[0]},drop\n{rows[1]},dog\n")
    report = shard(data, tmp_path / "out", decided=[tmp_path / "decided.csv"])
    back = scan(tmp_path / "out")
    assert [p.name for p in back.photos] == [p.name for p in listing.photos[1:]]
    assert [p.label for p in back.photos][:2] == [1, 0]
    assert report.decided == "By decision, 1 photo left out and 1 relabelled."


def test_shards_of_shards_are_the_same(tmp_path: Path) -> None:
    data = with_splits(tmp_path / "data")
    written(data, tmp_path / "once", "1MB")
    written(tmp_path / "once", tmp_path / "again")
    written(data, tmp_path / "at-once")
    assert everything(tmp_path / "again") == everything(tmp_path / "at-once")


@pytest.mark.parametrize(("text", "size"), [("100MB", 100_000_000), ("1.5 gb", 1_500_000_000), ("2MiB", 2 << 20)])
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parsed_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "0MB", "-1MB", "1XB", "9e9GB", "99999999TB", "MB"])
def test_a_size_that_is_none_is_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="is no size: write a number and a unit, such as 100MB or 1GB"):
        parsed_size(text)


def test_so_small_a_size_that_no_index_could_hold_the_shards_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded, "MOST_SHARDS", 3)
    with pytest.raises(UsageError, match="there would be 8, and an index holds at most 3: choose a larger --size"):
        shard(folder(tmp_path / "data"), tmp_path / "out", size="1KB")
    assert [p.name for p in tmp_path.iterdir() if p.name != "cache-home"] == ["data"]


def test_what_is_there_is_never_written_over_and_nothing_is_written_into_data(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(DiskError, match="full is there and not empty: name a new or empty folder"):
        shard(data, tmp_path / "full")
    with pytest.raises(UsageError, match=r"lies inside .*data, which is only read"):
        shard(data, data / "shards")
    with pytest.raises(DiskError, match="is there and not empty"):
        shard(data, data)
    assert everything(tmp_path / "full") == {"mine.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    shard(data, tmp_path / "link")
    assert (tmp_path / "empty" / INDEX).is_file()
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("moment", [1, 5, 8])
def test_an_interruption_leaves_nothing_that_looks_finished(moment: int, tmp_path: Path) -> None:
    data = folder(tmp_path / "data")

    def stop(what: str, done: int, total: int) -> None:
        if what == "writing shards" and done == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shard(data, tmp_path / "out", size="3KB", on_progress=stop)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("tmp-*"))


def test_what_a_killed_process_left_is_swept_and_one_at_work_is_not(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    left = tmp_path / "tmp-out" / "shards"
    left.mkdir(parents=True)
    (left / "000000.tar").write_bytes(b"half")
    (left.parent / "lock").touch()
    shard(data, tmp_path / "out")
    assert not (tmp_path / "tmp-out").exists()

    def meanwhile(what: str, done: int, total: int) -> None:
        if what == "writing shards":
            with pytest.raises(DiskError, match="tmp-other is in use by another plusx process"):
                shard(data, tmp_path / "other")

    shard(data, tmp_path / "other", on_progress=meanwhile)
    assert (tmp_path / "other" / INDEX).is_file()


@pytest.mark.parametrize("name", ["thesis.txt", "shards"])
def test_a_folder_of_the_user_beside_the_shards_is_not_swept(name: str, tmp_path: Path) -> None:
    """It happens to have the name that the shards have until they are whole."""
    (tmp_path / "tmp-out").mkdir()
    (tmp_path / "tmp-out" / name).write_text("mine")
    with pytest.raises(
        DiskError, match="tmp-out holds files that plusx shard did not write, and it is where the shards"
    ):
        shard(folder(tmp_path / "data"), tmp_path / "out")
    assert everything(tmp_path / "tmp-out") == {name: b"mine"}


def test_photos_that_lie_behind_urls_one_by_one_are_written(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    report = shard(f"file://{data}/*/*", tmp_path / "out")
    back, whole = scan(tmp_path / "out"), scan(data)
    assert len(back.photos) == report.photos == len(whole.photos)
    assert sorted(read(photo.source) for photo in back.photos) == sorted(read(photo.source) for photo in whole.photos)


def test_a_photo_that_changes_meanwhile_stops_everything(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")

    def change(what: str, done: int, total: int) -> None:
        if what == "writing shards":
            for path in data.rglob("*.png"):
                path.write_bytes(path.read_bytes() + b" ")

    with pytest.raises(
        DataError, match=r"changed while the shards were written \(other bytes\), so nothing was written"
    ):
        shard(data, tmp_path / "out", on_progress=change)
    assert not (tmp_path / "out").exists()


def test_the_room_is_counted_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, asked = folder(tmp_path / "data"), list[int]()
    monkeypatch.setattr(sharded, "require_space", lambda _, needed: asked.append(needed))
    report = shard(data, tmp_path / "out", size="3KB")
    assert report.bytes <= asked[0] < report.bytes + 20_000

    def no_room(*_: Any) -> None:
        raise DiskError("out has 1 MB free and 2 MB are needed; choose another folder with --out.", code="no-space")

    monkeypatch.setattr(sharded, "require_space", no_room)
    with pytest.raises(DiskError, match=r"choose another folder\.$"):
        shard(data, tmp_path / "out-2")
    assert not list(tmp_path.glob("*out-2"))


def test_copies_and_pictures_saved_anew_are_in_one_group(tmp_path: Path) -> None:
    from tests.verbs.conftest import draw

    data = tmp_path / "data"
    for label, name in enumerate(("lying", "standing")):
        (data / name).mkdir(parents=True)
        for number in range(3):
            draw(label, number).save(data / name / f"{number}.jpg", quality=95)
    draw(0, 1).save(data / "lying" / "1 again.jpg", quality=60)
    (data / "standing" / "copy.jpg").write_bytes((data / "standing" / "2.jpg").read_bytes())
    report = written(data, tmp_path / "out")
    assert report.near_duplicates == 4
    photos = scan(tmp_path / "out").photos
    assert isinstance(photos, IndexedPhotos)
    groups = {photo.name: photos[int(first)].name for photo, first in zip(photos, photos.groups, strict=True)}
    assert {name: first for name, first in groups.items() if name != first} == {
        "lying/1.jpg": "lying/1 again.jpg",
        "standing/copy.jpg": "standing/2.jpg",
    }
    assert hashlib.sha256((data / "lying/1.jpg").read_bytes()).hexdigest() in set(photos.hashes)
