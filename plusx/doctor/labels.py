"""Labels that are probably wrong: what cross-validated answers say, as a report and as a list to decide on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx import metrics
from plusx.data import decisions
from plusx.data.decisions import Decision
from plusx.data.source import Listing, Photo
from plusx.durable import make_folder, write_json
from plusx.metrics import percent
from plusx.trust.label_errors import label_errors

LISTED = 500  # rows of labels.csv: more than anybody wants to look at
SHOWN = 20
DOUBTED = 0.05  # share of wrong labels above which networks are doubted before labels are
CSV, JSON = "labels.csv", "labels.json"

Answers = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Suspect:
    """A photo whose label is doubtful: `probability` is that of the `suggested` class, `confidence` of its label.

    `sure`: the confident joint counts it; else the answer is another than the label, and that is all.
    """

    path: str
    sha256: str
    label: str
    suggested: str
    probability: float
    confidence: float
    sure: bool

    @property
    def reason(self) -> str:
        """Why, in a few words; never 1.00, for nothing is certain."""
        floor = math.floor(100 * self.probability) / 100
        return f"given {self.label}, looks like {self.suggested} (probability {floor:.2f})"


@dataclass(frozen=True)
class LabelReport:
    """What cross-validation in `folds` parts found over `n` photos.

    `suspects` are ranked, the most doubtful first, at most `LISTED` of the `found` ones and then of the `doubtful`
    others; `rows` are their positions in the listing. `estimated` is how many labels are wrong by the confident joint,
    `joint` [C][C]: rows are labels, columns classes.
    """

    data: str
    out: Path
    folds: int
    classes: tuple[str, ...]
    n: int
    right: int
    thresholds: dict[str, float]
    joint: tuple[tuple[float, ...], ...]
    estimated: float
    found: int
    doubtful: int
    suspects: tuple[Suspect, ...]
    rows: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of labels.json and of `check --labels --json`."""
        values = asdict(self) | {"out": str(self.out), "accuracy": self.right / self.n}
        del values["rows"], values["right"]
        values["suspects"] = [asdict(suspect) | {"reason": suspect.reason} for suspect in self.suspects]
        return values | {"accuracy_ci95": list(metrics.interval95(self.right, self.n))}

    def lines(self) -> list[str]:
        """The result for people."""
        return [*self.headline(), *self._listed()]

    def headline(self) -> Iterator[str]:
        """What was judged and how well, how many labels are doubtful, and whether to believe it."""
        low, high = (percent(share) for share in metrics.interval95(self.right, self.n))
        yield (
            f"{self.data}: {self.n:,} photos, each judged by a network that was trained on other photos; "
            f"accuracy {percent(self.right / self.n)} (95 % interval {low} to {high})"
        )
        yield (
            f"labels that are probably wrong: {self.found:,} (estimate of how many are: {self.estimated:,.0f}); "
            f"answered differently without being sure: {self.doubtful:,}"
        )
        if self.estimated > DOUBTED * self.n:
            yield (
                f"that is more than {percent(DOUBTED, 0)} of the labels: more likely the networks are weak, "
                "so give --time more before you decide, or look at every photo"
            )

    def _listed(self) -> Iterator[str]:
        yield from (f"  {suspect.path}: {suspect.reason}" for suspect in self.suspects[:SHOWN])
        if self.found + self.doubtful > SHOWN:
            yield f"  and {self.found + self.doubtful - SHOWN:,} more"
        if self.suspects:
            yield (
                f"{self.out / CSV} lists {len(self.suspects):,}, and nothing changes until you decide: "
                "write keep, drop or a class name into its last column, then train with --decisions."
            )


def judged(listing: Listing, hashes: Sequence[str], answers: Answers, out: Path, folds: int) -> LabelReport:
    """The report on photos with out-of-fold `answers` [N, C]; rows of NaN have none and are not judged."""
    rows: Rows = np.flatnonzero(~np.isnan(answers).any(axis=1))
    probabilities = answers[rows]
    labels = np.array([photo.label for photo in listing.photos], dtype=np.int64)[rows]
    found = label_errors(probabilities, labels)
    ranked = np.concatenate([found.suspects, found.doubtful])[:LISTED]
    sure = set(found.suspects.tolist())
    suspects = [
        _suspect(listing.photos[rows[i]], hashes[rows[i]], probabilities[i], (listing.classes, int(found.suggested[i])))
        for i in ranked
    ]
    suspects = [replace(suspect, sure=i in sure) for suspect, i in zip(suspects, ranked.tolist(), strict=True)]
    limits = zip(listing.classes, found.thresholds.tolist(), strict=True)
    return LabelReport(
        data=listing.root,
        out=out,
        folds=folds,
        classes=listing.classes,
        n=len(rows),
        right=int((probabilities.argmax(axis=1) == labels).sum()),
        thresholds={name: limit for name, limit in limits if not math.isnan(limit)},
        joint=tuple(map(tuple, found.joint.tolist())),
        estimated=found.estimated,
        found=len(found.suspects),
        doubtful=len(found.doubtful),
        suspects=tuple(suspects),
        rows=tuple(rows[ranked].tolist()),
    )


def write(report: LabelReport) -> None:
    """Write labels.csv and labels.json; what was already decided in an older labels.csv is carried over."""
    make_folder(report.out)
    rows = (Decision(s.path, s.sha256, s.label, s.reason, s.suggested) for s in report.suspects)
    decisions.write_over(report.out / CSV, rows, filled=False)
    write_json(report.out / JSON, report.to_json())


def _suspect(photo: Photo, sha256: str, answer: Answers, named: tuple[Sequence[str], int]) -> Suspect:
    classes, suggested = named
    label = photo.label or 0
    probability, confidence = float(answer[suggested]), float(answer[label])
    return Suspect(photo.name, sha256, classes[label], classes[suggested], probability, confidence, sure=False)
