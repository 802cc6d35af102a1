"""The folder that `check --out` writes: a page to look at, the report as JSON, and a table of decisions to edit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plusx.data import decisions
from plusx.doctor.folder import Findings
from plusx.doctor.quarantine import quarantine
from plusx.doctor.report import KINDS, CheckReport, Kind, Noted, Unreadable
from plusx.durable import make_folder, write_file
from plusx.errors import usage
from plusx.report.gallery import Card, Row, Section, gallery_page
from plusx.report.pictures import small_pictures
from plusx.verbs.labels_page import FILES as LABELS

PAGE, JSON, TABLE = "check.html", "check.json", "quarantine.csv"
MARK = "plusx check"  # what makes a check.json one of ours
GROUPS, CARDS, IN_A_GROUP = 60, 120, 8  # shown in a section, and of one group; a page of all sections stays below 10 MB
_BAD = frozenset({"unreadable", "across_splits", "near_across_splits", "conflicts", "near_conflicts", "blank"})
_WARN = frozenset({"duplicates", "near_duplicates", "tiny", "stretched", "animated"})


@dataclass(frozen=True)
class _Shown:
    """A finding as it goes on the page: names and notes, and where each photo is, if it has pixels."""

    kind: Kind
    rows: tuple[tuple[tuple[str, str, int | None], ...], ...]  # of cards: name, note, position
    notes: tuple[str, ...]
    more: int


def refuse_other_folder(out: Path) -> None:
    """Raise UsageError where `out` holds something that `check` did not write."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() and not _is_ours(out):
        raise usage.not_a_check_folder(out)


def refuse_damaged_table(out: Path) -> None:
    """Raise DataError where an earlier table of decisions in `out` cannot be carried over."""
    if (out / TABLE).exists():
        decisions.read([out / TABLE])


def write_check_folder(out: Path, findings: Findings, workers: int | None = None) -> None:
    """Write check.html, check.json and quarantine.csv to `out`, over those of an earlier check.

    What people decided in an earlier quarantine.csv is carried over. Raises UsageError for a folder with anything else
    in it, DataError for a quarantine.csv that is none any more, and DiskError where it cannot be written.
    """
    refuse_other_folder(out)
    page = check_page(findings, workers)
    make_folder(out)
    document = {"made_by": MARK, **findings.report.to_json()}
    write_file(out / JSON, (json.dumps(document, indent=2) + "\n").encode())
    decisions.write_over(out / TABLE, quarantine(findings), filled=True)
    write_file(out / PAGE, page.encode("utf-8", "replace"))


def check_page(findings: Findings, workers: int | None = None) -> str:
    """The page: every finding with its photos side by side, those that cost most first."""
    shown = [_shown(findings, kind) for kind in KINDS if getattr(findings.report, kind.field)]
    wanted = sorted({place for one in shown for row in one.rows for _, _, place in row if place is not None})
    made = small_pictures([findings.listing.photos[place].source for place in wanted], workers)
    pictures: dict[int | None, bytes] = dict(zip(wanted, made, strict=True))
    return gallery_page(
        f"Check of {findings.report.data}", _lead(findings.report), [_section(s, pictures) for s in shown]
    )


def _is_ours(out: Path) -> bool:
    try:
        if {path.name for path in out.iterdir()} <= LABELS:
            return True
        document = json.loads((out / JSON).read_bytes())
        return document["made_by"] == MARK and {path.name for path in out.iterdir()} <= {PAGE, JSON, TABLE, *LABELS}
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _lead(report: CheckReport) -> list[str]:
    first, *rest = report.overview()
    verdict = report.problems or ("No problems found.",)
    return [". ".join([first, *(line.strip() for line in rest)]) + ".", *verdict, *report.advice]


def _shown(findings: Findings, kind: Kind) -> _Shown:
    items = getattr(findings.report, kind.field)
    places = findings.places.get(kind.field) or tuple(() for _ in items)  # junk has no pictures
    rows, notes, cards = list[tuple[tuple[str, str, int | None], ...]](), list[str](), 0
    for item, group in zip(items, places, strict=True):
        row = tuple(_cards(findings, item, group))[:IN_A_GROUP]
        if len(rows) == GROUPS or cards + len(row) > CARDS:
            break
        cards += len(row)
        rows.append(row)
        notes.append(_note(item, group))
    return _Shown(kind, tuple(rows), tuple(notes), len(items) - len(rows))


def _cards(findings: Findings, item: object, group: Sequence[int]) -> Iterator[tuple[str, str, int | None]]:
    if isinstance(item, Unreadable):
        yield item.name, item.reason, None
    elif isinstance(item, str):
        yield item, "", None
    elif isinstance(item, Noted) and len(group) == 1:
        yield item.name, item.note, group[0]
    else:
        yield from ((findings.listing.photos[place].name, _where(findings, place), place) for place in group)


def _where(findings: Findings, place: int) -> str:
    """A photo's class and split, and its size: by these one tells which of several copies to keep."""
    photo, row = findings.listing.photos[place], findings.survey.rows[place]
    label = findings.listing.classes[photo.label] if photo.label is not None else ""
    return " · ".join([*filter(None, (label, photo.split)), f"{row['width']}×{row['height']}"])


def _note(item: object, group: Sequence[int]) -> str:
    if isinstance(item, Noted) and len(group) > 1:
        return item.note
    return f"{len(group):,} photos, {IN_A_GROUP} shown" if len(group) > IN_A_GROUP else ""


def _section(shown: _Shown, pictures: Mapping[int | None, bytes]) -> Section:
    rows = tuple(
        Row(
            tuple(
                Card(name, note, pictures.get(place, b"") if place is not None else b"") for name, note, place in row
            ),
            n,
        )
        for row, n in zip(shown.rows, shown.notes, strict=True)
    )
    field = shown.kind.field
    tone = "bad" if field in _BAD else "warn" if field in _WARN else ""
    title = shown.kind.title[0].upper() + shown.kind.title[1:]
    return Section(title, shown.kind.advice, rows, shown.more, tone, f"{JSON} lists all of them")
