"""Sentences about the file system."""

from __future__ import annotations

import errno
from pathlib import Path

from plusx.errors import DiskError

ADVICE = {
    errno.ENOSPC: "free some space or choose another folder with --out",
    errno.EDQUOT: "your quota is used up: free some space or choose another folder with --out",
    errno.EROFS: "the file system is read-only: choose another folder with --out",
    errno.ENOENT: "its folder does not exist: make it, or name another with --out",
    errno.EISDIR: "it is a folder: name a file with --out",
    errno.EACCES: "you may not write there: choose another folder with --out",
}
GONE = "folder-gone"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})  # what only a disk says


def cannot_write(path: Path, error: OSError) -> DiskError:
    """Writing, syncing or renaming `path` failed with `error`."""
    advice = ADVICE.get(error.errno or 0, "check the disk, then run the same command again")
    return DiskError(f"Could not write {path}: {error.strerror or error}; {advice}.", code="cannot-write")


def too_many_files(path: Path) -> DiskError:
    """The file system of `path` has room for bytes and for no further file: its table of inodes is full."""
    return DiskError(
        f"Could not write {path}: the file system holds as many files as it can, though bytes are free; "
        "remove some files or choose another folder with --out.",
        code="cannot-write",
    )


def too_little_space(path: Path, needed: int, free: int) -> DiskError:
    """`path` lies on a file system with `free` bytes, fewer than the `needed` ones."""
    return DiskError(
        f"{path} has {_megabytes(free)} free and {_megabytes(needed)} are needed; "
        "free some space or choose another folder with --out.",
        code="no-space",
    )


def folder_gone(path: Path) -> DiskError:
    """The run folder was removed, renamed or replaced by another while the run wrote to it."""
    return DiskError(
        f"{path} is no longer the folder that this run began in, so nothing more is written: it was removed, renamed "
        "or unmounted. Bring it back and resume the run, or start it again.",
        code=GONE,
    )


def resumable(error: DiskError, resume: str) -> DiskError:
    """The disk has stopped a run for good; `resume` is the command that goes on with it."""
    return DiskError(f"{error.message} What was written before is whole. Continue with: {resume}", code=error.code)


def folder_in_use(path: Path) -> DiskError:
    """Another live process holds the lock of `path`."""
    return DiskError(
        f"{path} is in use by another plusx process; wait for it to end or choose another folder with --out.",
        code="in-use",
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.{0 if size >= 10e6 else 1}f} MB"
