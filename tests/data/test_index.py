"""The index of shards: nothing that a stranger wrote into it is believed, and shards that changed are noticed."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from plusx.data.cache import pixel_store
from plusx.data.index import INDEX, KEY, Index, open_index
from plusx.data.listing import Digests, IndexedPhotos, Names, Sides, at, called, labels_of, relabelled, splits_of
from plusx.data.source import Photo, content_hashes, scan
from plusx.doctor.folder import check
from plusx.errors import DataError
from plusx.images.preprocess import Preprocess
from plusx.images.source import MAX_BYTES, read
from tests.data.shards import decoding_here, with_splits, written

Columns = dict[str, Any]
Document = dict[str, Any]


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards of 24 photos in three splits."""
    decoding_here(monkeypatch)
    written(with_splits(tmp_path / "data"), tmp_path / "out")
    return tmp_path / "out"


def rewritten(shards: Path, change: Callable[[Columns, Document], object]) -> None:
    """The index after somebody has changed it."""
    path = shards / INDEX
    columns = {name: array.copy() for name, array in safetensors.numpy.load_file(path).items()}
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    document = json.loads(json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"][KEY])
    change(columns, document)
    safetensors.numpy.save_file(columns, path, metadata={KEY: json.dumps(document)})


def put(name: str, row: int, value: int) -> Callable[[Columns, Document], object]:
    return lambda columns, _: columns[name].__setitem__(row, value)


def say(key: str, value: Any) -> Callable[[Columns, Document], object]:
    return lambda _, document: document.__setitem__(key, value)


def column(name: str, value: Any) -> Callable[[Columns, Document], object]:
    return lambda columns, _: columns.__setitem__(name, value)


SHARDS = [f"{i:06}.tar" for i in range(20)]
ATTACKS: list[tuple[Callable[[Columns, Document], object], str]] = [
    (put("shard", 3, 99), "its photo 4 has a shard that there is not"),
    (put("shard", 3, -1), "its photo 4 has a shard that there is not"),
    (put("offset", 0, -512), "its photo 1 has bytes outside of its shard"),
    (put("offset", 23, 1 << 62), "its photo 24 has bytes outside of its shard"),
    (put("offset", 2, (1 << 63) - 1), "its photo 3 has bytes outside of its shard"),
    (put("length", 1, 1 << 20), "its photo 2 has bytes outside of its shard"),
    (put("length", 1, MAX_BYTES + 1), "its photo 2 has a length that no photo has"),
    (put("length", 1, -1), "its photo 2 has a length that no photo has"),
    (put("label", 1, 2), "its photo 2 has a class that there is not"),
    (put("label", 1, -1), "its photo 2 has a class that there is not"),
    (put("split", 1, 3), "its photo 2 has a split that there is not"),
    (put("split", 1, -2), "its photo 2 has a split that there is not"),
    (put("group", 1, 2), "its photo 2 has a group that begins after it"),
    (put("group", 1, -1), "its photo 2 has a group that begins after it"),
    (lambda columns, _: columns["group"].__setitem__(slice(1, 3), [0, 1]), "its photo 3 has a group that is none"),
    (put("name_ends", 0, 0), "its photo 1 has no name"),
    (put("name_ends", 0, -5), "its photo 1 has no name"),
    (put("name_ends", 1, 1), "its photo 2 has no name"),
    (put("name_ends", 23, 1 << 40), "its photo 24 has no name"),
    (column("names", np.zeros(9999, np.uint8)), "its names do not end where their bytes do"),
    (column("names", np.zeros((4, 4), np.uint8)), "its column names is not as long as the others"),
    (column("label", np.zeros(23, np.int32)), "its column label is not as long as the others"),
    (column("label", np.zeros(24, np.float32)), "its column label has numbers of another type, or none"),
    (column("sha256", np.zeros((24, 31), np.uint8)), "its column sha256 is not as long as the others"),
    (column("more", np.zeros(1, np.uint8)), "its columns are not those of an index"),
    (lambda columns, _: columns.pop("group"), "its columns are not those of an index"),
    (lambda columns, _: columns.update({n: a[:0] for n, a in columns.items()}), "another type, or none"),
    (say("format", 2), "its format is not 1"),
    (say("classes", ["cat", "cat"]), "it names a class or a shard twice"),
    (say("classes", []), "its classes are not as written"),
    (say("classes", ["cat", 7]), "its classes are not as written"),
    (say("classes", {"cat": 1}), "its classes are not as written"),
    (say("shards", [*SHARDS[:-1], "../../etc/passwd.tar"]), "its shards are not called as shards are"),
    (say("shards", ["/etc/000000.tar"]), "its shards are not called as shards are"),
    (say("shards", ["train/../000000.tar"]), "its shards are not called as shards are"),
    (say("shards", ["000000.tar\n"]), "its shards are not called as shards are"),
    (say("shards", ["000000.tar", "000000.tar"]), "it names a class or a shard twice"),
    (say("bytes", [True]), "the sizes of its shards are not as written"),
    (say("bytes", [-1]), "the sizes of its shards are not as written"),
    (say("bytes", [1 << 62]), "the sizes of its shards are not as written"),
    (say("bytes", [2048]), "it does not say of every shard"),
    (say("sha256", ["00"]), "or their SHA-256 are none"),
    (say("sha256", None), "its sha256 are not as written"),
]


@pytest.mark.parametrize(("change", "why"), ATTACKS)
def test_an_index_that_says_what_cannot_be_is_refused(
    change: Callable[[Columns, Document], object], why: str, shards: Path
) -> None:
    rewritten(shards, change)
    with pytest.raises(DataError) as caught:
        scan(shards)
    assert why in caught.value.message
    assert caught.value.exit_code == 3
    assert caught.value.message.startswith(f"{shards / INDEX} is no index of shards as plusx writes it")
    assert caught.value.message.endswith("or move the file away and the tars are read without it.")


@pytest.mark.parametrize("content", [b"", b"\x80\x04x", b"\0" * 100, b"\x02\0\0\0\0\0\0\0{}", b"no safetensors file"])
def test_a_file_of_that_name_that_is_none_is_refused_or_passed_over(content: bytes, shards: Path) -> None:
    (shards / INDEX).write_bytes(content)
    if content.endswith(b"{}"):  # of somebody else: a safetensors file without our key
        assert len(scan(shards).photos) == 24
        assert not isinstance(scan(shards).photos, IndexedPhotos)
        return
    with pytest.raises(DataError, match="is no index of shards as plusx writes it"):
        scan(shards)


def test_every_cut_of_an_index_is_refused(shards: Path) -> None:
    whole = (shards / INDEX).read_bytes()
    for end in range(0, len(whole), 97):
        (shards / INDEX).write_bytes(whole[:end])
        with pytest.raises(DataError, match="is no index of shards as plusx writes it"):
            scan(shards)


def test_an_index_is_refused_or_harmless_whatever_byte_of_it_is_changed(shards: Path) -> None:
    """What gets through reads from inside its shards."""
    whole, random = (shards / INDEX).read_bytes(), np.random.default_rng(0)
    for place in random.integers(8, len(whole), 120).tolist():
        changed = bytearray(whole)
        changed[place] ^= 1 << int(random.integers(8))
        (shards / INDEX).write_bytes(changed)
        try:
            photos = scan(shards, trainable=False).photos
        except DataError:
            continue
        for photo in photos:
            path = Path(photo.source.file)
            assert not isinstance(photos, IndexedPhotos) or path.parent.parent == shards
            assert photo.source.offset + photo.source.length <= path.stat().st_size


def stale(shards: Path) -> str:
    with pytest.raises(DataError) as caught:
        scan(shards)
    assert caught.value.code == "stale-index"
    return caught.value.message


def test_a_shard_that_is_missing_longer_or_a_stranger_is_noticed(shards: Path) -> None:
    name = "train/000000.tar"
    one = shards / name
    content = one.read_bytes()
    one.unlink()
    assert stale(shards).startswith(
        f"{one} is missing or cannot be read, and the index beside the shards names it: copy"
    )
    one.write_bytes(content + b"x")
    assert f"it has {len(content) + 1:,} bytes and not {len(content):,}): copy it here again" in stale(shards)
    one.write_bytes(content)
    assert len(scan(shards).photos) == 24
    shutil.copy(one, shards / "val" / "000099.tar")
    assert f"{shards}/val/000099.tar lies beside the shards and their index does not name it" in stale(shards)


def test_a_check_notices_other_bytes_of_the_same_size(shards: Path) -> None:
    one = shards / "train" / "000000.tar"
    assert not check(shards, workers=0).unusable
    changed = bytearray(one.read_bytes())
    changed[600] ^= 1
    one.write_bytes(changed)
    assert len(scan(shards).photos) == 24
    with pytest.raises(DataError, match=r"train/000000.tar is not the shard .* other bytes than were written"):
        check(shards, workers=0)


def test_a_shard_with_other_bytes_leaves_no_pixels_for_the_data_it_was_written_from(shards: Path) -> None:
    """D13: the cache of decoded photos is keyed by SHA-256, which an index only claims."""
    how = Preprocess(resize=8, crop=8)
    photos = scan(shards).photos
    row = next(i for i, photo in enumerate(photos) if photo.name.endswith(".bmp"))
    source = photos[row].source
    data = bytearray(Path(source.file).read_bytes())
    data[source.offset + source.length - 1] ^= 255  # a pixel
    Path(source.file).write_bytes(data)
    photos = scan(shards).photos
    store, bad = pixel_store(photos, content_hashes(photos), how, workers=0)
    assert list(bad) == [row]
    assert "its bytes are not those that the index or the listing of its archive states" in bad[row].reason
    assert not store.read(np.array([row])).any()
    original = scan(shards.parent / "data").photos
    assert content_hashes(original) == content_hashes(photos), "one entry for both"
    store, bad = pixel_store(original, content_hashes(original), how, workers=0)
    assert not bad
    assert (store.read(np.arange(24)) == [how.from_bytes(read(p.source)) for p in original]).all()


def test_no_tar_is_opened_to_list_the_photos(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("a tar was looked into")

    monkeypatch.setattr("plusx.data.files.members", opened)
    monkeypatch.setattr("plusx.data.source._hash_run", opened)
    assert scan(shards).photos[0].name == "test/cat/40.gif"
    (shards / INDEX).unlink()
    with pytest.raises(AssertionError, match="looked into"):
        scan(shards)


def test_some_of_the_photos_are_as_all_of_them(shards: Path) -> None:
    photos = scan(shards).photos
    assert isinstance(photos, IndexedPhotos)
    objects: list[Photo] = list(photos)
    rows = np.array([0, 3, 7, 23])
    some = at(photos, rows)
    assert list(some) == [objects[i] for i in rows]
    assert list(photos[2:5]) == objects[2:5]
    assert photos[-1] == objects[-1]
    assert list(some.names()) == [objects[i].name for i in rows]  # type: ignore[attr-defined]
    for listed in (photos, some):
        assert labels_of(listed).tolist() == labels_of(list(listed)).tolist()
        assert splits_of(listed).tolist() == splits_of(list(listed)).tolist()
    assert [p.label for p in relabelled(some, np.array([1, 1, 0, 0]))] == [1, 1, 0, 0]
    assert [p.label for p in relabelled(tuple(some), np.array([1, 1, 0, 0]))] == [1, 1, 0, 0]
    assert called(photos, {objects[5].name}).nonzero()[0].tolist() == [5]
    assert Names(photos, rows)[1] == objects[3].name
    assert list(Names(photos, rows)[1:3]) == [objects[3].name, objects[7].name]
    with pytest.raises(IndexError):
        photos[24]


def test_hashes_and_splits_are_what_their_text_says() -> None:
    texts = [f"{i % 7:064x}" for i in range(20)]
    digests, sides = Digests.of(texts), Sides.of(["train", "", "test", "val"])
    assert list(digests) == texts == digests
    assert digests[3:5] == texts[3:5]
    assert digests.at(np.array([1, 2])) == texts[1:3]
    assert digests.but({0: "f" * 64}) == ["f" * 64, *texts[1:]]
    assert digests.but({}) is digests
    assert Digests.of([f"{i:016x}{0:048x}" for i in (3, 1, 3, 2)]).repeated().tolist() == [0, 2]
    assert list(sides) == ["train", "", "test", "val"] == sides
    assert sides[1:3] == ["", "test"]
    assert sides[-1] == "val"
    with pytest.raises(ValueError, match="non-hexadecimal"):
        digests.but({0: "no"})


def test_an_index_knows_the_names_of_its_rows(shards: Path) -> None:
    index = open_index(shards / INDEX, f"{shards}/")
    assert isinstance(index, Index)
    assert [index.name(row) for row in range(len(index))] == list(index.names())
