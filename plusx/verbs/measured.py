"""From answers to what a page shows of them: figures, curves, decisions, and the photos worth looking at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from plusx.data.reading import read
from plusx.errors import Error
from plusx.images.decode import Undecodable
from plusx.images.preprocess import Preprocess
from plusx.images.source import Source
from plusx.metrics import reliability
from plusx.model_file import Header
from plusx.report.advice import SUSPECT
from plusx.report.curves import risk_curve
from plusx.report.pictures import jpeg
from plusx.report.story import Decisions, Gallery, Measured, Shown
from plusx.trust.calibration import error_by_chance, temper
from plusx.trust.decide import NONE, UNSURE
from plusx.verbs.answers import Answered

SHOWN = 12  # photos of one kind
PICTURE = 192  # px of a picture on the page: sharp on a phone's screen, about 6 kB
QUALITY = 82

Overlay = Callable[[npt.NDArray[np.uint8], int], bytes | None]  # pixels [S, S, 3] and a class to a picture of the map
Rows = npt.NDArray[np.int64]
Doubts = tuple[int, float]  # photos with a doubted label, and how many chance would give


@dataclass(frozen=True)
class Album:
    """Where the photos of a page are, by name, how the network sees them, and how a map is laid over one."""

    sources: Mapping[str, Source]
    preprocess: Preprocess
    overlay: Overlay | None = None

    def pictures(self, name: str, label: int, *, mapped: bool) -> tuple[bytes | None, bytes | None]:
        """The photo as the network sees it, and the map of class `label` over it; None for what cannot be made."""
        source = self.sources.get(name)
        if source is None:
            return None, None
        try:
            data = read(source)
            picture = jpeg(self._shown_as().from_bytes(data), QUALITY)
        except (Undecodable, OSError, Error):
            return None, None
        return picture, self._map(data, label) if mapped else None

    def _map(self, data: bytes, label: int) -> bytes | None:
        try:
            return self.overlay(self.preprocess.from_bytes(data), label) if self.overlay else None
        except (Undecodable, OSError, Error):
            return None

    def _shown_as(self) -> Preprocess:
        larger = self.preprocess.enlarged(max(1.0, PICTURE / self.preprocess.crop))
        return replace(larger, decoder_scale=True)


def measured(name: str, where: str, answered: Answered, header: Header, album: Album) -> Measured:
    """Everything a page shows of the answers to one set of photos; `figures` are computed anew from them."""
    p, labels = answered.probabilities, answered.labels
    temperature = (header.calibration or {}).get("temperature")
    before = reliability(temper(p, 1 / temperature), labels) if temperature else ()  # scaling is undone by its inverse
    return Measured(
        name=name,
        where=where,
        figures=answered.figures(),
        ece_by_chance=error_by_chance(p),
        bins_before=before,
        risk=risk_curve(p, labels),
        decisions=_decisions(answered),
        galleries=_galleries(answered, album),
    )


def without_photos(name: str, where: str, answered: Answered, header: Header) -> Measured:
    """The same without any photo: of figures that are only mentioned."""
    bare = Album({}, header.preprocess)
    return replace(measured(name, where, answered, header, bare), galleries=())


def suspects(answered: Answered) -> Rows:
    """Photos whose given label gets less than `SUSPECT`, least first."""
    given = answered.probabilities[np.arange(len(answered.labels)), answered.labels]
    rows = np.flatnonzero(given < SUSPECT)
    return rows[np.argsort(given[rows], kind="stable")]


def doubts(answered: Answered) -> Doubts:
    """How many photos have such a label, and how many there would be if the probabilities were right."""
    p = answered.probabilities.astype(np.float64)
    return len(suspects(answered)), float(p[p < SUSPECT].sum())


def _decisions(answered: Answered) -> Decisions:
    unsure, none = (sum(answer == what for answer in answered.answers) for what in (UNSURE, NONE))
    given = zip(answered.answers, answered.labels, strict=True)
    right = sum(answer == answered.classes[label] for answer, label in given)
    n = len(answered.answers)
    return Decisions(n, n - unsure - none, right, unsure, none)


def _galleries(answered: Answered, album: Album) -> tuple[Gallery, ...]:
    top, doubted = answered.probabilities.max(axis=1), suspects(answered)
    mistakes = np.setdiff1d(np.flatnonzero(answered.wrong), doubted)
    mistakes = mistakes[np.argsort(-top[mistakes], kind="stable")]
    strange = np.flatnonzero([answer == NONE for answer in answered.answers])
    strange = strange[np.argsort(-answered.novelty[strange], kind="stable")]
    unsure = np.argsort(top, kind="stable")
    chosen: list[tuple[str, str, Rows, int]] = [
        ("Suspected labels", _DOUBTED, doubted, len(doubted)),
        ("Worst mistakes", "Wrong, and the surest of it; suspected labels are left out.", mistakes, len(mistakes)),
        ("Least certain", "The lowest probabilities of the answer.", unsure, 0),
    ]
    if not np.isnan(answered.novelty).all():
        chosen.append(("Refused as “none of these”", "The strangest of them first.", strange, len(strange)))
    return tuple(
        Gallery(title, told, total, _shown(answered, rows[:SHOWN], album, mapped=i < 2))
        for i, (title, told, rows, total) in enumerate(chosen)
    )


_DOUBTED = (
    "The network all but excludes the given label: either the label is wrong, or these are its worst mistakes. "
    "Nothing is changed by being shown here."
)


def _shown(answered: Answered, rows: Sequence[int] | Rows, album: Album, *, mapped: bool) -> tuple[Shown, ...]:
    return tuple(_photo(answered, int(row), album, mapped=mapped) for row in rows)


def _photo(answered: Answered, row: int, album: Album, *, mapped: bool) -> Shown:
    p, label = answered.probabilities[row], int(answered.labels[row])
    likeliest, novelty = int(p.argmax()), float(answered.novelty[row])
    picture, overlay = album.pictures(answered.names[row], likeliest, mapped=mapped)
    return Shown(
        name=answered.names[row],
        label=answered.classes[label],
        answer=answered.classes[likeliest],
        probability=float(p[likeliest]),
        of_label=float(p[label]),
        novelty=None if np.isnan(novelty) else novelty,
        picture=picture,
        overlay=overlay,
    )
