"""Photos that changed while a run was stopped: where they go, once that is accepted, and what the run says of it.

A photo whose bytes the run knows stays in the split it was in, whatever its name is now, and so does one that was
edited: its picture was trained on, or tested with, as it was. A new photo goes where DATA puts it or, where DATA does
not say, where its near-duplicates are, and otherwise to training: validation and test stay what they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plusx.data import split
from plusx.data.drift import Drift, drift
from plusx.data.split import Row
from plusx.errors import use as sentences
from plusx.images.decode import BadPhoto
from plusx.run_folder import RunFolder
from plusx.training import checkpoint
from plusx.training.events import Notice
from plusx.training.paths import Paths
from plusx.verbs import decoding, labelled
from plusx.verbs.labelled import LabelledPhotos, Pixels
from plusx.verbs.session import Session

RECORD = "changes"  # changes.json in the run folder
_SIDES = ("test", "val", "train")  # a new photo that is near several goes to the first: nothing is trained on it


@dataclass(frozen=True)
class Place:
    """Where a photo belongs: its split, and the key of its near-duplicates."""

    split: str
    key: str


def changed(photos: LabelledPhotos, run: RunFolder) -> Drift:
    """What happened to the photos of a run since it began, or since that was accepted the last time.

    Raises DataError where there are other classes now: the network has one answer for each of those it began with.
    """
    rows = split.read_split_csv(run.split)
    before, now = {row.label for row in rows}, set(photos.listing.classes)
    if before != now:
        raise sentences.changed_classes(photos.listing.root, sorted(now - before), sorted(before - now))
    return drift(rows, labelled.named(photos))


def accept(session: Session, run: RunFolder, photos: LabelledPhotos, pixels: Pixels, changes: Drift) -> LabelledPhotos:
    """The photos as they are now, each with its split. That the run is not exact any more is written down first.

    Raises DataError where a class has no photo left to learn from; nothing is written then.
    """
    places = _places(run, photos, pixels)
    placed = replace(photos, splits=tuple(p.split for p in places), keys=tuple(p.key for p in places))
    decoding.training_of(session, placed, pixels)
    step = session.world.once(lambda: _step_of_newest(run, session.config.keep))
    change = {
        "step": step,
        "photos": changes.counts(),
        "named": changes.told(),
        "gone": list(map(_cells, changes.gone)),
    }
    skipped = _skipped(run, photos, pixels)
    session.world.once(lambda: _write(run, change, skipped, placed))
    session.listen(Notice(sentences.accepted_changes(photos.listing.root, changes.counts(), step)))
    return placed


def _step_of_newest(run: RunFolder, keep: str) -> int:
    newest = Paths(run.path, "").resumed_from(keep).path
    return checkpoint.step_of(newest) if newest else 0


def _write(
    run: RunFolder, change: Mapping[str, Any], skipped: Sequence[tuple[str, BadPhoto]], placed: LabelledPhotos
) -> None:
    _record(run, change)
    if skipped or (run.path / "skipped.csv").exists():
        labelled.write_skipped(run.path / "skipped.csv", skipped)
    split.write_split_csv(run.split, labelled.split_rows(placed))  # last: until here the change is still refused


def facts(run: RunFolder) -> list[dict[str, Any]]:
    """What metrics.json and the model file say of changes that were accepted: after which step, how many photos."""
    return [{"step": change["step"], "photos": change["photos"]} for change in _recorded(run)]


def gone(run: RunFolder) -> list[Row]:
    """Photos that the run knew and has no more, as they were."""
    return [Row(*cells) for change in _recorded(run) for cells in change["gone"]]


def _record(run: RunFolder, change: Mapping[str, Any]) -> None:
    """Write a change down, once: the split may not have been written after it, and then it is accepted again."""
    before, now = _recorded(run), json.loads(json.dumps(change))
    run.write(RECORD, {"exact": False, "accepted": before if before[-1:] == [now] else [*before, now]})


def _recorded(run: RunFolder) -> list[dict[str, Any]]:
    return list(run.read(RECORD)["accepted"]) if (run.path / f"{RECORD}.json").exists() else []


def _cells(row: Row) -> tuple[str, ...]:
    return row.path, row.label, row.split, row.sha256, row.group


def _places(run: RunFolder, photos: LabelledPhotos, pixels: Pixels) -> list[Place]:
    """The place of every photo, in the order of the listing."""
    rows = [*gone(run), *split.read_split_csv(run.split)]
    places = _known_places(rows, photos)
    groups = labelled.near(photos, pixels)
    together: dict[int, list[int]] = {}
    for row, group in zip(pixels.rows.tolist(), groups.tolist(), strict=True):
        together.setdefault(group, []).append(row)
    for members in together.values():
        near = [places[row] for row in members if row in places]
        for row in members:
            if row not in places:
                places[row] = _near(photos, row, near, min(photos.hashes[other] for other in members))
    unread = (row for row in range(len(photos.hashes)) if row not in places)
    places |= {row: _near(photos, row, (), photos.hashes[row]) for row in unread}
    return [places[row] for row in range(len(photos.hashes))]


def _known_places(rows: Sequence[Row], photos: LabelledPhotos) -> dict[int, Place]:
    """The places of the photos that the run knows by their bytes, and of those that were edited."""
    same = {row.photo: row for row in rows}
    by_bytes = {row.sha256: row for row in rows}
    by_path = {row.path: row for row in rows}
    places = {}
    for i, photo in enumerate(labelled.named(photos)):
        row = same.get(photo) or by_bytes.get(photo[2])
        if row is not None:
            places[i] = Place(row.split, row.group or row.sha256)
        elif photo[0] in by_path:
            places[i] = Place(by_path[photo[0]].split, photo[2])
    return places


def _near(photos: LabelledPhotos, row: int, near: Sequence[Place], least: str) -> Place:
    """The place of a new photo: as DATA says; else beside its near-duplicates; else it trains."""
    given = photos.listing.photos[row].split
    beside = min(near, key=lambda place: _SIDES.index(place.split), default=None)
    key = beside.key if beside else least
    return Place(given or (beside.split if beside else "train"), key)


def _skipped(run: RunFolder, photos: LabelledPhotos, pixels: Pixels) -> list[tuple[str, BadPhoto]]:
    """The photos that are left out from now on: as before where they are the same, and those that cannot be read."""
    recorded = {row.photo for row in split.read_split_csv(run.split)}
    same = {photo[0] for photo in labelled.named(photos) if photo in recorded}
    before = [(name, why) for name, why in labelled.read_skipped(run.path / "skipped.csv") if name in same]
    return [*before, *((name, why) for name, why in pixels.bad if name not in same)]
