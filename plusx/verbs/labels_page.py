"""labels.html: the photos whose labels are doubtful, to look at while one decides."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from plusx.data.source import Photo
from plusx.doctor.labels import CSV, JSON, LabelReport, Suspect
from plusx.durable import write_file
from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool
from plusx.images.preprocess import Preprocess
from plusx.report.gallery import Card, Row, Section, gallery_page

PAGE = "labels.html"
FILES = frozenset({CSV, JSON, PAGE, "folds"})  # what a check of labels writes into its folder
SHOWN = 120  # photos in a section: the page stays small enough to be sent
SIDE = 144  # pixels of a picture
WHY = "As surely another class as photos of that class are. In order, the most doubtful first."
PERHAPS = "Answered differently, without being sure: hard photos, and some that show neither class or both."


def write_labels_page(report: LabelReport, photos: Sequence[Photo], workers: int | None = None) -> None:
    """Write labels.html beside labels.csv; `photos` are those of the listing. Raises DiskError where it cannot."""
    write_file(report.out / PAGE, labels_page(report, photos, workers).encode("utf-8", "replace"))


def labels_page(report: LabelReport, photos: Sequence[Photo], workers: int | None = None) -> str:
    """The page as HTML: what was found in words, then the suspects and the doubtful with their pictures."""
    pairs = list(zip(report.suspects, report.rows, strict=True))
    sure, others = ([(s, row) for s, row in pairs if s.sure == kind][:SHOWN] for kind in (True, False))
    pictures = _pictures([photos[row] for _, row in (*sure, *others)], workers)
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
    return Section(title, lead, tuple(rows), n - len(suspects), tone)


def _pictures(photos: Sequence[Photo], workers: int | None) -> list[bytes]:
    """Small JPEGs; empty for a photo that cannot be read any more."""
    found = [b""] * len(photos)
    with DecodePool(Preprocess(resize=SIDE, crop=SIDE), workers) as pool:
        for i, result in pool.map([photo.source for photo in photos]):
            if not isinstance(result, BadPhoto):
                found[i] = _jpeg(result)
    return found


def _jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=72)
    return file.getvalue()
