"""Files that are either whole or not there: atomic, fsynced writes, manifests, append-only logs and locks.

The protocol: write under a temporary name on the same file system, fsync, rename, fsync the parent
folder. A folder carries a manifest with the size and SHA-256 of each file, so that damage shows. A folder that
replaces another is renamed into its place while the other waits under a second name: after a crash at any moment
one of the two is found.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

from plusx.errors import DiskError, disk

MANIFEST = "manifest.json"
TEMPORARY = "tmp-"
REPLACED = "replaced-"  # before the name of a folder while another takes its place

Identity = tuple[int, int]  # device and inode


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that after a crash the old or the new content is there, never a mixture."""
    with writing(path) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """The same of content that is never all in memory: `path` is replaced once all was written to the file."""
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    with disk_errors(path, temporary):
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - one name for tests to break
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, keys in their own order, ending in a newline."""
    write_file(path, (json.dumps(value, indent=2) + "\n").encode())  # ASCII: names need not be UTF-8


def make_folder(path: Path) -> None:
    """Make `path` and its parents where they are missing, and sync their names to the disk."""
    with disk_errors(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            sync_folder(folder.parent)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` and their manifest as the new folder `path`, all of it or nothing.

    An older `path` is replaced; where a crash comes in between, `put_back` finds it.
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    with disk_errors(path, temporary):
        temporary.mkdir(parents=True)
        for name, data in files.items():
            _write_synced(temporary / name, data)
        _write_synced(temporary / MANIFEST, json.dumps(_manifest(files), indent=2).encode())
        sync_folder(temporary)
        _put_in_place(temporary, path)


def put_back(parent: Path) -> None:
    """Give a folder in `parent` that was about to be replaced its name back; remove one whose successor is there.

    Call it only while holding the folder's lock.
    """
    for aside in parent.glob(f"{REPLACED}*"):
        path = parent / aside.name.removeprefix(REPLACED)
        if path.exists():
            _remove(aside)
        else:
            with disk_errors(path):
                os.rename(aside, path)  # noqa: PTH104


def folder_fault(path: Path) -> str | None:
    """What is wrong with a folder written by `write_folder`, in a few words; None where every byte is as written."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        for name, entry in manifest["files"].items():
            found = (path / name).stat()
            is_ours = Path(name).name == name and stat.S_ISREG(found.st_mode)
            if not is_ours:  # anybody can write a manifest: of a pipe, say
                return f"{MANIFEST} names {name}, which is no file of it"
            if found.st_size != entry["size"]:
                return f"{name} has another size than was written"
            if sha256_file(path / name) != entry["sha256"]:
                return f"{name} has other bytes than were written"
    except FileNotFoundError as error:
        return f"{Path(error.filename or path).name} is not there"
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
    """Raise DiskError unless the file system of `folder`, which may not be there yet, has `needed` bytes free."""
    with disk_errors(folder):
        free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        raise disk.too_little_space(folder, needed, free)


def identity(path: Path) -> Identity | None:
    """What tells `path` from another file or folder that takes its name later; None where that is not known."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def replaced(path: Path, before: Identity | None) -> bool:
    """Whether `path` is gone, or another than `before` has its name; no where the file system fails to tell.

    One that says it is gone is asked once more: those on a network say so for a moment.
    """
    for _ in range(2):
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return False
        return before not in (None, (found.st_dev, found.st_ino))
    return True


class Log:
    """An append-only file of JSON lines whose length is part of a checkpoint: resume cuts it back to there.

    A line that the disk refuses waits in memory, and is written before the next one: no line is ever missing between
    two others, and the length, which a checkpoint records, is only told once nothing waits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: deque[bytes] = deque()
        self._end: int | None = None  # where the lines that are written end, while one is in doubt
        self._named = False  # whether its name in the folder is on the disk

    @property
    def waiting(self) -> int:
        """How many lines the disk has refused so far."""
        return len(self._waiting)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line; flushed to the operating system, synced with the next checkpoint.

        Raises DiskError where the line has to wait.
        """
        self._waiting.append((json.dumps(record) + "\n").encode())
        self._write_waiting()

    def offset(self) -> int:
        """Length in bytes, after syncing what was appended to the disk. Raises DiskError where lines have to wait."""
        if self._waiting:
            self._write_waiting()
        if not self.path.exists():
            return 0
        with disk_errors(self.path), self.path.open("rb+") as file:
            os.fsync(file.fileno())
            if not self._named:
                sync_folder(self.path.parent)
            self._named = True
            return file.seek(0, os.SEEK_END)

    def truncate(self, offset: int) -> bool:
        """Drop everything after byte `offset`; False where the log was shorter: then its whole lines stay."""
        self._waiting.clear()
        self._end = None
        if not self.path.exists():
            return offset == 0
        with disk_errors(self.path), self.path.open("ab+", buffering=0) as file:
            length = file.seek(0, os.SEEK_END)
            file.truncate(min(offset, length))  # never filled up with zeros
            _cut_torn_line(file)
        return length >= offset

    def records(self) -> Iterator[dict[str, Any]]:
        """Every complete record; a last line cut off by a crash is passed over."""
        if not self.path.exists():
            return
        for line in self.path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield json.loads(line)

    def _write_waiting(self) -> None:
        with disk_errors(self.path), self.path.open("ab+", buffering=0) as file:
            if self._end is not None:
                file.truncate(min(self._end, file.seek(0, os.SEEK_END)))
            _cut_torn_line(file)
            while self._waiting:
                self._end = file.seek(0, os.SEEK_END)
                _write_all(file, self._waiting[0])
                self._waiting.popleft()
            self._end = None


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold `path` as a lock of this process; the operating system frees it however the process ends.

    A lock file that its holder removes is no lock any more for those who wait: they make another one.
    Raises DiskError where another process holds it and `wait` is false.
    """
    file = _locked(path, wait)
    while os.fstat(file.fileno()).st_nlink == 0:  # removed between opening and locking
        file.close()
        file = _locked(path, wait)
    with file:
        yield


def _locked(path: Path, wait: bool) -> IO[str]:
    with disk_errors(path):
        file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise disk.folder_in_use(path.parent) from None
    except OSError as error:  # a file system without locks
        file.close()
        raise disk.cannot_write(path, error) from error
    return file


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


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename a complete folder to `path`; an older one steps aside first, and comes back where that fails."""
    aside = path.with_name(f"{REPLACED}{path.name}")
    if path.exists():
        _remove(aside)
        os.rename(path, aside)  # noqa: PTH104
    try:
        os.rename(temporary, path)  # noqa: PTH104
    except BaseException:
        with contextlib.suppress(OSError):
            os.rename(aside, path)  # noqa: PTH104
        raise
    sync_folder(path.parent)
    _remove(aside)


def _write_all(file: BinaryIO, data: bytes) -> None:
    """Write `data` to an unbuffered file, which takes a part where the disk is about to be full."""
    while data:
        data = data[file.write(data) :]


def _cut_torn_line(file: BinaryIO) -> None:
    """Drop a last line without its end, which a full disk or a crash has left: the next must not be glued to it."""
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _remove(path: Path) -> None:
    """Remove a file or a folder as far as that is possible; what is left of it is swept later."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    return next((folder for folder in (path, *path.parents) if folder.exists()), Path())


@contextlib.contextmanager
def disk_errors(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Raise DiskError, naming `path`, for what the operating system refuses within.

    `temporary` is removed then, and when an interrupt ends the block.
    """
    try:
        yield
    except BaseException as error:
        told = _told(path, error) if isinstance(error, OSError) else error  # before anything is removed
        if temporary is not None:
            _remove(temporary)
        if told is error:
            raise
        raise told from error


def _told(path: Path, error: OSError) -> DiskError:
    if error.errno == errno.ENOSPC and _out_of_names(path):
        return disk.too_many_files(path)
    return disk.cannot_write(path, error)


def _out_of_names(path: Path) -> bool:
    """Whether the file system has room for bytes, but for no further file."""
    try:
        found = os.statvfs(_existing(path))
    except OSError:
        return False
    return found.f_files > 0 and found.f_favail == 0 and found.f_bavail > 0
