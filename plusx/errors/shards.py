"""Sentences about shards: writing them, and the index that lies beside them."""

from __future__ import annotations

from pathlib import Path

from plusx.errors import DataError, DiskError, UsageError

_ANEW = "Write the shards anew with `plusx shard DATA OUT`"


def bad_size(text: str) -> UsageError:
    """A size of shards that is none."""
    return UsageError(f"--size {text} is no size: write a number and a unit, such as 100MB or 1GB.", code="bad-size")


def too_many_shards(count: int, most: int, size: int) -> UsageError:
    """So small a size that there would be more shards than an index holds."""
    return UsageError(
        f"With shards of {size:,} bytes there would be {count:,}, and an index holds at most {most:,}: "
        "choose a larger --size.",
        code="too-many-shards",
    )


def out_is_taken(out: Path) -> DiskError:
    """Something lies where the shards shall be written."""
    return DiskError(f"{out} is there and not empty: name a new or empty folder for the shards.", code="taken")


def beside_is_taken(beside: Path) -> DiskError:
    """Where shards are written until all are there, something else lies."""
    return DiskError(
        f"{beside} holds files that plusx shard did not write, and it is where the shards lie until all of them are "
        "there: move it away, or name another folder for the shards.",
        code="taken",
    )


def out_in_data(out: Path, data: str) -> UsageError:
    """The shards would become files of DATA."""
    return UsageError(
        f"{out} lies inside {data}, which is only read: name a folder outside of it for the shards.", code="inside-data"
    )


def without_flag(error: DiskError) -> DiskError:
    """What the disk refused, where the folder is no flag but a word of the command."""
    return DiskError(error.message.replace(" with --out", ""), code=error.code)


def photo_changed(name: str, why: str) -> DataError:
    """A photo is not what it was when everything was looked at, a few minutes ago."""
    return DataError(
        f"{name} changed while the shards were written ({why}), so nothing was written: "
        "run the same command once nothing else writes to DATA.",
        code="photo-changed",
    )


def index_unreadable(path: Path, error: OSError) -> DataError:
    """The operating system refuses the index."""
    return DataError(
        f"{path} cannot be read ({error.strerror or error}): check its permissions and the disk.", code="unreadable"
    )


def index_damaged(path: Path, why: str) -> DataError:
    """The index is not as `plusx shard` writes one."""
    return DataError(
        f"{path} is no index of shards as plusx writes it, or is damaged: {why}. {_ANEW}, or move the file away and "
        "the tars are read without it.",
        code="bad-index",
    )


def shard_missing(folder: str, name: str) -> DataError:
    """A shard that the index names is not there."""
    return DataError(
        f"{folder}{name} is missing or cannot be read, and the index beside the shards names it: copy it here again. "
        f"{_ANEW} where it is gone.",
        code="stale-index",
    )


def shard_changed(folder: str, name: str, found: str) -> DataError:
    """A shard is not the one that the index was written with."""
    return DataError(
        f"{folder}{name} is not the shard that its index was written with (it has {found}): copy it here again. "
        f"{_ANEW} where it was changed on purpose.",
        code="stale-index",
    )


def shard_unknown(folder: str, name: str) -> DataError:
    """A tar beside the shards that the index does not name."""
    return DataError(
        f"{folder}{name} lies beside the shards and their index does not name it: move it away. "
        f"{_ANEW} where it belongs to them.",
        code="stale-index",
    )
