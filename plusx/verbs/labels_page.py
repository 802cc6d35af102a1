"""labels.html: the photos whose labels are doubtful, to look at while one decides."""

from __future__ import annotations

from collections.abc import Sequence

from plusx.data.source import Photo
from plusx.doctor.labels import CSV, JSON, LISTED, LabelReport, Suspect
from plusx.durable import write_file
from plusx.report.gallery import Card, Row, Section, gallery_page
from plusx.report.pictures import small_pictures

PAGE = "labels.html"
FILES = frozenset({CSV, JSON, PAGE, "folds"})  # what a check of labels writes into its folder
SHOWN = 120  # photos in a section: the page stays small enough to be sent
REST = f"{CSV} lists up to {LISTED:,} photos, the most doubtful first"
WHY = "As surely another class as photos of that class are. In order, the most doubtful first."
PERHAPS = "Answered differently, without being sure: hard photos, and some that show neither class or both."


def write_labels_page(report: LabelReport, photos: Sequence[Photo], workers: int | None = None) -> None:
    """Write labels.html beside labels.csv; `photos` are those of the listing. Raises DiskError where it cannot."""
    write_file(report.out / PAGE, labels_page(report, photos, workers).encode("utf-8", "replace"))


def labels_page(report: LabelReport, photos: Sequence[Photo], workers: int | None = None) -> str:
    """The page as HTML: what was found in words, then the suspects and the doubtful with their pictures."""
    pairs = list(zip(report.suspects, report.rows, strict=True))
    sure, others = ([(s, row) for s, row in pairs if s.sure == kind][:SHOWN] for kind in (True, False))
    pictures = small_pictures([photos[row].source for _, row in (*sure, *others)], workers)
    sections = (
        _section(("Labels that are probably wrong", WHY, "warn"), [s for s, _ in sure], pictures, report.found),
        _section(("Answered differently", PERHAPS, ""), [s for s, _ in others], pictures[len(sure) :], report.doubtful),
    )
    return gallery_page(f"Labels of {report.data}", _lead(report), [s for s in sections if s.rows])


def _lead(report: LabelReport) -> list[str]:
    decide = f"Nothing changes until you decide: write keep, drop or a class name into the last column of {CSV}."
    return [*(f"{line[0].upper()}{line[1:]}." for line in report.headline()), decide]


def _section(titled: tuple[str, str, str], suspects: Sequence[Suspect], pictures: Sequence[bytes], n: int) -> Section:
    title, lead, tone = titled
    rows = (Row((Card(s.path, s.reason, jpeg),)) for s, jpeg in zip(suspects, pictures, strict=False))
    return Section(title, lead, tuple(rows), n - len(suspects), tone, REST)
