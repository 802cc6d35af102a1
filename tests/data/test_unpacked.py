"""Compressed archives as DATA: unpacked once into the cache, bounded, mended, and never half there."""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import logging
import lzma
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from plusx.data import entries, unpacked
from plusx.data.entries import cache_entries, cache_folder, cache_size, clear
from plusx.data.source import Listing, content_hashes, scan, walk
from plusx.errors import DataError, DiskError, Error
from plusx.images.source import read
from plusx.verbs.cache import cache as cache_verb
from plusx.verbs.labelled import name_of
from tests.data.test_source_tar import NAMES, make_tar

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
ENDINGS = {"tar.gz": "gz", "tgz": "gz", "tar.bz2": "bz2", "tbz2": "bz2", "tar.xz": "xz", "txz": "xz"}


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test has in use is let go when it ends, as when a process ends."""
    monkeypatch.setattr(unpacked, "_held", {})
    yield
    let_go()


def let_go() -> None:
    for held in unpacked._held.values():
        os.close(held.descriptor)
    unpacked._held.clear()


def packed(folder: Path, ending: str = "tar.xz", names: tuple[str, ...] = NAMES, stem: str = "a") -> Path:
    """A compressed archive of small files, each with its own name as its bytes."""
    plain = make_tar(folder / "plain" / f"{stem}.tar", names)
    path = folder / f"{stem}.{ending}"
    path.write_bytes(COMPRESS[ENDINGS[ending]](plain.read_bytes()))
    plain.unlink()
    plain.parent.rmdir()
    return path


def contents(listing: Listing) -> list[bytes]:
    return [read(photo.source) for photo in listing.photos]


def fault(path: Path) -> Error:
    with pytest.raises(Error) as caught:
        scan(path)
    assert list(cache_folder().glob("tmp-*")) == []  # nothing half-made stays
    return caught.value


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_a_compressed_archive_is_read_as_the_tar_in_it_under_its_own_name(tmp_path: Path, ending: str) -> None:
    path = packed(tmp_path, ending)
    before = path.read_bytes()
    listing = scan(path)
    assert [photo.name for photo in listing.photos] == [f"a.{ending}!/{name}" for name in NAMES]
    assert contents(listing) == [b"bytes of " + name.encode() for name in NAMES]
    assert listing.classes == ("cat", "dog")
    plain = scan(make_tar(tmp_path / "other" / "a.tar"))
    assert content_hashes(listing.photos) == content_hashes(plain.photos)
    assert [path.name for path in tmp_path.glob("a*")] == [f"a.{ending}"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["a.tar", "a.tgz"])
@pytest.mark.parametrize("kind", [*COMPRESS, "plain"])
def test_the_first_bytes_decide_and_not_the_name(tmp_path: Path, name: str, kind: str) -> None:
    data = make_tar(tmp_path / "plain.tar").read_bytes()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / name).write_bytes(data if kind == "plain" else COMPRESS[kind](data))
    listing = scan(tmp_path / "d" / name)
    assert contents(listing) == [b"bytes of " + n.encode() for n in NAMES]
    assert len(cache_entries()) == (kind != "plain")


def test_globs_folders_of_archives_and_several_archives_are_the_same_data(tmp_path: Path) -> None:
    packed(tmp_path / "d", "tar.xz", NAMES[:3], "s-0")
    packed(tmp_path / "d", "tgz", ("cat/7.jpg", "dog/7.jpg"), "s-1")
    make_tar(tmp_path / "d" / "s-2.tar", ("cat/8.jpg",))
    (tmp_path / "d" / "README.txt").write_text("about")
    whole = scan(tmp_path / "d")
    assert len(whole.photos) == 6
    assert whole.photos[-1].name == "s-2.tar!/cat/8.jpg"
    for data in (f"{tmp_path}/d/s-*", [tmp_path / "d" / n for n in ("s-0.tar.xz", "s-1.tgz", "s-2.tar")]):
        assert scan(data).photos == whole.photos
    assert [photo.name for photo in walk([tmp_path / "d"])] == [f"{tmp_path}/d/{p.name}" for p in whole.photos]


def test_beside_loose_photos_a_compressed_archive_is_left_out(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(name.encode())
    packed(tmp_path / "d")
    listing = scan(tmp_path / "d")
    assert [photo.name for photo in listing.photos] == list(NAMES)
    assert listing.junk == ("a.tar.xz",)
    assert cache_entries() == []


def test_it_is_unpacked_once_for_every_content_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path)
    scan(path)
    (entry,) = cache_entries()
    path.rename(tmp_path / "b.tar.xz")
    monkeypatch.setattr(unpacked, "_unpack", None)
    again = scan(tmp_path / "b.tar.xz")
    assert again.photos[0].name == "b.tar.xz!/cat/0.jpg"
    assert Path(again.photos[0].source.file) == entry.folder / "archive.tar"


@pytest.mark.parametrize("damage", ["removed", "cut", "no-index", "half-an-index"])
def test_an_entry_that_is_gone_or_damaged_is_made_again(tmp_path: Path, damage: str) -> None:
    path = packed(tmp_path)
    before = contents(scan(path))
    let_go()
    folder = cache_entries()[0].folder
    match damage:
        case "removed":
            assert clear() > 0
        case "cut":
            os.truncate(folder / "archive.tar", 2048)
        case "no-index":
            (folder / "index.json").unlink()
        case _:
            (folder / "index.json").write_text('{"si')
    assert contents(scan(path)) == before


@pytest.mark.parametrize("ending", ["tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "only-magic"])
def test_a_damaged_stream_is_a_sentence_and_leaves_nothing(tmp_path: Path, ending: str, damage: str) -> None:
    noise = np.random.default_rng(0).bytes(20_000)
    make_tar(tmp_path / "plain.tar", {"cat/0.jpg": noise, "dog/0.jpg": noise[::-1]})
    data = bytearray(COMPRESS[ENDINGS[ending]]((tmp_path / "plain.tar").read_bytes()))
    if damage == "flipped":
        data[len(data) // 2] ^= 255
    path = tmp_path / f"a.{ending}"
    path.write_bytes(data if damage == "flipped" else data[: 6 if damage == "only-magic" else len(data) // 2])
    error = fault(path)
    assert isinstance(error, DataError)
    assert error.message.startswith(f"{path} cannot be unpacked (")
    assert error.message.endswith("): it is cut off or damaged; copy or download it again.")
    assert cache_entries() == []


def test_a_whole_stream_of_no_whole_tar_is_named_as_the_user_calls_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(make_tar(tmp_path / "plain.tar").read_bytes()[:2048]))
    assert fault(path).message.startswith(f"{path} is no whole tar archive (")


@pytest.mark.parametrize("name", ["a.tar.zst", "a.zip", "a.tar", "a.tgz"])
def test_other_compressions_lead_to_unpacking_by_hand(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes((b"PK\x03\x04" if name.endswith("zip") else b"\x28\xb5\x2f\xfd") + bytes(2000))
    how = f"unzip {path}" if name.endswith("zip") else f"tar -xf {path}"
    assert fault(path).message == (
        f"{path} is compressed otherwise than .tar.gz, .tar.bz2 and .tar.xz, which can be read: "
        f"unpack it first with {how} and name the folder."
    )


def test_a_bomb_is_stopped_at_the_bound_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUSX_CACHE_GB", "0.01")
    path = tmp_path / "bomb.tar.xz"
    with lzma.open(path, "wb") as stream:
        for _ in range(30):
            stream.write(bytes(1_000_000))
    assert path.stat().st_size < 10_000
    assert fault(path).message == (
        f"{path} holds more than the 0.01 GB that the cache may hold, so it was not unpacked: if it should be so "
        f"large, set PLUSX_CACHE_GB to more, or unpack it yourself with tar -xf {path} and name the folder."
    )
    assert cache_size() == 0


def test_the_least_recently_used_archive_goes_first_and_one_in_use_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (packed(tmp_path, names=(*NAMES, f"cat/{i}{i}.jpg"), stem=f"s{i}") for i in range(3))
    scan(first)
    size = cache_size()
    monkeypatch.setenv("PLUSX_CACHE_GB", str(2.5 * size / 1e9))
    scan(second)
    newest = {entry.folder for entry in cache_entries()}
    let_go()
    os.utime(Path(scan(first).photos[0].source.file).parent, (1_000, 1_000))  # the older one, and in use
    scan(third)
    assert Path(scan(first).photos[0].source.file).parent in newest
    assert len(cache_entries()) == 2
    monkeypatch.setenv("PLUSX_CACHE_GB", str(1.5 * size / 1e9))
    error = fault(second)
    assert isinstance(error, DiskError)
    assert error.message.startswith(
        f"{second} cannot be unpacked: there is no room left in {cache_folder()}, on its disk or within its "
    )
    assert error.message.endswith(f"or unpack it yourself with tar -xf {second} and name the folder.")
    let_go()
    scan(second)
    assert len(cache_entries()) == 1


def test_a_disk_without_room_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path)
    monkeypatch.setattr(entries, "SPARE", 10**18)
    assert "there is no room left in" in fault(path).message


def test_a_disk_that_fills_up_on_the_way_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    error = fault(path)
    assert isinstance(error, DiskError)
    assert error.message == (
        f"{path} cannot be unpacked into {cache_folder()} (No space left on device): set XDG_CACHE_HOME to a folder "
        f"that can be written, or unpack it yourself with tar -xf {path} and name the folder."
    )
    assert cache_size() == 0


def test_a_cache_that_cannot_be_made_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "(Not a directory): set XDG_CACHE_HOME to a folder that can be written" in fault(path).message


def test_what_cannot_be_unpacked_is_one_row_with_an_error_in_a_walk(tmp_path: Path) -> None:
    path = packed(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    assert [photo.name for photo in walk([path])] == [str(path)]


def test_somebody_who_waits_is_told_for_what_and_only_the_first_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = packed(tmp_path)
    monkeypatch.setattr(unpacked, "_PATIENCE", -1.0)
    for _ in range(2):
        scan(path)
    assert caplog.record_tuples == [
        ("plusx", logging.WARNING, f"{path} is compressed: it is unpacked into {cache_folder()}, this once.")
    ]


def test_the_cache_verb_counts_archives_and_leaves_those_in_use(tmp_path: Path) -> None:
    scan(packed(tmp_path))
    before = cache_verb(clear=True)
    assert (before.entries, before.archives, before.freed) == (1, 1, 0)
    assert "0 decoded sets and 1 unpacked archive, " in before.lines()[-1]
    let_go()
    after = cache_verb(clear=True)
    assert (after.entries, after.archives) == (0, 0)
    assert after.freed == before.size


def test_an_archive_is_kept_while_a_process_uses_it_and_no_longer(tmp_path: Path) -> None:
    path = packed(tmp_path)
    code = f"from plusx.data.source import scan; scan({str(path)!r}); print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        assert clear() == 0
        other.communicate("\n")
    assert clear() > 0


def test_a_run_is_called_after_the_folder_of_its_archive(tmp_path: Path) -> None:
    assert name_of([str(tmp_path / "pets" / "photos.tar.xz")]) == "pets"


def test_the_index_says_how_many_bytes_there_should_be(tmp_path: Path) -> None:
    scan(packed(tmp_path))
    folder = cache_entries()[0].folder
    assert json.loads((folder / "index.json").read_text()) == {"size": (folder / "archive.tar").stat().st_size}
    with tarfile.open(folder / "archive.tar") as archive:
        assert archive.getnames() == list(NAMES)
