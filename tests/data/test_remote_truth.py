"""What is read from behind URLs is what was listed, and is asked for once: no server is needed for it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import fsspec
import numpy as np
import pytest

from plusx.config import Config
from plusx.data import fetch, reading, remote, shards, unpacked
from plusx.data.ahead import Ahead
from plusx.data.entries import LISTING, LOCKS, building, cache_folder, cache_size, clear
from plusx.data.fetch import Patience
from plusx.data.index import INDEX
from plusx.data.reading import read, through
from plusx.data.source import Photo, content_hashes, scan
from plusx.data.tar import Member
from plusx.durable import locked
from plusx.errors import DataError, DiskError, Error, UsageError
from plusx.errors import remote as sentences
from plusx.images.preprocess import Preprocess
from plusx.images.source import Source
from plusx.images.source import read as read_local
from plusx.verbs import windowed
from tests.data.shards import decoding_here, photo, with_splits, written

NEVER = 60  # seconds


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fetch, "PATIENCE", Patience(seconds=1.0, first=0.01, longest=0.1))
    monkeypatch.setattr(shards, "_expected", {})
    shards._listing.cache_clear()
    shards._is_packed.cache_clear()
    yield
    remote.forget()
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often the network was asked for what of which URL."""
    counted: Counter[tuple[str, str]] = Counter()
    real = fetch._call

    def call(url: str, name: str, *given: Any, **options: Any) -> Any:
        counted[name, url] += 1
        return real(url, name, *given, **options)

    monkeypatch.setattr(fetch, "_call", call)
    return counted


def in_memory(name: str, data: bytes) -> str:
    fsspec.filesystem("memory").pipe_file(f"/{name}", data)
    return f"memory://{name}"


def refusal(do: Callable[..., Any], *given: Any) -> Error:
    with pytest.raises(Error) as caught:
        do(*given)
    return caught.value


def packed(files: dict[str, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def archive(number: int = 0) -> bytes:
    """Photos of two classes, and something large."""
    photos = {f"{('cat', 'dog')[i % 2]}/{i}.png": photo(number + i) for i in range(4)}
    return packed({**photos, "large.txt": bytes(20_000)})


@pytest.fixture
def indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards of 24 photos with their index, on disk and behind memory://out/."""
    decoding_here(monkeypatch)
    written(with_splits(tmp_path / "data"), tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.*"):
        in_memory(f"out/{path.relative_to(tmp_path / 'out')}", path.read_bytes())
    return tmp_path / "out"


def bytes_of(sources: Iterable[Source]) -> Iterator[tuple[int, bytes]]:
    """In place of a pool that decodes."""
    for i, source in enumerate(sources):
        yield i, read_local(source)


def one_of_each(photos: Iterable[Photo]) -> list[Source]:
    """The first photo of every archive."""
    return [p.source for p in {p.source.file: p for p in reversed(list(photos))}.values()]


def test_a_part_of_an_object_that_was_replaced_is_refused() -> None:
    url = in_memory("x.tar", bytes(1000))
    remote.seen(url)
    in_memory("x.tar", bytes([1]) * 1000)
    for do in (remote.part, remote.local_part):
        told = refusal(do, url, 10, 20)
        assert told.code == "changed-url", do
        assert told.message.startswith("memory://x.tar was changed while this command was reading it")
    assert cache_size() == 0


def test_an_entry_that_was_cut_short_gives_no_short_part() -> None:
    url = in_memory("x.tar", bytes(range(100)))
    path = remote.local(url)
    remote.forget()
    path.write_bytes(b"")
    assert remote.part(url, 10, 20) == bytes(range(10, 30))


def test_of_shards_that_are_not_those_of_their_index_no_photo_is_read(
    indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where one is asked for, nor of few of an archive, nor in decoding processes."""
    monkeypatch.setattr(reading, "MUCH", 1)
    source = scan("memory://out/").photos[0].source
    url, place = source.file, source.offset + source.length - 1
    data = bytearray(fsspec.filesystem("memory").cat_file(f"/{url.removeprefix('memory://')}"))
    data[place] ^= 1
    remote.forget()
    in_memory(url.removeprefix("memory://"), bytes(data))
    source = scan("memory://out/").photos[0].source
    assert (
        "its bytes are not those that the index or the listing of its archive states" in refusal(read, source).message
    )
    told = refusal(list, through(bytes_of, [source]))
    assert told.code == "wrong-bytes", told.message
    local = replace(source, file=str(indexed / url.removeprefix("memory://out/")))
    assert len(read_local(local)) == source.length, "the bytes on disk are the right ones"
    Path(local.file).write_bytes(bytes(data))
    assert refusal(read_local, local).code == "unreadable"
    assert len(read_local(local, 8)) == 8, "the first bytes have no SHA-256"


def test_photos_of_a_listing_carry_their_sha256() -> None:
    in_memory("set/0.tar", archive())
    photos = scan("memory://set/0.tar", trainable=False).photos
    assert [p.source.sha256 for p in photos] == list(content_hashes(photos))


def test_shards_of_an_index_behind_a_url_are_fetched_once_each(
    indexed: Path, asked: Counter[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MUCH", 1)
    sources = one_of_each(scan("memory://out/").photos)
    ahead = Ahead()
    for source in sources:
        ahead.path(source.file)
    for _ in range(2):  # as a window is trained on
        assert len(list(through(bytes_of, sources))) == len(sources) > 3
    ahead.close()
    list(through(bytes_of, sources))  # not open any more, and still in the cache
    assert [read(source) for source in sources] == [data for _, data in sorted(through(bytes_of, sources))]
    fetched = {url: asked["cat_file", url] for url in (source.file for source in sources)}
    # The first six bytes, read out of the cache, say whether an archive is compressed.
    assert set(fetched.values()) == {1}, fetched
    assert sum(count for (name, url), count in asked.items() if name == "info" and url.endswith(".tar")) == 0


def test_whether_an_archive_is_compressed_is_asked_once(asked: Counter[tuple[str, str]]) -> None:
    url = in_memory("x.tar", archive())
    assert [shards.is_packed(url) for _ in range(3)] == [False] * 3
    assert asked["cat_file", url] == 1


def test_an_index_behind_a_url_that_is_stale_is_noticed(indexed: Path) -> None:
    name = "train/000000.tar"
    content = (indexed / name).read_bytes()

    def stale() -> str:
        remote.forget()
        told = refusal(scan, "memory://out")
        assert told.code == "stale-index"
        return told.message

    fsspec.filesystem("memory").rm_file(f"/out/{name}")
    assert stale().startswith(f"memory://out/{name} is missing or cannot be read")
    in_memory(f"out/{name}", content + b"x")
    assert f"it has {len(content) + 1:,} bytes and not {len(content):,}): copy it here again" in stale()
    in_memory(f"out/{name}", content)
    in_memory("out/val/000099.tar", content)
    assert "memory://out/val/000099.tar lies beside the shards and their index does not name it" in stale()
    fsspec.filesystem("memory").rm_file("/out/val/000099.tar")
    in_memory("out/more/000099.tar", content)  # no place of a shard
    remote.forget()
    assert len(scan("memory://out/").photos) == 24


def test_an_index_whose_server_lists_nothing_is_used_and_one_whose_network_is_lost_is_not(
    indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(error: DataError) -> None:
        def below(url: str) -> Any:
            raise error

        monkeypatch.setattr(fetch, "below", below)

    refuses(sentences.no_access("memory://out/", "no list"))
    assert len(scan("memory://out/").photos) == 24
    refuses(sentences.lost("memory://out/", "cut", 1.0))
    assert refusal(scan, "memory://out/").code == sentences.NETWORK


def test_a_server_without_ranges_is_told_and_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, asked: Counter[tuple[str, str]]
) -> None:
    url = in_memory("x.tar", bytes(1000))
    system = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(system, "cat_file", lambda *_, **__: bytes(1000))
    told = refusal(remote.part, url, 100, 50)
    assert (told.code, told.exit_code) == ("no-ranges", 3)
    assert told.message == (
        "memory://x.tar cannot be read in parts: 50 bytes of it were asked for and 1,000 came: its server knows no "
        "ranges; put the file on a server that does (S3 and most web servers), or download it and name the file."
    )
    assert asked["cat_file", url] == 1


def test_files_in_archives_are_hashed_in_pieces_and_never_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shards, "_PIECE", 1000)
    files = {"large.txt": bytes(range(256)) * 20, "empty.txt": b""}
    found = shards.listing(in_memory("x.tar", packed(files)))
    assert sorted(found.hashes.values()) == sorted(hashlib.sha256(data).hexdigest() for data in files.values())
    (tmp_path / "cut").write_bytes(bytes(2500))
    with (tmp_path / "cut").open("rb") as file:
        told = refusal(shards._hash, "memory://x.tar", file.fileno(), Member("a.jpg", 100, 4000))
    assert told.code == "bad-tar"
    assert "a.jpg ends 1,600 bytes too early" in told.message


def test_a_listing_for_which_there_is_no_room_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    needed: list[int] = []
    monkeypatch.setattr(shards, "make_room", lambda size: bool(needed.append(size)))
    url = in_memory("x.tar", archive())
    assert len(shards.listing(url).members) == 5
    assert not list(cache_folder().glob(f"*/{LISTING}"))
    monkeypatch.setattr(shards, "make_room", lambda _: True)
    shards._listing.cache_clear()
    shards.listing(url)
    (kept,) = cache_folder().glob(f"*/{LISTING}")
    assert kept.stat().st_size == needed[0]
    assert len(json.loads(kept.read_bytes())["files"]) == 5


def test_photos_that_were_dealt_and_not_answered_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MUCH", 1)
    in_memory("set/0.tar", archive())
    sources = [p.source for p in scan("memory://set/0.tar", trainable=False).photos]
    remote.forget()
    clear()

    def stops(dealt: Iterable[Source]) -> Iterator[tuple[int, bytes]]:
        read_local(next(iter(dealt)))
        assert len(remote._held) == 1
        yield from ()

    assert list(through(stops, sources[:2])) == []
    assert remote._held == {}
    twice = [sources[0], sources[1], sources[0]]
    assert [data for _, data in sorted(through(bytes_of, twice))] == [photo(i) for i in (0, 2, 0)]
    assert remote._held == {}


def test_two_addresses_of_equal_compressed_bytes_each_keep_what_was_unpacked() -> None:
    data = packed({"cat/0.png": photo(0)}, "w:gz")
    one, other = (in_memory(name, data) for name in ("a.tar.gz", "b.tar.gz"))
    tar = shards.opened(one)
    assert shards.opened(other) == tar
    assert shards.opened(other) == tar
    shards.let_go(one)
    clear()
    assert tar.exists(), "the other one reads it"
    shards.let_go(other)
    clear()
    assert tar.exists(), "it was opened twice"
    shards.let_go(other)
    clear()
    assert not tar.exists()
    assert unpacked._held == {}


def test_clearing_the_cache_sweeps_free_locks_and_leaves_those_in_use() -> None:
    with building("free"):
        pass
    with building("held"):
        clear()
        assert [lock.name for lock in (cache_folder() / LOCKS).iterdir()] == ["held"]
    clear()
    assert not list((cache_folder() / LOCKS).iterdir())


def test_whoever_waited_for_a_lock_that_was_swept_holds_a_new_one(tmp_path: Path) -> None:
    path, release, waits = tmp_path / "lock", threading.Event(), threading.Event()
    holds = threading.Event()

    def wait() -> None:
        waits.set()
        with locked(path, wait=True):
            holds.set()
            release.wait(NEVER)

    waiting = threading.Thread(target=wait)
    with locked(path):
        waiting.start()
        waits.wait(NEVER)
        threading.Event().wait(0.1)  # else it opens the file too late, and nothing is tested
        path.unlink()
    assert holds.wait(NEVER)
    with pytest.raises(DiskError), locked(path):
        pass
    release.set()
    waiting.join(NEVER)


class Slow:
    """Archives of which one does not come until it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.comes, self.gone = threading.Event(), threading.Event(), threading.Event()
        monkeypatch.setattr(shards, "opened", self._opened)
        monkeypatch.setattr(shards, "let_go", lambda _: self.gone.set())

    def _opened(self, url: str) -> Path:
        self.began.set()
        assert self.comes.wait(NEVER)
        return Path(url)


def test_closing_ends_the_waiting_for_an_archive_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, ahead, told = Slow(monkeypatch), Ahead(), list[str]()

    def wait(url: str) -> None:
        try:
            ahead.path(url)
        except BaseException as error:
            told.append(type(error).__name__)

    ahead.want(["slow.tar", "next.tar"])
    waiting = [threading.Thread(target=wait, args=(url,)) for url in ("slow.tar", "next.tar")]
    for thread in waiting:
        thread.start()
    assert slow.began.wait(NEVER)
    threading.Event().wait(0.05)
    ahead.close()
    for thread in waiting:
        thread.join(NEVER)
        assert not thread.is_alive()
    assert told == ["CancelledError"] * 2
    wait("another.tar")
    assert len(told) == 3, "nothing is fetched any more"
    assert not slow.gone.is_set()
    slow.comes.set()
    assert slow.gone.wait(NEVER), "what came too late is let go"


def test_a_process_waits_only_while_the_network_is_asked(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T15: what is waited for alone is the network of DATA, never the decoding of its photos."""
    waits, during = [0], set[int]()
    real = fetch._call

    @contextmanager
    def waiting() -> Iterator[None]:
        waits[0] += 1
        yield
        waits[0] -= 1

    def call(*given: Any, **options: Any) -> Any:
        during.add(waits[0])
        return real(*given, **options)

    def decoding(sources: Iterable[Source]) -> Iterator[tuple[int, bytes]]:
        for i, source in enumerate(sources):
            assert waits[0] == 0
            yield i, read_local(source)

    sources = one_of_each(scan("memory://out/").photos)
    monkeypatch.setattr(fetch, "_call", call)
    monkeypatch.setattr(Ahead, "want", lambda *_: None)  # by another thread, for which nobody waits
    assert len(list(through(decoding, sources, waiting))) == len(sources)
    assert during == {1}


def few(archives: int, each: int, name: str) -> list[Photo]:
    return [Photo(f"{name}{i}", Source(f"memory://{name}{i // each}.tar", i, 1)) for i in range(archives * each)]


def test_archives_of_streamed_validation_have_to_fit_beside_the_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six archives of 1,000 bytes are trained on, windows of two; validated are 60 photos of 300 bytes, decoded."""
    sides = {"train": few(6, 10, "t"), "val": few(3, 20, "v")}
    photos = SimpleNamespace(hashes=range(120), rows=lambda side: sides[side], photos=lambda rows: rows)
    monkeypatch.setattr(remote, "seen", lambda url: fetch.Seen(900 if "v" in url else 1000, ""))
    how, config = Preprocess(resize=10, crop=10), Config(window=2, batch_size=8, epochs=1)

    def small(limit: int) -> None:
        monkeypatch.setattr(windowed, "cache_limit", lambda: limit)
        windowed.refuse_small(config, cast(Any, photos), how)

    small(5800)  # two windows, and two archives that are validated
    with pytest.raises(UsageError, match="set window=1 with --set"):
        small(5799)
    sides["val"] = few(1, 2, "t")  # two photos of an archive that is trained on: decoded, they are kept
    small(4600)
    with pytest.raises(UsageError):
        small(4599)
    assert np.sort(windowed._sizes(["memory://v0.tar", "disk.tar"])).tolist() == [900]


def test_the_index_itself_is_found_behind_a_url(indexed: Path) -> None:
    listing = scan("memory://out")
    assert remote.is_here(f"memory://out/{INDEX}")
    assert listing.photos[0].source.file.startswith("memory://out/")
