"""Downloading, against a server on loopback that misbehaves in every way a real one does."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from plusx.data import download as room
from plusx.data.download import CATALOGUE, download
from plusx.data.source import scan
from plusx.errors import DataError, DiskError, Error, UsageError
from plusx.errors import data as sentences


def make_zip(*extra: zipfile.ZipInfo | str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("Cat/0.jpg", "Cat/1.jpg", "Dog/0.jpg", "Dog/1.jpg", "Cat/Thumbs.db"):
            archive.writestr(f"PetImages/{name}", name * 2000)
        for member in extra:
            archive.writestr(member, "/etc/passwd")
    return buffer.getvalue()


@dataclass
class Host:
    """What the server serves, how it behaves, and the ranges it was asked for."""

    data: bytes = field(default_factory=make_zip)
    url: str = ""
    cut_at: list[int] = field(default_factory=list)  # bytes each answer delivers before its connection is cut
    ranges: bool = True
    shift: int = 0  # bytes by which an answer starts elsewhere than asked, as it then says
    status: int = 200
    asked: list[str | None] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@pytest.fixture
def host() -> Iterator[Host]:
    state = Host()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            if state.status != 200 or start >= len(state.data):
                self.send_error(state.status if state.status != 200 else 416)
                return
            start = max(0, start - state.shift)
            body = state.data[start:]
            self.send_response(206 if wanted and state.ranges else 200)
            self.send_header("Content-Length", str(len(body)))
            if wanted and state.ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(state.data) - 1}/{len(state.data)}")
            self.end_headers()
            self.wfile.write(body[: state.cut_at.pop(0)] if state.cut_at else body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/pets.zip"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(host: Host, folder: Path, sha256: str | None = None) -> Path:
    return download("dogs-vs-cats", folder, url=host.url, sha256=sha256 or host.sha256)


def failure(host: Host, folder: Path, kind: type[Error] = DataError, sha256: str | None = None) -> str:
    with pytest.raises(kind) as caught:
        fetch(host, folder, sha256)
    return caught.value.message


def test_the_download_is_data_as_it_lies(host: Host, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = tmp_path / "new" / "pets"
    folder = download("dogs-vs-cats", target, url=host.url, sha256=host.sha256, on_progress=lambda *a: seen.append(a))
    listing = scan(folder)
    assert listing.classes == ("Cat", "Dog")
    assert listing.junk == ("PetImages/Cat/Thumbs.db",)
    assert seen[-1] == (len(host.data), len(host.data))
    assert [p.name for p in folder.parent.iterdir()] == ["pets"]


def test_a_cut_connection_is_continued_where_it_was_cut(host: Host, tmp_path: Path) -> None:
    host.cut_at = [1000, 2000]
    fetch(host, tmp_path / "pets")
    assert host.asked == [None, "bytes=1000-", "bytes=3000-"]


def test_the_next_call_continues_what_the_last_one_left(host: Host, tmp_path: Path) -> None:
    (tmp_path / "pets.part").write_bytes(host.data[:5000])
    fetch(host, tmp_path / "pets")
    assert host.asked == ["bytes=5000-"]


def test_a_complete_part_is_not_fetched_again(host: Host, tmp_path: Path) -> None:
    (tmp_path / "pets.part").write_bytes(host.data)
    fetch(host, tmp_path / "pets")
    assert host.asked == []


def test_a_server_that_ignores_ranges_is_started_over(host: Host, tmp_path: Path) -> None:
    host.ranges = False
    host.cut_at = [1000]
    assert len(scan(fetch(host, tmp_path / "pets")).photos) == 4


def test_an_answer_for_another_range_is_not_appended(host: Host, tmp_path: Path) -> None:
    (tmp_path / "pets.part").write_bytes(host.data[:5000])
    host.shift = 5000
    assert len(scan(fetch(host, tmp_path / "pets")).photos) == 4


def test_a_part_longer_than_the_file_is_started_over(host: Host, tmp_path: Path) -> None:
    (tmp_path / "pets.part").write_bytes(host.data + b"more")
    fetch(host, tmp_path / "pets")
    assert host.asked == [f"bytes={len(host.data) + 4}-", None]


def test_a_connection_that_brings_nothing_ends_in_the_command_to_type(host: Host, tmp_path: Path) -> None:
    host.cut_at = [1000, 0, 0, 0, 0, 0]
    text = failure(host, tmp_path / "pets")
    assert f"the connection was cut): check the network, then type plusx download dogs-vs-cats {tmp_path}/pets" in text
    assert (tmp_path / "pets.part").stat().st_size == 1000


def test_other_bytes_are_removed_and_named(host: Host, tmp_path: Path) -> None:
    text = failure(host, tmp_path / "pets", sha256="0" * 64)
    assert f"SHA-256 {host.sha256[:16]}... instead of 0000000000000000..." in text
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_gone_is_named_with_its_status(host: Host, tmp_path: Path) -> None:
    host.status = 404
    assert f"{host.url} was refused by its server (404 Not Found)" in failure(host, tmp_path / "pets")


def test_no_network_is_a_sentence(tmp_path: Path) -> None:
    nobody = Host(url="http://127.0.0.1:1/pets.zip")
    assert "could not be fetched (" in failure(nobody, tmp_path / "pets")


def test_a_full_folder_is_never_touched(host: Host, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert f"{tmp_path} exists and is not empty: name a new folder." == failure(host, tmp_path, DiskError)
    assert host.asked == []


def test_too_little_space_is_said_before_anything_is_written(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    assert "MB are needed" in failure(host, tmp_path / "pets", DiskError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/evil.txt", "PetImages/../../evil.txt", "..\\evil.txt", "C:/evil.txt"]
)
def test_a_member_that_leaves_the_folder_stops_everything(host: Host, tmp_path: Path, name: str) -> None:
    host.data = make_zip(zipfile.ZipInfo(name))
    assert "would land outside the folder" in failure(host, tmp_path / "in" / "pets")
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["pets.part"]
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_symbolic_link_in_the_archive_is_refused(host: Host, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("PetImages/link.jpg")
    link.external_attr = 0o120777 << 16
    host.data = make_zip(link)
    assert "PetImages/link.jpg is a symbolic link" in failure(host, tmp_path / "pets")


def test_no_zip_at_all_is_a_sentence(host: Host, tmp_path: Path) -> None:
    host.data = b"<html>try later</html>"
    assert "pets.part cannot be unpacked (File is not a zip file)" in failure(host, tmp_path / "pets")


def test_an_unknown_name_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no data set dogs-vs-cat to download.*Did you mean dogs-vs-cats\?"):
        download("dogs-vs-cat", tmp_path / "pets")


def test_the_catalogue_holds_the_published_file() -> None:
    entry = CATALOGUE["dogs-vs-cats"]
    assert entry.url.endswith("/kagglecatsanddogs_5340.zip")
    assert entry.sha256 == "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"
    assert room.TIMEOUT <= 60


def test_its_known_bad_photos_lead_to_skip_bad() -> None:
    bad = [(f"PetImages/{n}", "the file is empty") for n in ("Cat/666.jpg", "Dog/11702.jpg")]
    error = sentences.bad_photos("pets", bad, 25_000, "plusx train pets --skip-bad")
    assert error.exit_code == 3
    assert error.message == (
        "2 of 25,000 photos in pets cannot be read:\n  PetImages/Cat/666.jpg: the file is empty\n"
        "  PetImages/Dog/11702.jpg: the file is empty\n"
        "Mend or remove them, or leave them out with: plusx train pets --skip-bad"
    )


def test_every_bad_photo_is_listed_on_a_line_of_its_own() -> None:
    bad = [("new\nline.jpg", "broken"), *((f"{i}.jpg", "broken") for i in range(1, 25))]
    text = sentences.bad_photos("pets", bad, 30, "plusx train pets --skip-bad").message
    assert text.splitlines()[1] == "  new\\nline.jpg: broken"
    assert text.splitlines()[25] == "  24.jpg: broken"


def test_a_disk_that_refuses_is_a_disk_error_that_names_the_folder(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    text = failure(host, tmp_path / "pets", DiskError)
    assert str(tmp_path / "pets") in text
    assert "No space left on device" in text
    assert [path.name for path in tmp_path.iterdir()] == ["pets.part"]
