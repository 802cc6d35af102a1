"""Sentences about compressed archives, which are unpacked into the cache."""

from __future__ import annotations

import shlex
from pathlib import Path

from plusx.errors import DataError, DiskError


def unpacking(path: Path, folder: Path) -> str:
    """What somebody waits for; a notice."""
    return f"{path} is compressed: it is unpacked into {folder}, this once."


def damaged(path: Path, why: str) -> DataError:
    """The compressed stream ends too early or makes no sense."""
    return DataError(
        f"{path} cannot be unpacked ({_short(why)}): it is cut off or damaged; copy or download it again.",
        code="bad-archive",
    )


def too_large(path: Path, limit: int) -> DataError:
    """What is in the archive outgrows all that the cache may hold, in bytes."""
    return DataError(
        f"{path} holds more than the {_gb(limit)} that the cache may hold, so it was not unpacked: "
        f"if it should be so large, set PLUSX_CACHE_GB to more, or {_yourself(path)}.",
        code="archive-too-large",
    )


def no_room(path: Path, folder: Path, limit: int) -> DiskError:
    """The disk is full, or the rest of the cache is in use; `limit` is the cache's, in bytes."""
    return DiskError(
        f"{path} cannot be unpacked: there is no room left in {folder}, on its disk or within its {_gb(limit)}; "
        "free some space, wait for other runs to end, set XDG_CACHE_HOME to another disk or PLUSX_CACHE_GB to more, "
        f"or {_yourself(path)}.",
        code="no-room",
    )


def cannot_write(path: Path, folder: Path, why: str) -> DiskError:
    """The operating system refuses to keep what was unpacked."""
    return DiskError(
        f"{path} cannot be unpacked into {folder} ({why}): set XDG_CACHE_HOME to a folder that can be written, "
        f"or {_yourself(path)}.",
        code="cannot-unpack",
    )


def _yourself(path: Path) -> str:
    return f"unpack it yourself with tar -xf {shlex.quote(str(path))} and name the folder"


def _short(why: str) -> str:
    return " ".join(why.split()).rstrip(".") or "it makes no sense"


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
