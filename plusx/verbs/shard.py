"""`shard`: DATA as tars in WebDataset's convention, with an index and checksums."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from plusx.data import decisions
from plusx.data.decisions import Applied
from plusx.data.listing import Digests, at
from plusx.data.near_duplicates import near_groups
from plusx.data.sharded import refuse_taken, write_shards
from plusx.data.source import content_hashes, scan
from plusx.data.survey import Survey, survey
from plusx.errors import data as data_errors
from plusx.errors import shards as sentences

SIZE = "100MB"
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

Data = str | os.PathLike[str]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ShardReport:
    """What was written: photos, classes, shards and bytes; how many photos show a picture that others show, too.

    `left_out`: photos that cannot be read, with the reason of each.
    """

    out: str
    photos: int
    classes: tuple[str, ...]
    shards: int
    bytes: int
    near_duplicates: int
    decided: str
    left_out: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        named = [{"path": name, "reason": reason} for name, reason in self.left_out]
        return {**asdict(self), "classes": list(self.classes), "left_out": named}

    def lines(self) -> list[str]:
        """The report for people."""
        shards = f"{self.shards:,} shard{'' if self.shards == 1 else 's'}"
        told = f"{self.photos:,} photos of {len(self.classes):,} classes in {shards}, {self.bytes / 1e6:,.1f} MB"
        alike = f"Near-duplicates: {self.near_duplicates:,} photos; the index keeps each group on one side of a split."
        return [
            *(f"left out: {name}: {reason}" for name, reason in self.left_out),
            *([self.decided] if self.decided else []),
            *([alike] if self.near_duplicates else []),
            f"{self.out}: {told}",
        ]


def shard(
    data: Data | Sequence[Data],
    out: Data,
    *,
    size: str = SIZE,
    skip_bad: bool = False,
    decided: Sequence[Path] = (),
    on_progress: Progress | None = None,
) -> ShardReport:
    """Write the photos of DATA into `out`, new or empty, as shards of `size`; DATA is only read.

    Every photo is looked at once; those that cannot be read are refused, or left out with `skip_bad`. `decided`: files
    of decisions, as `train` takes them. `on_progress` hears (what is done, photos done, all). Raises DataError,
    UsageError and DiskError; nothing is left then that looks like shards.
    """
    roots = [os.fspath(data)] if isinstance(data, str | os.PathLike) else [os.fspath(each) for each in data]
    target, most, told = Path(out), parsed_size(size), on_progress or _silent
    refuse_taken(target, roots)
    found = _listed(roots, decided)
    seen = survey(found.listing.photos, found.hashes, on_progress=lambda done, all_: told("reading photos", done, all_))
    left_out = tuple((found.listing.photos[i].name, bad.reason) for i, bad in sorted(seen.bad.items()))
    if left_out and not skip_bad:
        command = shlex.join(["plusx", "shard", *roots, os.fspath(out), "--skip-bad"])
        raise data_errors.bad_photos(" ".join(roots), left_out, len(found.hashes), command)
    listing = replace(found.listing, photos=at(found.listing.photos, seen.good))
    decisions.refuse_too_few(listing)
    groups = _groups(seen)
    hashes = Digests.of(found.hashes).at(seen.good)
    written = write_shards(
        target, listing, hashes, groups, most, on_progress=lambda done, all_: told("writing shards", done, all_)
    )
    alike = int((np.bincount(groups)[groups] > 1).sum())
    decided_on = found.effect.sentence() if found.effect.rows else ""
    counts = (len(hashes), listing.classes, len(written.shards), written.bytes)
    return ShardReport(os.fspath(out), *counts, alike, decided_on, left_out)


def parsed_size(text: str) -> int:
    """'100MB' in bytes. Raises UsageError for what is no size."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * _UNITS.get(match[2].upper(), 0)) if match else 0
    if not 0 < size < 1 << 50:
        raise sentences.bad_size(text)
    return size


def _listed(roots: Sequence[str], decided: Sequence[Path]) -> Applied:
    """The photos with their SHA-256, as decisions want them."""
    listing = scan(roots)
    found = decisions.apply(listing, content_hashes(listing.photos), decisions.read(decided))
    decisions.refuse_strangers(found.effect, decided, listing.root)
    return found


def _groups(seen: Survey) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The first photo that shows the same picture, for each that can be read, [n]."""
    return near_groups(seen.rows["thumbnail"][seen.good])


def _silent(what: str, done: int, total: int) -> None:
    """Nobody watches."""
