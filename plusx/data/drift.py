"""What became of the photos that a run recorded: DATA as it was beside DATA as it is now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from plusx.data.split import Row

Named = tuple[str, str, str]  # path, class and SHA-256 of a photo


@dataclass(frozen=True)
class Drift:
    """Photos by what happened to them, each as it is shown to people; none where nothing did.

    `gone` are the recorded rows that no photo is any more: those removed, and what the others were before.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()  # other bytes under the same path
    relabelled: tuple[str, ...] = ()  # the same bytes in another class
    renamed: tuple[str, ...] = ()  # the same bytes and class under another path
    gone: tuple[Row, ...] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        return bool(self.told())

    def told(self) -> dict[str, tuple[str, ...]]:
        """The photos by what happened to them, without what happened to none."""
        kinds = [kind.name for kind in fields(self) if kind.name != "gone"]
        return {kind: photos for kind in kinds if (photos := getattr(self, kind))}

    def counts(self) -> dict[str, int]:
        """How many photos each thing happened to."""
        return {kind: len(photos) for kind, photos in self.told().items()}


def drift(recorded: Sequence[Row], now: Sequence[Named], of: str | None = None) -> Drift:
    """What happened to the `recorded` photos until `now`. A photo is the same with path, class and bytes.

    `of`: of one split alone, to which none was added. All rows are needed all the same, to know what is no news.
    """
    here = set(now)
    lost = [row for row in recorded if row.photo not in here]
    by_path = {row.path: row for row in lost}
    known = {row.photo for row in recorded}
    found: dict[str, list[str]] = {kind.name: [] for kind in fields(Drift) if kind.name != "gone"}
    matched: set[Named] = set()
    new = [photo for photo in now if photo not in known]
    by_bytes = {row.sha256: row for row in lost if row.path not in {path for path, _, _ in new}}
    for path, label, sha256 in new:
        before = by_path.get(path) or by_bytes.get(sha256)
        if before is None or before.photo in matched:
            found["added"] += [path] if of is None else []
            continue
        matched.add(before.photo)
        kind, shown = _what_happened(before, (path, label, sha256))
        found[kind] += [shown] if of in (None, before.split) else []
    lost = [row for row in lost if of in (None, row.split)]
    found["removed"] = [row.path for row in lost if row.photo not in matched]
    return Drift(**{kind: tuple(photos) for kind, photos in found.items()}, gone=tuple(lost))


def _what_happened(before: Row, now: Named) -> tuple[str, str]:
    """Which field of `Drift` the photo belongs to, and how it is shown there."""
    path, label, sha256 = now
    if before.sha256 != sha256:
        return "edited", path
    if before.label != label:
        return "relabelled", f"{path}, {before.label} before"
    return "renamed", f"{path}, {before.path} before"
