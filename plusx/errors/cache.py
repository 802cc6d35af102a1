"""Sentences about the cache of decoded photos.

A cache that cannot be used costs speed and not the run, so most of these are notices: text, not errors.
"""

from __future__ import annotations

from pathlib import Path

from plusx.errors import DataError, UsageError

_ANEW = "so they are decoded anew in every epoch, which is slower"


def larger_than_cache(needed: int, limit: int) -> str:
    """The decoded set alone outgrows the bound, both in bytes."""
    return (
        f"The decoded photos need {_gb(needed)} and the cache may hold {_gb(limit)}, {_ANEW}; "
        "choose a smaller --size or set PLUSX_CACHE_GB to more."
    )


def cache_in_use(needed: int, limit: int) -> str:
    """What would have to make room is open in running commands; bytes."""
    return (
        f"The decoded photos need {_gb(needed)} and other runs use the rest of the cache's {_gb(limit)}, {_ANEW}; "
        "wait for them to end or set PLUSX_CACHE_GB to more."
    )


def disk_too_full(folder: Path, needed: int, free: int) -> str:
    """The disk under the cache has `free` bytes, with the cache emptied too few for `needed`."""
    return (
        f"The decoded photos need {_gb(needed)} and {folder} has {_gb(free)} free, {_ANEW}; "
        "free some space, choose a smaller --size or set XDG_CACHE_HOME to another disk."
    )


def cannot_cache(folder: Path, why: str) -> str:
    """Reading or writing the cache failed below us."""
    return (
        f"The decoded photos cannot be kept in {folder} ({why}), {_ANEW}; "
        "set XDG_CACHE_HOME to a folder that can be written."
    )


def bad_limit(text: str) -> UsageError:
    """PLUSX_CACHE_GB holds something else than a size."""
    return UsageError(
        f"PLUSX_CACHE_GB is {text!r}, and a number of gigabytes such as 20 or 0.5 was expected; "
        "correct it or unset it.",
        code="bad-cache-limit",
    )


def photo_lost(name: str, reason: str) -> DataError:
    """A photo that could be read when the run began no longer can."""
    return DataError(
        f"{name} could be read when this run began and now cannot ({reason}); "
        "put it back as it was, then run the same command with --resume.",
        code="photo-lost",
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
