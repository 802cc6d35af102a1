"""What a person decided about single photos: a CSV that `check` writes, people edit, and training and tests obey.

Columns path, sha256, class, reason, suggested, decision. A decision is empty or `keep` (nothing changes), `drop` (the
photo is left out of everything) or the name of a class (the photo is of that class). quarantine.csv of a plain check
comes with suggestions filled in, mostly `drop`; labels.csv of `check --labels` with none. Nothing in DATA is touched,
and nothing changes until the file is given to `--decisions`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from plusx.data.index import SPLITS
from plusx.data.listing import Digests, Listing, at, labels_of, names_of, relabelled, splits_of
from plusx.data.table import cell, text_of
from plusx.durable import write_file
from plusx.errors import data as sentences

COLUMNS = ("path", "sha256", "class", "reason", "suggested", "decision")
NEEDED = ("path", "sha256", "decision")  # the other three are for people
KEEP, DROP = "keep", "drop"

Key = tuple[str, str]  # path and SHA-256 of a photo


@dataclass(frozen=True, slots=True)
class Decision:
    """One row: the photo at `path` with bytes `sha256`, of class `label`. `where` names file and line in errors."""

    path: str
    sha256: str
    label: str = ""
    reason: str = ""
    suggested: str = ""
    decision: str = ""
    where: str = field(default="", compare=False)

    @property
    def key(self) -> Key:
        """What a photo is matched by."""
        return self.path, self.sha256

    @property
    def decided(self) -> bool:
        """Whether somebody decided that something changes."""
        return self.decision not in ("", KEEP)


@dataclass(frozen=True)
class Effect:
    """What decisions did: those that changed something, and how many of all `rows` match no photo."""

    effective: tuple[Decision, ...] = ()
    unmatched: int = 0
    rows: int = 0

    @property
    def dropped(self) -> int:
        """Photos left out."""
        return sum(decision.decision == DROP for decision in self.effective)

    @property
    def relabelled(self) -> int:
        """Photos of another class than DATA says."""
        return len(self.effective) - self.dropped

    def sentence(self) -> str:
        """What was done, for people."""
        if not self.effective:
            done = "No photo here was changed by decision: the column decision takes keep, drop or a class name."
        else:
            done = f"By decision, {_photos(self.dropped)} left out and {self.relabelled:,} relabelled."
        missed = f" Rows of the decisions that match no photo: {self.unmatched:,} of {self.rows:,}."
        return done + missed * bool(self.unmatched)

    def to_json(self) -> dict[str, int]:
        """The counts."""
        return {"dropped": self.dropped, "relabelled": self.relabelled, "unmatched": self.unmatched}


@dataclass(frozen=True)
class Applied:
    """Photos after the decisions about them: a shorter listing with other labels, and the hashes that belong to it."""

    listing: Listing
    hashes: Sequence[str]
    effect: Effect


def read(paths: Iterable[Path]) -> tuple[Decision, ...]:
    """The rows of decisions files, in order, each photo once.

    Raises DataError for a file that is missing, damaged or no such table, and where two rows decide differently.
    """
    found: dict[Key, Decision] = {}
    for row in (row for path in paths for row in _rows(path)):
        before = found.setdefault(row.key, row)
        if before.decision and row.decision not in ("", before.decision):
            raise sentences.decided_twice(row.path, before.decision, before.where, row.decision, row.where)
        if row.decision and not before.decision:
            found[row.key] = row
    return tuple(found.values())


def write(path: Path, rows: Iterable[Decision]) -> None:
    """Write a decisions file; any file name survives it, and none is a formula there (`plusx.data.table`)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    written = ((r.path, r.sha256, r.label, r.reason, r.suggested, r.decision) for r in rows)
    writer.writerows(map(cell, row) for row in written)
    write_file(path, text.getvalue().encode("utf-8", "surrogateescape"))


def write_over(path: Path, rows: Iterable[Decision], *, filled: bool) -> None:
    """Write a decisions file, over an older one if need be: what people decided there is carried over.

    `filled`: the table is written with every suggestion as the decision, so that only what differs from it was decided
    by somebody; else with none. Raises DataError where an older file is no such table.
    """
    older = {row.key: row for row in read([path])} if path.exists() else {}
    edited = {key: row for key, row in older.items() if row.decision != (row.suggested if filled else "")}
    new = [replace(row, decision=edited[row.key].decision) if row.key in edited else row for row in rows]
    listed = {row.key for row in new}
    write(path, [*new, *(row for key, row in edited.items() if row.decision and key not in listed)])


def apply(listing: Listing, hashes: Sequence[str], rows: Sequence[Decision], known: Sequence[str] = ()) -> Applied:
    """The photos of DATA as the decisions want them. Classes of DATA, and those `known` besides, may be named.

    Raises DataError for a class that is neither.
    """
    if not rows:
        return Applied(listing, hashes, Effect())
    classes = (*listing.classes, *(name for name in known if name not in listing.classes))
    for row in rows:
        if row.decided and row.decision != DROP and row.decision not in classes:
            raise sentences.unknown_decision(row.where, row.decision, (KEEP, DROP, *classes))
    wanted = {row.key: row for row in rows}
    keys = zip(names_of(listing.photos), hashes, strict=True)
    found = {place: wanted[key] for place, key in enumerate(keys) if key in wanted}
    unmatched = len(wanted.keys() - {row.key for row in found.values()})
    labels, kept = labels_of(listing.photos), np.ones(len(hashes), bool)
    effective = []
    for place, row in found.items():
        before = int(labels[place])
        if row.decided and row.decision != classes[before]:
            effective.append(replace(row, label=classes[before]))
            kept[place] = row.decision != DROP
            labels[place] = before if row.decision == DROP else classes.index(row.decision)
    left = np.flatnonzero(kept)
    photos = relabelled(at(listing.photos, left), labels[left]) if effective else listing.photos
    digests = Digests.of(hashes).at(left) if effective else hashes
    changed = replace(listing, photos=photos, classes=classes)
    return Applied(changed, digests, Effect(tuple(effective), unmatched, len(rows)))


def refuse_strangers(effect: Effect, files: Sequence[Path], root: str) -> None:
    """Raise DataError where rows were given and none of them is about a photo of DATA."""
    if effect.rows and effect.unmatched == effect.rows:
        raise sentences.no_decision_matches(", ".join(map(str, files)), effect.rows, root)


def refuse_too_few(listing: Listing) -> None:
    """Raise DataError where decisions leave a class with fewer than two photos to learn from."""
    trains = splits_of(listing.photos) <= SPLITS.index("train")
    counts = np.bincount(labels_of(listing.photos)[trains], minlength=len(listing.classes))
    for name, count in zip(listing.classes, counts.tolist(), strict=True):
        if count < 2:
            raise sentences.too_few(listing.root, name, count)


def contradict(given: Iterable[Decision], started: Iterable[Decision], labels: Mapping[Key, str]) -> bool:
    """Whether decisions `given` now would change a run that was `started` with others, and has photos of `labels`."""
    now = {row.key: row.decision for row in given if row.decided}
    before = {row.key: row.decision for row in started}
    return any(now.get(key) != decision for key, decision in before.items()) or any(
        key in labels and labels[key] != decision for key, decision in now.items()
    )


def _rows(path: Path) -> Iterator[Decision]:
    for number, values in _table(path):
        row = Decision(
            values["path"],
            values["sha256"].strip().lower(),
            values.get("class", ""),
            values.get("reason", ""),
            values.get("suggested", ""),
            values["decision"].strip(),
            f"{path}, line {number}",
        )
        if not row.path or len(row.sha256) != 64:
            raise sentences.bad_decisions(path, f"line {number} names no photo by its path and SHA-256")
        yield row


def _table(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and cells by column; spreadsheets may have put a byte order mark before them."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    except FileNotFoundError:
        raise sentences.decisions_missing(path) from None
    except OSError as error:
        raise sentences.unreadable(path, error) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in NEEDED if name not in header]
        if missing:
            raise sentences.bad_decisions(path, f"it has no column {' and no column '.join(missing)}")
        for cells in reader:
            if cells and len(cells) != len(header):
                raise sentences.bad_decisions(path, f"line {reader.line_num} has {len(cells)} cells")
            if cells:
                yield reader.line_num, dict(zip(header, map(text_of, cells), strict=True))
    except csv.Error as error:
        raise sentences.bad_decisions(path, str(error)) from None


def _photos(count: int) -> str:
    return f"{count:,} photo{'' if count == 1 else 's'}"
