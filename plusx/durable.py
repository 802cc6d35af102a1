"""Files that are either whole or not there: atomic, fsynced writes, manifests, append-only logs and locks.

The protocol: write under a temporary name on the same file system, fsync, rename, fsync the parent
folder. A folder carries a manifest with the size and SHA-256 of each file, so that damage shows.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from plusx.errors import disk

MANIFEST = "manifest.json"
TEMPORARY = "tmp-"


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that after a crash the old or the new content is there, never a mixture."""
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    with disk_errors(path, temporary):
        _write_synced(temporary, data)
        os.replace(temporary, path)  # noqa: PTH105 - one name for tests to break
        _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, keys in their own order, ending in a newline."""
    write_file(path, (json.dumps(value, indent=2) + "\n").encode())  # ASCII: names need not be UTF-8


def make_folder(path: Path) -> None:
    """Make `path` and its parents where they are missing."""
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` and their manifest as the new folder `path`, all of it or nothing.

    An older `path` is replaced; a crash in that moment leaves neither, so callers keep more than one.
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    with disk_errors(path, temporary):
        temporary.mkdir(parents=True)
        for name, data in files.items():
            _write_synced(temporary / name, data)
        _write_synced(temporary / MANIFEST, json.dumps(_manifest(files), indent=2).encode())
        _sync_folder(temporary)
        if path.exists():
            shutil.rmtree(path)
        os.rename(temporary, path)  # noqa: PTH104
        _sync_folder(path.parent)


def folder_fault(path: Path) -> str | None:
    """What is wrong with a folder written by `write_folder`, in a few words; None where every byte is as written."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        for name, entry in manifest["files"].items():
            found = (path / name).stat()
            if Path(name).name != name or not stat.S_ISREG(
                found.st_mode
            ):  # anybody can write a manifest: of a pipe, say
                return f"{MANIFEST} names {name}, which is no file of it"
            if found.st_size != entry["size"]:
                return f"{name} has another size than was written"
            if sha256_file(path / name) != entry["sha256"]:
                return f"{name} has other bytes than were written"
    except OSError as error:
        return f"{Path(error.filename or path).name} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    return None


def sweep_temporary(parent: Path) -> None:
    """Remove what an interrupted write left in `parent`; call it only while holding the folder's lock."""
    for leftover in parent.glob(f"{TEMPORARY}*"):
        _remove(leftover)


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_lines(lines: Iterable[str]) -> str:
    """Hexadecimal SHA-256 of lines of text with newlines between them, which are never all in memory."""
    digest = hashlib.sha256()
    for number, line in enumerate(lines):
        digest.update(b"\n" * (number > 0) + line.encode())
    return digest.hexdigest()


def require_space(folder: Path, needed: int) -> None:
    """Raise DiskError unless `folder`'s file system has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise disk.too_little_space(folder, needed, free)


class Log:
    """An append-only file of JSON lines whose length is part of a checkpoint: resume cuts it back to there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line; flushed to the operating system, synced with the next checkpoint."""
        line = json.dumps(record) + "\n"
        with disk_errors(self.path), self.path.open("ab") as file:
            file.write(line.encode())

    def offset(self) -> int:
        """Length in bytes, after syncing what was appended to the disk."""
        if not self.path.exists():
            return 0
        with disk_errors(self.path), self.path.open("rb+") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def truncate(self, offset: int) -> None:
        """Drop everything after byte `offset`."""
        with disk_errors(self.path), self.path.open("ab") as file:
            file.truncate(offset)

    def records(self) -> Iterator[dict[str, Any]]:
        """Every complete record; a last line cut off by a crash is passed over."""
        if not self.path.exists():
            return
        for line in self.path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield json.loads(line)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold `path` as a lock of this process; the operating system frees it however the process ends.

    Raises DiskError where another process holds it and `wait` is false.
    """
    with disk_errors(path):
        file = path.open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise disk.folder_in_use(path.parent) from None
        yield


def is_held(path: Path) -> bool | None:
    """Whether a process holds `path` as `locked` does; None where that cannot be found out. Nothing is written.

    The lock is asked for, shared, and given back at once: whoever wants it in that microsecond is told that it is held.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def _manifest(files: Mapping[str, bytes]) -> dict[str, Any]:
    entries = {n: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()}
    return {"files": entries}


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Raise DiskError, naming `path`, for what the operating system refuses within; `temporary` is removed then."""
    try:
        yield
    except OSError as error:
        if temporary is not None:
            _remove(temporary)
        raise disk.cannot_write(path, error) from error
