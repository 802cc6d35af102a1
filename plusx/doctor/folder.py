"""A look at DATA before training: what is there, and what is wrong with it. Nothing is written."""

from __future__ import annotations

import statistics
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plusx.data.source import Listing, Photo, content_hashes, scan
from plusx.errors import DataError
from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool
from plusx.images.preprocess import Preprocess

SHOWN = 20  # examples of each finding in the summary; the JSON report holds all of them

Progress = Callable[[int, int], None]
_SMALL = Preprocess(resize=32, crop=32)  # every pixel is decoded whatever the size kept of it


@dataclass(frozen=True)
class Unreadable:
    """A photo without pixels, and why."""

    name: str
    code: str
    reason: str


@dataclass(frozen=True)
class Sizes:
    """Widths and heights in pixels as stored, over the readable photos: smallest, median, largest."""

    width: tuple[int, int, int]
    height: tuple[int, int, int]


@dataclass(frozen=True)
class CheckReport:
    """What `check` found. Groups hold the names of photos with equal bytes; unreadable photos are in no group."""

    data: str
    classes: tuple[str, ...]
    photos: int
    counts: dict[str, dict[str, int]]  # split ("all" where DATA has none) -> class -> photos
    sizes: Sizes | None
    unusable: str | None  # why nothing can be trained on DATA as it is
    unreadable: tuple[Unreadable, ...]
    conflicts: tuple[tuple[str, ...], ...]  # equal photos with different labels
    across_splits: tuple[tuple[str, ...], ...]  # equal photos on two sides of the split
    duplicates: tuple[tuple[str, ...], ...]  # equal photos with one label in one split
    junk: tuple[str, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for each kind of fault, those that cost most first; junk and copies within a split are none."""
        found = [self.unusable] if self.unusable else []
        if self.unreadable:
            found.append(
                f"{_photos(len(self.unreadable))} cannot be read: mend or remove them, or train with --skip-bad."
            )
        if self.across_splits:
            found.append(
                f"{_groups(self.across_splits)} lie on two sides of the split: remove them from one, "
                "else the test is too kind."
            )
        if self.conflicts:
            found.append(f"{_groups(self.conflicts)} have different labels: keep the right one of each.")
        return tuple(found)

    @property
    def exit_code(self) -> int:
        """0, or 1 where problems were found."""
        return 1 if self.problems else 0

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types, with `problems`."""
        return {**asdict(self), "problems": list(self.problems)}

    def lines(self) -> list[str]:
        """The summary as plain text, a line each: the photos, then the findings in the order of what they cost."""
        return [*self._overview(), *self._findings(), *self._verdict()]

    def _overview(self) -> Iterator[str]:
        yield f"{self.data}: {_photos(self.photos)}, {len(self.classes)} classes"
        for split, counts in self.counts.items():
            yield f"  {split}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items())
        if self.sizes:
            (w0, w1, w2), (h0, h1, h2) = self.sizes.width, self.sizes.height
            yield f"  width {w0} to {w2} pixels (median {w1}), height {h0} to {h2} (median {h1})"

    def _findings(self) -> Iterator[str]:
        unreadable = [f"{bad.name}: {bad.reason}" for bad in self.unreadable]
        yield from _listed("cannot be read", unreadable)
        yield from _listed("equal photos across splits", map(_equal, self.across_splits))
        yield from _listed("equal photos with different labels", map(_equal, self.conflicts))
        yield from _listed("equal photos within a split", map(_equal, self.duplicates))
        yield from _listed("left out (not photos)", self.junk)

    def _verdict(self) -> Iterator[str]:
        yield from self.problems or ["No problems found."]


def check(
    data: str | Path | Sequence[str | Path], *, workers: int | None = None, on_progress: Progress | None = None
) -> CheckReport:
    """Decode and compare every photo of DATA; the files are only read.

    `workers`: decoding processes, None for one per usable CPU. `on_progress` gets (photos done, all photos).
    Raises DataError where DATA has no labelled photos at all; what keeps it from being trained on
    otherwise is in the report.
    """
    listing, unusable = _scan(data)
    hashes = content_hashes(listing.photos)
    widths, heights, bad = _survey(listing.photos, workers, on_progress)
    conflicts, across, within = _equal_photos(listing, hashes, bad)
    return CheckReport(
        data=listing.root,
        classes=listing.classes,
        photos=len(listing.photos),
        counts=_counts(listing),
        sizes=Sizes(_spread(widths), _spread(heights)) if widths else None,
        unusable=unusable,
        unreadable=tuple(Unreadable(listing.photos[i].name, why.code, why.reason) for i, why in sorted(bad.items())),
        conflicts=conflicts,
        across_splits=across,
        duplicates=within,
        junk=listing.junk,
    )


def _scan(data: str | Path | Sequence[str | Path]) -> tuple[Listing, str | None]:
    try:
        return scan(data), None
    except DataError as error:
        return scan(data, trainable=False), error.message


def _survey(
    photos: Sequence[Photo], workers: int | None, on_progress: Progress | None
) -> tuple[Sequence[int], Sequence[int], dict[int, BadPhoto]]:
    """Widths and heights of the readable photos, and why the others cannot be read, by position."""
    widths, heights = array("I"), array("I")  # of a million photos: numbers alone, no objects
    bad: dict[int, BadPhoto] = {}
    with DecodePool(_SMALL, workers=workers) as pool:
        for done, (index, answer) in enumerate(pool.survey(photo.source for photo in photos), start=1):
            if isinstance(answer, BadPhoto):
                bad[index] = answer
            else:
                widths.append(answer.width)
                heights.append(answer.height)
            if on_progress is not None:
                on_progress(done, len(photos))
    return widths, heights, bad


def _equal_photos(
    listing: Listing, hashes: Sequence[str], bad: Container[int]
) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """Groups of equal photos: with different labels, across splits, and the rest; the first two can overlap."""
    conflicts: list[tuple[str, ...]] = []
    across: list[tuple[str, ...]] = []
    within: list[tuple[str, ...]] = []
    for group in _groups_of_equals(listing, hashes, bad):
        names = tuple(photo.name for photo in group)
        torn = len({photo.label for photo in group}) > 1
        parted = len({photo.split for photo in group}) > 1
        conflicts += [names] * torn
        across += [names] * parted
        within += [names] * (not torn and not parted)
    return tuple(conflicts), tuple(across), tuple(within)


def _groups_of_equals(listing: Listing, hashes: Sequence[str], bad: Container[int]) -> Iterable[list[Photo]]:
    """The readable photos whose bytes another one has too; nearly all are alone and get no list of their own."""
    counts = Counter(h for i, h in enumerate(hashes) if i not in bad)
    groups: dict[str, list[Photo]] = defaultdict(list)
    for i, h in enumerate(hashes):
        if counts[h] > 1 and i not in bad:
            groups[h].append(listing.photos[i])
    return groups.values()


def _counts(listing: Listing) -> dict[str, dict[str, int]]:
    counted = Counter((photo.split or "all", photo.label) for photo in listing.photos)
    splits = [name for name in ("train", "val", "test", "all") if any(split == name for split, _ in counted)]
    return {s: {name: counted[s, i] for i, name in enumerate(listing.classes)} for s in splits}


def _spread(values: Sequence[int]) -> tuple[int, int, int]:
    return min(values), statistics.median_low(values), max(values)


def _listed(title: str, items: Iterable[str]) -> Iterator[str]:
    every = list(items)
    if every:
        yield f"{title}: {len(every):,}"
        yield from (f"  {item}" for item in every[:SHOWN])
        if len(every) > SHOWN:
            yield f"  and {len(every) - SHOWN:,} more (--json lists them all)"


def _equal(names: Sequence[str]) -> str:
    return " = ".join(names)


def _photos(count: int) -> str:
    return f"{count:,} photo{'' if count == 1 else 's'}"


def _groups(groups: Sequence[Sequence[str]]) -> str:
    return f"{len(groups):,} group{'' if len(groups) == 1 else 's'} of equal photos"
