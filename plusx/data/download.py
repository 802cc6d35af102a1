"""Public data sets, fetched when asked for: resumable, checked by SHA-256, unpacked whole or not at all.

The only module of plusx that opens a connection.
"""

from __future__ import annotations

import http.client
import os
import shlex
import shutil
import stat
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from plusx.durable import TEMPORARY, disk_errors, require_space, sha256_file
from plusx.errors import data as sentences

TIMEOUT = 30.0  # seconds without a byte
TRIES = 4  # connections in a row that may bring nothing new
_CHUNK = 1 << 18

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DataSet:
    """A public zip archive: where it lies and the SHA-256 of its bytes."""

    url: str
    sha256: str


CATALOGUE = {
    # Kaggle's Dogs vs Cats as Microsoft publishes it: 25,000 photos, PetImages/Cat and PetImages/Dog. Known to be
    # bad: Cat/666.jpg and Dog/11702.jpg (empty); a Thumbs.db lies in each folder.
    "dogs-vs-cats": DataSet(
        "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
        "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
    )
}


def download(
    name: str,
    folder: str | Path,
    *,
    url: str | None = None,
    sha256: str | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Fetch the data set `name` and unpack it as the new folder `folder`, which is returned: it is DATA.

    `url` and `sha256` replace those of the catalogue. What has arrived is kept in `folder`.part beside it,
    and continued by the next call; bytes with a wrong hash are removed. `on_progress` gets (bytes so far,
    all bytes). Raises UsageError for an unknown name, DataError for what the network did, DiskError.
    """
    if name not in CATALOGUE:
        raise sentences.unknown_set(name, list(CATALOGUE))
    wanted = DataSet(url or CATALOGUE[name].url, sha256 or CATALOGUE[name].sha256)
    folder = Path(folder)
    command = f"plusx download {name} {shlex.quote(str(folder))}"
    part = folder.with_name(folder.name + ".part")
    with disk_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise sentences.occupied(str(folder))
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not (part.exists() and sha256_file(part) == wanted.sha256):
            _fetch(wanted, part, command, on_progress or _silent)
        _unpack(part, folder)
        part.unlink()
    return folder


def _fetch(wanted: DataSet, part: Path, command: str, on_progress: Progress) -> None:
    """All bytes of `wanted` into `part`, over as many connections as bring something new."""
    failures, why = 0, ""
    while failures < TRIES:
        before = _size(part)
        try:
            if _receive(wanted.url, part, on_progress):
                return _check(wanted, part)
            why = "the connection was cut"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not before:
                raise sentences.refused(wanted.url, error.code, error.reason) from None
            part.unlink()  # longer than the file, and its hash was wrong: start again
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            why = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 0 if _size(part) > before else failures + 1
    raise sentences.no_answer(wanted.url, why, command)


def _receive(url: str, part: Path, on_progress: Progress) -> bool:
    """One connection: append to `part`, or start it anew where the server ignores ranges. Whether all has arrived."""
    have = _size(part)
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers={"User-Agent": "plusx", **headers})  # noqa: S310 - from the catalogue
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - the same address
        if not _continues(answer, have):
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else 0
        require_space(part.parent, max(0, total - have))
        with part.open("ab" if have else "wb") as file:
            for chunk in _chunks(answer):
                file.write(chunk)
                have += len(chunk)
                on_progress(have, max(total, have))
    return have == total or not total


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """What arrives. Raises ConnectionError for all that the network does, to tell it from what the disk does."""
    try:
        while chunk := answer.read(_CHUNK):
            yield chunk
    except OSError as error:
        raise ConnectionError(str(error)) from error


def _continues(answer: http.client.HTTPResponse, have: int) -> bool:
    given = answer.headers.get("Content-Range", "")
    return answer.status == http.HTTPStatus.PARTIAL_CONTENT and given.startswith(f"bytes {have}-")


def _check(wanted: DataSet, part: Path) -> None:
    found = sha256_file(part)
    if found != wanted.sha256:
        part.unlink()
        raise sentences.wrong_hash(wanted.url, wanted.sha256, found)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip as `folder`: beside it first, then renamed, so that it is whole or not there."""
    temporary = folder.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [info for info in opened.infolist() if not info.is_dir()]
            for info in members:
                _refuse_unsafe(archive, info)
            require_space(folder.parent, sum(info.file_size for info in members))
            for info in members:
                _unpack_member(opened, info, temporary / info.filename)
        temporary.mkdir(exist_ok=True)
        temporary.rename(folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise sentences.bad_zip(str(archive), str(error)) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_unsafe(archive: Path, info: zipfile.ZipInfo) -> None:
    parts = info.filename.replace("\\", "/").split("/")
    if info.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise sentences.bad_zip(str(archive), f"its member {info.filename} would land outside the folder")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise sentences.bad_zip(str(archive), f"its member {info.filename} is a symbolic link")


def _unpack_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(info) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target, _CHUNK)


def _silent(_done: int, _total: int) -> None:
    """Nobody watches."""


def _size(path: Path) -> int:
    return os.stat(path).st_size if path.exists() else 0  # noqa: PTH116
