"""What to do about each photo that something is wrong with: rows of decisions (`plusx.data.decisions`), filled in.

Photos under two labels get no decision: a person must choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from plusx.data.decisions import DROP, KEEP, Decision
from plusx.doctor.copies import Places
from plusx.doctor.folder import Findings

OPEN = ""

_REASONS = {
    "conflicts": "equal photos with different labels",
    "near_conflicts": "the same picture with different labels",
    "across_splits": "equal photos across splits",
    "near_across_splits": "the same picture across splits",
    "duplicates": "equal photos within a split",
    "near_duplicates": "the same picture within a split",
}
_LEARNED_FIRST = {"train": 0, "val": 1, "test": 2}


@dataclass(frozen=True)
class Verdict:
    """What is the matter with the photo at `place`, and what is suggested."""

    place: int
    reason: str
    decision: str


def quarantine(findings: Findings) -> Iterator[Decision]:
    """A row for each photo in question, in the order of the photos, decided as suggested."""
    listing = findings.listing
    for place, verdicts in sorted(_by_place(_verdicts(findings)).items()):
        photo, decision = listing.photos[place], _strictest(verdicts)
        reason = "; ".join(dict.fromkeys(verdict.reason for verdict in verdicts))
        label = listing.classes[photo.label] if photo.label is not None else ""
        yield Decision(photo.name, findings.hashes[place], label, reason, decision, decision)


def _verdicts(findings: Findings) -> Iterator[Verdict]:
    for (place,), bad in zip(findings.places["unreadable"], findings.report.unreadable, strict=True):
        yield Verdict(place, f"cannot be read: {bad.reason}", DROP)
    for (place,), blank in zip(findings.places["blank"], findings.report.blank, strict=True):
        yield Verdict(place, f"blank: {blank.note}", DROP)
    for field, reason in _REASONS.items():
        for group in findings.places[field]:
            for place, decision in _of_a_group(findings, field, group):
                yield Verdict(place, reason, decision)


def _of_a_group(findings: Findings, field: str, group: Places) -> Iterator[tuple[int, str]]:
    """Of photos under two labels none is decided; else what is in the last split stays, or the largest within one."""
    if field.endswith("conflicts"):
        yield from ((place, OPEN) for place in group)
        return
    splits = [findings.listing.photos[place].split for place in group]
    if field.endswith("across_splits"):
        last = max(splits, key=lambda split: _LEARNED_FIRST[split or "train"])
        yield from ((p, KEEP if split == last else DROP) for p, split in zip(group, splits, strict=True))
        return
    sizes = findings.survey.rows
    best = max(group, key=lambda place: (int(sizes["width"][place]) * int(sizes["height"][place]), -place))
    yield from ((place, KEEP if place == best else DROP) for place in group)


def _by_place(verdicts: Iterable[Verdict]) -> dict[int, list[Verdict]]:
    found: dict[int, list[Verdict]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.place, []).append(verdict)
    return found


def _strictest(verdicts: Sequence[Verdict]) -> str:
    """Drop what is worth nothing; leave open what a person must choose; keep only what nothing speaks against."""
    decisions = {verdict.decision for verdict in verdicts}
    if any(verdict.reason.startswith(("cannot be read", "blank")) for verdict in verdicts):
        return DROP
    return next(decision for decision in (OPEN, DROP, KEEP) if decision in decisions)
