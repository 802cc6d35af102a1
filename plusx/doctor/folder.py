"""A look at DATA before training: what is there, and what is wrong with it. DATA is only read."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plusx.data import remote, shards
from plusx.data.index import Index
from plusx.data.listing import IndexedPhotos, Listing
from plusx.data.source import content_hashes, scan
from plusx.data.survey import Survey, survey
from plusx.doctor import copies, looks
from plusx.doctor.copies import Found, Places
from plusx.doctor.report import CheckReport, Noted, Sizes, Unreadable
from plusx.errors import DataError

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Findings:
    """A report with what stands behind it: the photos, their SHA-256, and the positions of every finding by field."""

    report: CheckReport
    listing: Listing
    hashes: Sequence[str]
    survey: Survey
    places: dict[str, Found]

    def with_look_alikes(self, pairs: Sequence[tuple[int, int, float]]) -> Findings:
        """With pairs of positions that look alike to a model, and their cosine, the likest first."""
        photos = self.listing.photos
        noted = tuple(Noted(f"{photos[i].name} ~ {photos[j].name}", f"cosine {c:.3f}") for i, j, c in pairs)
        report = replace(self.report, look_alike=noted)
        return replace(self, report=report, places={**self.places, "look_alike": tuple((i, j) for i, j, _ in pairs)})


def check(
    data: str | Path | Sequence[str | Path], *, workers: int | None = None, on_progress: Progress | None = None
) -> CheckReport:
    """Decode and compare every photo of DATA, or remember it from the cache; the files are only read.

    `workers`: decoding processes, None for one per usable CPU. `on_progress` gets (photos done, all photos).
    Raises DataError where DATA has no labelled photos at all; what keeps it from being trained on
    otherwise is in the report.
    """
    return examine(data, workers=workers, on_progress=on_progress).report


def examine(
    data: str | Path | Sequence[str | Path], *, workers: int | None = None, on_progress: Progress | None = None
) -> Findings:
    """As `check`, with the positions of the photos behind every finding."""
    listing, unusable = _scan(data)
    if isinstance(listing.photos, IndexedPhotos):
        _verify(listing.photos.table)
    hashes = content_hashes(listing.photos)
    found = survey(listing.photos, hashes, workers=workers, on_progress=on_progress)
    groups, noted = _groups(listing, hashes, found), _noted(listing, found)
    report = _report(listing, found, unusable, groups, noted)
    single = {field: tuple((i,) for i, _ in pairs) for field, pairs in noted.items()}
    places = {**groups, **single, "unreadable": tuple((i,) for i in sorted(found.bad))}
    return Findings(report, listing, hashes, found, places)


def _verify(table: Index) -> None:
    """Raise DataError where a shard has other bytes than its index states: behind a URL, when it is fetched."""
    if not remote.is_url(table.base):
        table.verify()
        return
    for shard in table.shards:
        shards.opened(table.base + shard.name)
        shards.let_go(table.base + shard.name)


def _report(
    listing: Listing,
    found: Survey,
    unusable: str | None,
    groups: Mapping[str, Found],
    noted: Mapping[str, list[tuple[int, str]]],
) -> CheckReport:
    fields: dict[str, Any] = {field: _names(listing, places) for field, places in groups.items()}
    fields |= {field: _notes(listing, pairs) for field, pairs in noted.items()}
    return CheckReport(
        data=listing.root,
        classes=listing.classes,
        photos=len(listing.photos),
        counts=_counts(listing),
        sizes=_sizes(found),
        unusable=unusable,
        unreadable=tuple(Unreadable(listing.photos[i].name, b.code, b.reason) for i, b in sorted(found.bad.items())),
        junk=listing.junk,
        look_alike=(),
        outside=listing.outside,
        **fields,
    )


def _scan(data: str | Path | Sequence[str | Path]) -> tuple[Listing, str | None]:
    try:
        return scan(data), None
    except DataError as error:
        return scan(data, trainable=False), error.message


def _groups(listing: Listing, hashes: Sequence[str], found: Survey) -> dict[str, Found]:
    """Groups of positions by the field of the report."""
    equal = copies.equal(listing, hashes, found.good)
    near, mirrored = copies.near(listing, found, hashes)
    return {
        "across_splits": equal.across,
        "conflicts": equal.conflicts,
        "duplicates": equal.within,
        "near_across_splits": near.across,
        "near_conflicts": near.conflicts,
        "near_duplicates": near.within,
        "mirrored": mirrored,
    }


def _noted(listing: Listing, found: Survey) -> dict[str, list[tuple[int, str]]]:
    """Single photos with a note, by the field of the report."""
    return {
        "blank": list(looks.blank(found)),
        "tiny": list(looks.tiny(found)),
        "stretched": list(looks.stretched(found)),
        "animated": list(looks.animated(found)),
        "turned": list(looks.turned(found)),
        "odd_modes": list(looks.odd_modes(found)),
        "misnamed": list(looks.misnamed(listing, found)),
    }


def _names(listing: Listing, groups: Iterable[Places]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(listing.photos[i].name for i in group) for group in groups)


def _notes(listing: Listing, pairs: Iterable[tuple[int, str]]) -> tuple[Noted, ...]:
    return tuple(Noted(listing.photos[i].name, note) for i, note in pairs)


def _counts(listing: Listing) -> dict[str, dict[str, int]]:
    counted = Counter((photo.split or "all", photo.label) for photo in listing.photos)
    splits = [name for name in ("train", "val", "test", "all") if any(split == name for split, _ in counted)]
    return {s: {name: counted[s, i] for i, name in enumerate(listing.classes)} for s in splits}


def _sizes(found: Survey) -> Sizes | None:
    if not len(found.good):
        return None
    return Sizes(*(_spread(found.rows[side][found.good].tolist()) for side in ("width", "height")))


def _spread(values: Sequence[int]) -> tuple[int, int, int]:
    return min(values), statistics.median_low(values), max(values)
