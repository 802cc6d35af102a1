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
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})  # what only a disk says


def cannot_write(path: Path, error: OSError) -> DiskError:
    """Writing, syncing or renaming `path` failed with `error`."""
    advice = ADVICE.get(error.errno or 0, "check the disk, then run the same command again")
    return DiskError(f"Could not write {path}: {error.strerror or error}; {advice}.", code="cannot-write")


def too_little_space(path: Path, needed: int, free: int) -> DiskError:
    """`path` lies on a file system with `free` bytes, fewer than the `needed` ones."""
    return DiskError(
        f"{path} has {free / 1e6:,.0f} MB free and {needed / 1e6:,.0f} MB are needed; "
        "free some space or choose another folder with --out.",
        code="no-space",
    )


def folder_in_use(path: Path) -> DiskError:
    """Another live process holds the lock of `path`."""
    return DiskError(
        f"{path} is in use by another plusx process; wait for it to end or choose another folder with --out.",
        code="in-use",
    )
