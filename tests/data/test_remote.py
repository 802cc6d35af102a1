"""Objects behind URLs as files of the cache: on a real S3-compatible server, over a wire that fails."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from s3fs import S3FileSystem

from plusx.data import entries, fetch, remote
from plusx.data.entries import cache_entries, cache_folder, cache_size, clear
from plusx.data.fetch import Patience, Seen
from plusx.errors import DataError, DiskError, Error
from plusx.verbs.cache import cache as cache_verb
from tests.data.s3 import Server, Wire

PATIENT = Patience(seconds=30.0, first=0.02, longest=0.2, silence=20.0)
SHORT = Patience(seconds=1.0, first=0.02, longest=0.2, silence=0.1)
PIECE = 256 << 10


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pauses are short here, and what a test has held is let go when it ends."""
    monkeypatch.setattr(fetch, "PATIENCE", PATIENT)
    yield
    remote.forget()
    fsspec.filesystem("memory").store.clear()


class Clock:
    """A clock that only pauses move, however slow the machine is. `asleep` happens in each of them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asleep: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.asleep()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What `fetch` takes for the time."""
    made = Clock()
    monkeypatch.setattr(fetch, "time", made)
    return made


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PIECE", PIECE)
    monkeypatch.setattr(fetch, "SMALLEST", PIECE // 4)


@pytest.fixture
def impatient(server: Server, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting ends soon from here on: an object is there and known, and the connection is made."""
    server.put("pets", {"x.tar": body(1000)})
    remote.seen("s3://pets/x.tar")
    S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(fetch, "PATIENCE", SHORT)


def body(size: int, seed: int = 0) -> bytes:
    """Bytes that no two places have in common."""
    return hashlib.shake_256(seed.to_bytes(2, "big")).digest(size)


def in_memory(name: str, data: bytes) -> str:
    """An object that needs no server."""
    fsspec.filesystem("memory").pipe_file(f"/{name}", data)
    return f"memory://{name}"


def refusal(do: Callable[..., Any], *given: Any) -> Error:
    with pytest.raises(Error) as caught:
        do(*given)
    return caught.value


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("s3://bucket/x.tar", True),
        ("memory://x.tar", True),
        ("https://host/x.tar", True),
        ("C://photos", False),
        ("photos/x.tar", False),
        ("/photos/s3:/x.tar", False),
        ("x.tar!/cat://1.jpg", False),
        ("", False),
    ],
)
def test_a_url_is_told_from_a_path(path: str, told: bool) -> None:
    assert remote.is_url(path) is told


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://b/*.tar", True),
        ("s3://b/part-[01].tar", True),
        ("s3://b/part-?.tar", True),
        ("s3://b/x.tar", False),
        ("s3://b/x.tar?versionId=1", False),
        ("https://h/x.tar?signature=1", False),
    ],
)
def test_a_query_is_no_pattern(url: str, told: bool) -> None:
    assert remote.is_pattern(url) is told


def test_globs_and_folders_become_sorted_urls_of_archives(server: Server, wire: Wire) -> None:
    names = ["set/b.tar", "set/a.tar", "set/more/c.tar.gz", "set/index.json", "other/d.tar"]
    server.put("pets", dict.fromkeys(names, b"bytes"))
    assert remote.expanded("s3://pets/set/*.tar") == ["s3://pets/set/a.tar", "s3://pets/set/b.tar"]
    folder = ["s3://pets/set/a.tar", "s3://pets/set/b.tar", "s3://pets/set/more/c.tar.gz"]
    assert remote.expanded("s3://pets/set/") == remote.expanded("s3://pets/set") == folder
    assert remote.expanded("s3://pets/set/a.tar") == ["s3://pets/set/a.tar"]
    assert remote.expanded("s3://pets/set/index.json") == ["s3://pets/set/index.json"]
    assert remote.expanded("s3://pets/**/[cd].tar*") == ["s3://pets/other/d.tar", "s3://pets/set/more/c.tar.gz"]


def test_a_pattern_or_folder_with_nothing_in_it_is_refused(server: Server, wire: Wire) -> None:
    server.put("pets", {"cat/1.jpg": b"bytes"})
    for url in ("s3://pets/*.tar", "s3://pets/dog/", "s3://nowhere/*.tar"):
        told = refusal(remote.expanded, url)
        assert (told.code, told.exit_code) == ("missing-url", 3)
        assert told.message.startswith(f"Nothing matches {url}: check the address")
    told = refusal(remote.expanded, "s3://pets/cat/")
    assert told.message == (
        "s3://pets/cat/ holds no tar archive, and behind a URL photos are read from archives, not one by one: "
        "pack them into .tar files with one folder per class, and put those there."
    )


def test_an_object_is_fetched_once_and_stays_while_it_is_held(server: Server, wire: Wire) -> None:
    data = body(100_000)
    server.put("pets", {"x.tar": data})
    path = remote.local("s3://pets/x.tar")
    sent = wire.sent
    assert path.read_bytes() == data
    assert path.is_relative_to(cache_folder())
    assert remote.local("s3://pets/x.tar") == path
    assert wire.sent == sent
    assert clear() == 0
    assert path.exists()
    assert cache_verb().fetched == 1
    assert "1 fetched file," in cache_verb().lines()[-1]
    remote.let_go("s3://pets/x.tar")
    remote.let_go("s3://pets/x.tar")  # as often as one likes
    assert clear() > len(data)
    assert not path.exists()


def test_a_new_process_finds_what_was_fetched(server: Server, wire: Wire) -> None:
    server.put("pets", {"x.tar": body(100_000)})
    path = remote.local("s3://pets/x.tar")
    remote.forget()  # as a new process knows nothing
    sent = wire.sent
    assert remote.local("s3://pets/x.tar") == path
    assert wire.sent - sent < 10_000, "asked what it is, and no more"


def test_with_its_sha256_the_server_is_not_even_asked(server: Server, wire: Wire) -> None:
    data = body(1000)
    server.put("pets", {"x.tar": data})
    sha256 = hashlib.sha256(data).hexdigest()
    path = remote.local("s3://pets/x.tar", sha256)
    remote.forget()
    wire.cut()
    assert remote.local("s3://pets/x.tar", sha256) == path


def test_other_bytes_than_recorded_are_fetched_once_more_and_then_refused() -> None:
    url = in_memory("x.tar", b"other bytes")
    wanted = hashlib.sha256(b"the bytes").hexdigest()
    told = refusal(remote.local, url, wanted)
    found = hashlib.sha256(b"other bytes").hexdigest()
    assert (told.code, told.exit_code) == ("wrong-bytes", 3)
    assert told.message == (
        f"memory://x.tar does not hold what was recorded of it: its SHA-256 is {found[:16]}..., and "
        f"{wanted[:16]}... was expected; it was fetched twice. Upload it again, or make its index anew."
    )
    assert cache_size() == 0


def test_bytes_that_were_damaged_on_the_way_are_fetched_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    url = in_memory("x.tar", b"the bytes")
    answers = [b"the bites", b"the bytes"]
    monkeypatch.setattr(fetch, "_piece", lambda *_: answers.pop(0))
    path = remote.local(url, hashlib.sha256(b"the bytes").hexdigest())
    assert path.read_bytes() == b"the bytes"
    assert not answers


def test_an_object_that_was_replaced_is_another_for_the_next_command_and_refused_in_this_one() -> None:
    url = in_memory("x.tar", b"old bytes")
    old = remote.local(url)
    in_memory("x.tar", b"new bytes")
    assert remote.local(url) == old, "held, it is what it was"
    remote.let_go(url)
    clear()
    told = refusal(remote.local, url)
    assert told.code == "changed-url"
    assert told.message.startswith("memory://x.tar was changed while this command was reading it")
    remote.forget()
    assert remote.local(url).read_bytes() == b"new bytes"


def test_a_cut_connection_goes_on_where_it_stopped(server: Server, wire: Wire, small_pieces: None) -> None:
    data = body(40 * PIECE)
    server.put("pets", {"x.tar": data})
    remote.seen("s3://pets/x.tar")
    wire.cut_after, wire.sent = 25 * PIECE + 1000, 0
    assert remote.local("s3://pets/x.tar").read_bytes() == data
    assert wire.cuts == 1
    again = wire.sent - len(data)
    assert 0 < again < PIECE + 40 * 2000, "one piece again, and the headers of all"


def test_a_fetch_that_started_anew_would_send_more(
    server: Server, wire: Wire, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above: as one piece, everything before the cut is sent twice."""
    monkeypatch.setattr(fetch, "PIECE", 40 * PIECE)
    server.put("pets", {"x.tar": body(40 * PIECE)})
    remote.seen("s3://pets/x.tar")
    wire.cut_after, wire.sent = 25 * PIECE + 1000, 0
    remote.local("s3://pets/x.tar")
    assert wire.sent - 40 * PIECE > 24 * PIECE


def test_a_network_that_comes_back_costs_a_pause_and_a_notice(
    server: Server, wire: Wire, clock: Clock, small_pieces: None, caplog: pytest.LogCaptureFixture
) -> None:
    data = body(4 * PIECE)
    server.put("pets", {"x.tar": data})
    remote.seen("s3://pets/x.tar")
    wire.cut()
    clock.asleep = lambda: wire.mend() if caplog.messages else None
    with caplog.at_level(logging.WARNING, "plusx"):
        assert remote.local("s3://pets/x.tar").read_bytes() == data
    assert clock.now > fetch._UNTOLD
    assert caplog.messages[0].startswith("s3://pets/x.tar cannot be read at the moment (")
    assert caplog.messages[0].endswith("): it is tried again for up to 30 seconds.")


def test_a_network_that_stays_away_is_named_after_bounded_waiting(wire: Wire, impatient: None, clock: Clock) -> None:
    wire.cut()
    told = refusal(remote.local, "s3://pets/x.tar")
    assert SHORT.seconds / 2 < clock.now <= SHORT.seconds
    assert (type(told), told.code, told.exit_code) == (DataError, "no-network", 3)
    assert told.message.startswith("s3://pets/x.tar could not be read for 1 seconds (")
    assert told.message.endswith("): check the network and the server, then run the same command again.")
    assert cache_size() == 0, "no leftovers"


def test_a_server_that_is_not_there_at_all_is_waited_for(
    wire: Wire, impatient: None, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens: botocore has a ConnectionError of its own for that, which is no OSError."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    S3FileSystem.clear_instance_cache()
    told = refusal(remote.local, "s3://pets/x.tar")
    assert told.code == "no-network"
    assert "Could not connect to the endpoint URL" in told.message or "no answer" in told.message
    assert clock.now > SHORT.seconds / 2


def test_a_server_that_says_nothing_is_not_waited_for_without_end(wire: Wire, impatient: None, clock: Clock) -> None:
    wire.stall()
    told = refusal(remote.local, "s3://pets/x.tar")
    assert clock.now <= SHORT.seconds
    assert told.code == "no-network"


def test_a_server_that_was_silent_for_a_while_is_asked_again(
    wire: Wire, impatient: None, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def speak() -> None:
        monkeypatch.setattr(fetch, "PATIENCE", PATIENT)
        wire.mend()

    wire.stall()
    clock.asleep = speak
    assert remote.local("s3://pets/x.tar").read_bytes() == body(1000)
    assert clock.now > 0


def test_what_cannot_pass_is_refused_at_once(server: Server, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    server.put("pets", {"x.tar": body(1000)})
    pauses: list[float] = []
    monkeypatch.setattr(fetch.time, "sleep", pauses.append)
    for url in ("s3://pets/none.tar", "s3://nowhere/x.tar"):
        told = refusal(remote.local, url)
        assert (told.code, told.exit_code) == ("missing-url", 3)
        assert told.message == (
            f"{url} does not exist, or the server does not say so to you: check bucket, name and endpoint "
            "(AWS_ENDPOINT_URL, where it is not Amazon's own)."
        )
    told = refusal(remote.local, "nonsense://x.tar")
    assert told.code == "unknown-scheme"
    assert told.message.startswith(
        "nonsense://x.tar begins with nonsense://, which is no kind of address that fsspec knows"
    )
    assert pauses == []


def test_403_names_credentials_and_is_not_asked_again(
    server: Server, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(fetch.time, "sleep", pauses.append)
    monkeypatch.setattr(fetch, "_call", refusing(PermissionError("Access Denied")))
    told = refusal(remote.local, "s3://pets/x.tar")
    assert (told.code, told.exit_code) == ("no-access", 3)
    assert told.message == (
        "s3://pets/x.tar may not be read (Access Denied): check the credentials (AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE) and the rights on the bucket; of a public one, set FSSPEC_S3_ANON=true."
    )
    assert pauses == []


def refusing(error: Exception) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


def test_no_credentials_are_named(server: Server, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    told = refusal(remote.local, "s3://pets/x.tar")
    assert told.code == "no-access"
    assert "Unable to locate credentials" in told.message


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(scheme: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    told = refusal(remote.local, "s3://pets/x.tar")
    assert told.message == (
        "s3://pets/x.tar cannot be opened since a package is missing (Install s3fs to access S3): "
        "install it with: pip install 'plusx[s3]'."
    )


def test_an_object_larger_than_the_cache_is_refused_before_it_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUSX_CACHE_GB", "0.001")
    url = in_memory("x.tar", bytes(1_000_001))
    told = refusal(remote.local, url)
    assert told.message == (
        "memory://x.tar has 0.001 GB, and the cache may hold 0.001 GB: set PLUSX_CACHE_GB to more, "
        "or pack the photos into smaller archives."
    )


def test_the_cache_stays_within_its_bound_while_more_than_fits_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUSX_CACHE_GB", "0.001")
    urls = [in_memory(f"{i}.tar", body(300_000, i)) for i in range(8)]
    for i, url in enumerate(urls):
        assert remote.local(url).read_bytes() == body(300_000, i)
        assert cache_size() <= 1_000_000
        remote.let_go(url)
    assert len(cache_entries()) == 3


def test_what_is_held_is_not_evicted_and_the_next_says_why_it_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUSX_CACHE_GB", "0.001")
    urls = [in_memory(f"{i}.tar", body(300_000, i)) for i in range(4)]
    held = [remote.local(url) for url in urls[:3]]
    told = refusal(remote.local, urls[3])
    assert isinstance(told, DiskError)
    assert told.message.startswith("memory://3.tar cannot be fetched: there is no room")
    assert all(path.exists() for path in held)


def test_an_entry_that_was_cut_short_is_fetched_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    url = in_memory("x.tar", body(1000))
    path = remote.local(url)
    remote.forget()
    os.truncate(path, 500)
    assert remote.local(url).read_bytes() == body(1000)


def test_a_cache_that_may_not_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    url = in_memory("x.tar", body(1000))
    monkeypatch.setattr(entries.shutil, "disk_usage", refusing(OSError(5, "Input/output error")))
    told = refusal(remote.local, url)
    assert told.message == (
        f"memory://x.tar cannot be kept in {cache_folder()} (Input/output error): "
        "set XDG_CACHE_HOME to a folder that can be written."
    )


TWO = """
import hashlib, sys
from plusx.data import remote
print(hashlib.sha256(remote.local("s3://pets/x.tar").read_bytes()).hexdigest())
"""


def test_two_processes_fetch_one_object_once_and_end(server: Server, wire: Wire) -> None:
    data = body(20_000_000)
    server.put("pets", {"x.tar": data})
    command = [sys.executable, "-W", "error", "-c", TWO]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=600) for process in both]
    assert said == [(hashlib.sha256(data).hexdigest() + "\n", "")] * 2
    assert len(data) < wire.sent < 2 * len(data)


def test_what_a_server_says_first_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    url = in_memory("x.tar", b"bytes")
    first = remote.seen(url)
    monkeypatch.setattr(fetch, "seen", lambda _: Seen(7, "another"))
    assert remote.seen(url) == first


def test_nothing_is_asked_of_the_network_about_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from plusx.data.source import walk

    monkeypatch.setattr(fetch, "_call", refusing(AssertionError("the network was asked")))
    (tmp_path / "1.jpg").write_bytes(b"bytes")
    assert len(walk([tmp_path])) == 1
