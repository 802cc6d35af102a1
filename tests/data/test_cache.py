"""The cache of decoded photos: right bytes, built once, bounded, mended, and never fatal."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plusx.data import cache
from plusx.data.cache import PixelStore, StreamingStore, pixel_store
from plusx.data.entries import cache_entries, cache_folder, cache_limit, cache_size, clear
from plusx.data.source import Photo
from plusx.durable import locked
from plusx.errors import DataError, UsageError
from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool, Source
from plusx.images.preprocess import Preprocess
from plusx.verbs.cache import cache as cache_verb
from tests.images.heic import heic

PREPROCESS = Preprocess(resize=8, crop=8)
PHOTO_BYTES = 8 * 8 * 3
BUILD = """
import sys
import numpy as np
from plusx.data.cache import pixel_store
from plusx.data.source import Photo
from plusx.images.pool import Source
from plusx.images.preprocess import Preprocess

folder, n, built = sys.argv[1], int(sys.argv[2]), []

def progress(done, total):
    if not built:
        print("building", flush=True)
        sys.stdin.readline()  # stays here until it is told to go on
    built.append(done)

photos = [Photo(f"{i}.png", Source(f"{folder}/{i}.png"), 0, None) for i in range(n)]
print("started", flush=True)
store, bad = pixel_store(photos, [str(i) for i in range(n)], Preprocess(8, 8), workers=0, on_progress=progress)
print(len(built), store.read(np.arange(n)).sum(), store.notice)
"""


def draw_photos(folder: Path, n: int = 5) -> list[Photo]:
    """n files of noise, 8 x 8 pixels, so that preprocess leaves them as they are."""
    folder.mkdir(exist_ok=True)
    for i in range(n):
        Image.fromarray(noise(i)).save(folder / f"{i}.png")
    return [Photo(f"{i}.png", Source(str(folder / f"{i}.png")), 0, None) for i in range(n)]


def noise(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def hashes_of(photos: list[Photo]) -> list[str]:
    return [hashlib.sha256(Path(photo.source.file).read_bytes()).hexdigest() for photo in photos]


def opened(photos: list[Photo], preprocess: Preprocess = PREPROCESS) -> tuple[PixelStore | StreamingStore, list[int]]:
    """The store and what its progress callback heard: nothing, where it was opened and not built."""
    heard: list[int] = []
    store, bad = pixel_store(
        photos, hashes_of(photos), preprocess, workers=0, on_progress=lambda *told: heard.append(told[0])
    )
    assert not bad
    return store, heard


@pytest.fixture
def pictures(tmp_path: Path) -> list[Photo]:
    return draw_photos(tmp_path / "pictures")


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """A set of file names on which workers die, for as long as they stand in it."""
    dying: set[str] = set()
    real = DecodePool.map

    def map_with_deaths(self: DecodePool, sources: Iterable[Source]) -> Iterator[tuple[int, object]]:
        listed = list(sources)
        for i, result in real(self, listed):
            dead = Path(listed[i].file).name in dying
            yield i, BadPhoto("worker-died", "its worker died") if dead else result

    monkeypatch.setattr(DecodePool, "map", map_with_deaths)
    return dying


def test_the_store_holds_the_bytes_that_preprocess_gives(pictures: list[Photo]) -> None:
    store, heard = opened(pictures)
    assert len(store) == 5
    assert store.size == 8
    assert store.notice is None
    assert heard == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(store.read(np.array([3, 0])), np.stack([noise(3), noise(0)]))
    store.close()


def test_real_photos_are_cached_as_the_decoder_gives_them(tmp_path: Path, photos: Path) -> None:
    import tarfile

    with tarfile.open(photos / "dogs-vs-cats" / "train-0.tar") as tar:
        members = [m for m in tar if m.isfile()][:6]
    sources = [Source(str(photos / "dogs-vs-cats" / "train-0.tar"), m.offset_data, m.size) for m in members]
    preprocess = Preprocess(resize=36, crop=32)
    listed = [Photo(m.name, s, 0, None) for m, s in zip(members, sources, strict=True)]
    store, bad = pixel_store(listed, [m.name for m in members], preprocess, workers=2)
    assert not bad
    for i, source in enumerate(sources):
        with open(source.file, "rb") as file:
            file.seek(source.offset)
            np.testing.assert_array_equal(store.read(np.array([i]))[0], preprocess.from_bytes(file.read(source.length)))
    store.close()


def test_a_second_opening_decodes_nothing(pictures: list[Photo]) -> None:
    opened(pictures)[0].close()
    store, heard = opened(pictures)
    assert heard == []
    np.testing.assert_array_equal(store.read(np.array([4]))[0], noise(4))
    store.close()


def test_another_preprocess_order_or_content_is_another_entry(pictures: list[Photo]) -> None:
    opened(pictures)[0].close()
    opened(pictures, Preprocess(resize=9, crop=8))[0].close()
    opened(pictures[::-1])[0].close()
    Image.fromarray(noise(99)).save(pictures[2].source.file)
    store, heard = opened(pictures)
    assert len(heard) == 5
    np.testing.assert_array_equal(store.read(np.array([2]))[0], noise(99))
    assert len(cache_entries()) == 4
    store.close()


@pytest.mark.parametrize("damage", ["short", "long", "no-pixels", "no-index", "half-an-index", "another-count"])
def test_a_damaged_entry_is_built_again(pictures: list[Photo], damage: str) -> None:
    opened(pictures)[0].close()
    folder = cache_entries()[0].folder
    match damage:
        case "short":
            os.truncate(folder / "pixels.u8", 5 * PHOTO_BYTES - 1)
        case "long":
            os.truncate(folder / "pixels.u8", 5 * PHOTO_BYTES + 1)
        case "no-pixels":
            (folder / "pixels.u8").unlink()
        case "no-index":
            (folder / "index.json").unlink()
        case "half-an-index":
            (folder / "index.json").write_text('{"count": 5,')
        case _:
            (folder / "index.json").write_text('{"count": 6, "bad": {}}')
    store, heard = opened(pictures)
    assert heard == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(store.read(np.arange(5)), np.stack([noise(i) for i in range(5)]))
    store.close()


def test_a_bad_photo_is_named_and_remembered_and_its_pixels_are_zero(pictures: list[Photo]) -> None:
    Path(pictures[1].source.file).write_bytes(b"")
    for _ in range(2):
        store, bad = pixel_store(pictures, hashes_of(pictures), PREPROCESS, workers=0)
        assert {i: b.code for i, b in bad.items()} == {1: "empty"}
        assert not store.read(np.array([1])).any()
        store.close()


def test_a_heic_refused_for_want_of_its_extra_is_read_once_that_is_there(
    pictures: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pi_heif")
    shades = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Path(pictures[1].source.file).write_bytes(heic(shades))
    hashes = hashes_of(pictures)
    with monkeypatch.context() as before:
        before.setattr("plusx.images.decode.heif_version", lambda: None)
        store, bad = pixel_store(pictures, hashes, PREPROCESS, workers=0)
        assert "pip install 'plusx[heif]'" in bad[1].reason
        store.close()
    store, bad = pixel_store(pictures, hashes, PREPROCESS, workers=0)
    assert bad == {}
    np.testing.assert_array_equal(store.read(np.array([1]))[0], PREPROCESS.from_bytes(heic(shades)))
    store.close()


def test_photos_whose_names_are_no_utf8_are_cached(tmp_path: Path) -> None:
    names = [os.fsdecode(name) for name in (b"caf\xe9.png", b"\xff.png")]
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
        Image.fromarray(noise(0)).save(folder / names[0])
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (folder / names[1]).symlink_to("nowhere")
    photos = [Photo(name, Source(str(folder / name)), 0, None) for name in names]
    for _ in range(2):  # the second time from the index
        store, bad = pixel_store(photos, ["0", "1"], PREPROCESS, workers=1)
        assert {i: b.code for i, b in bad.items()} == {1: "unreadable"}
        np.testing.assert_array_equal(store.read(np.array([0]))[0], noise(0))
        store.close()


def test_a_fault_that_may_pass_is_looked_at_again(pictures: list[Photo], passing: set[str]) -> None:
    """D18, T31."""
    passing.add("2.png")
    hashes = hashes_of(pictures)
    heard: list[int] = []
    for expected in ({2: "worker-died"}, {2: "worker-died"}, {}):
        if not expected:
            passing.clear()
        store, bad = pixel_store(
            pictures, hashes, PREPROCESS, workers=0, on_progress=lambda *told: heard.append(told[1])
        )
        assert {i: b.code for i, b in bad.items()} == expected
        store.close()
    assert heard == [5] * 5 + [1, 1]
    store, heard_last = opened(pictures)
    assert heard_last == []
    np.testing.assert_array_equal(store.read(np.arange(5)), np.stack([noise(i) for i in range(5)]))
    store.close()


def test_two_processes_that_need_the_same_entry_build_it_once(tmp_path: Path) -> None:
    draw_photos(tmp_path / "pictures")
    command = [sys.executable, "-c", BUILD, str(tmp_path / "pictures"), "5"]

    def start(word: str) -> subprocess.Popen[str]:
        run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        assert any(line.strip() == word for line in run.stdout)
        return run

    first, second = start("building"), start("started")
    with pytest.raises(subprocess.TimeoutExpired):  # it waits, while the first is in the middle of building
        second.wait(timeout=0.5)
    answers = [run.communicate("go on\n", timeout=60)[0].split() for run in (first, second)]
    total = str(sum(int(noise(i).sum(dtype=np.int64)) for i in range(5)))
    assert answers == [["5", total, "None"], ["0", total, "None"]]
    assert len(cache_entries()) == 1


def test_the_least_recently_used_entry_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [draw_photos(tmp_path / name, 20 + i) for i, name in enumerate("abc")]
    monkeypatch.setenv("PLUSX_CACHE_GB", str(2.5 * 22 * PHOTO_BYTES / 1e9))
    for pictures in sets[:2]:
        opened(pictures)[0].close()
    for age, entry in enumerate(cache_entries()):
        os.utime(entry.folder, (1_000 + age, 1_000 + age))
    opened(sets[0])[0].close()  # used again: now the second is the oldest
    opened(sets[2])[0].close()
    assert cache_size() <= 2.5 * 22 * PHOTO_BYTES
    again = [opened(pictures) for pictures in (sets[0], sets[1])]
    assert [len(heard) for _, heard in again] == [0, 21]
    for store, _ in again:
        store.close()


def test_an_entry_in_use_is_not_evicted_and_the_next_set_is_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = draw_photos(tmp_path / "a", 20), draw_photos(tmp_path / "b", 21)
    monkeypatch.setenv("PLUSX_CACHE_GB", str(1.5 * 21 * PHOTO_BYTES / 1e9))
    held, _ = opened(first)
    streamed, _ = opened(second)
    assert isinstance(streamed, StreamingStore)
    assert "other runs use the rest of the cache" in streamed.notice
    assert clear() == 0
    np.testing.assert_array_equal(streamed.read(np.array([20, 3])), np.stack([noise(20), noise(3)]))
    held.close()
    streamed.close()
    store, _ = opened(second)
    assert isinstance(store, PixelStore)
    store.close()


def test_a_set_larger_than_the_cache_is_streamed_and_says_so(
    pictures: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUSX_CACHE_GB", "0.0000005")
    store, heard = opened(pictures)
    assert store.notice == (
        "The decoded photos need 9.6e-07 GB and the cache may hold 5e-07 GB, so they are decoded anew in every "
        "epoch, which is slower; choose a smaller --size or set PLUSX_CACHE_GB to more."
    )
    assert heard == [1, 2, 3, 4, 5]
    assert len(store) == 5
    np.testing.assert_array_equal(store.read(np.array([1, 1, 4])), np.stack([noise(1), noise(1), noise(4)]))
    assert cache_size() == 0
    store.close()


def test_a_full_disk_streams_instead(pictures: list[Photo], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SPARE", 10**18)
    store, _ = opened(pictures)
    assert store.notice is not None
    assert "free some space, choose a smaller --size or set XDG_CACHE_HOME to another disk" in store.notice
    store.close()


def test_a_disk_that_fills_up_while_the_entry_is_written_streams_instead(
    pictures: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    store, _ = opened(pictures)
    assert store.notice is not None
    assert "(No space left on device)" in store.notice
    assert cache_size() == 0
    store.close()


def test_a_cache_folder_that_cannot_be_made_streams_instead(
    pictures: list[Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    store, _ = opened(pictures)
    assert store.notice is not None
    assert "(Not a directory)" in store.notice
    assert "set XDG_CACHE_HOME to a folder that can be written" in store.notice
    store.close()


def test_a_photo_lost_while_streaming_is_named(pictures: list[Photo], monkeypatch: pytest.MonkeyPatch) -> None:
    """D18."""
    monkeypatch.setenv("PLUSX_CACHE_GB", "0")
    store, _ = opened(pictures)
    Path(pictures[3].source.file).write_bytes(b"")
    with pytest.raises(DataError, match=r"^3\.png could be read when this run began and now cannot \(.*--resume\.$"):
        store.read(np.array([0, 3]))
    store.close()


def test_a_worker_that_dies_while_streaming_gets_a_second_chance(
    pictures: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUSX_CACHE_GB", "0")
    store, _ = opened(pictures)
    real, asked = DecodePool.map, []

    def map_with_one_death(self: DecodePool, sources: list[Source]) -> Iterator[tuple[int, object]]:
        asked.append(len(sources))
        for i, result in real(self, sources):
            yield i, BadPhoto("worker-died", "its worker died") if len(asked) == i == 1 else result

    monkeypatch.setattr(DecodePool, "map", map_with_one_death)
    np.testing.assert_array_equal(store.read(np.array([4, 2])), np.stack([noise(4), noise(2)]))
    assert asked == [2, 1]
    store.close()


def test_a_limit_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("plenty", "nan", "-1", "inf"):
        monkeypatch.setenv("PLUSX_CACHE_GB", text)
        with pytest.raises(UsageError) as caught:
            cache_limit()
        assert caught.value.message == (
            f"PLUSX_CACHE_GB is {text!r}, and a number of gigabytes such as 20 or 0.5 was expected; "
            "correct it or unset it."
        )


def test_no_photos_at_all_is_an_empty_store() -> None:
    store, heard = opened([])
    assert len(store) == 0
    assert heard == []
    assert store.read(np.array([], dtype=np.int64)).shape == (0, 8, 8, 3)
    store.close()


def test_what_an_interrupted_build_left_is_swept_but_not_a_build_in_progress(pictures: list[Photo]) -> None:
    opened(pictures)[0].close()
    for key in ("dead", "living"):
        (cache_folder() / f"tmp-{key}-0123").mkdir()
        (cache_folder() / f"tmp-{key}-0123" / "pixels.u8").write_bytes(b"12345")
    with locked(cache_folder() / "locks" / "living"):
        assert cache_size() > 5 * PHOTO_BYTES + 10
        clear()
        assert [p.name for p in cache_folder().glob("tmp-*")] == ["tmp-living-0123"]
    assert clear() == 5
    assert cache_size() == 0


def test_the_cache_verb_reports_and_clears(pictures: list[Photo]) -> None:
    opened(pictures)[0].close()
    before = cache_verb()
    assert before.entries == 1
    assert before.size == cache_size() >= 5 * PHOTO_BYTES
    after = cache_verb(clear=True)
    assert (after.entries, after.size, after.freed) == (0, 0, before.size)


def test_opening_an_entry_marks_it_as_used(pictures: list[Photo]) -> None:
    opened(pictures)[0].close()
    os.utime(cache_entries()[0].folder, (1_000, 1_000))
    opened(pictures)[0].close()
    assert cache_entries()[0].used > time.time() - 100
