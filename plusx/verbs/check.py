"""`check`: a look at DATA before training, and the page of what was found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plusx.doctor.folder import Findings, Progress, examine
from plusx.doctor.report import CheckReport

__all__ = ["CheckReport", "check"]

Data = str | Path | Sequence[str | Path]

_EQUAL = ("across_splits", "conflicts", "duplicates")
_NEAR = ("near_across_splits", "near_conflicts", "near_duplicates", "mirrored")


def check(
    data: Data,
    *,
    out: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> CheckReport:
    """What is in DATA, and what is wrong with it; the files are only read.

    `out`: a folder for check.html, check.json and quarantine.csv; what was decided in an older one is carried over.
    `model`: a model file or run folder, by whose features further pairs that look alike are listed. `on_progress` gets
    (photos done, all photos). Raises DataError where DATA has no labelled photos at all or an older quarantine.csv is
    damaged, and UsageError for an `out` that holds other things.
    """
    from plusx.verbs.check_page import refuse_damaged_table, refuse_other_folder, write_check_folder

    if out is not None:
        refuse_other_folder(Path(out))
        refuse_damaged_table(Path(out))
    findings = examine(data, workers=workers, on_progress=on_progress)
    if model is not None:
        findings = _with_look_alikes(findings, Path(model), device, workers)
    if out is not None:
        write_check_folder(Path(out), findings, workers)
    return findings.report


def _with_look_alikes(findings: Findings, model: Path, device: str, workers: int | None) -> Findings:
    from plusx.doctor.look_alike import MOST_PHOTOS, look_alikes
    from plusx.errors.usage import too_many_to_compare
    from plusx.verbs.features import features

    good = findings.survey.good
    if len(good) > MOST_PHOTOS:
        raise too_many_to_compare(len(good), MOST_PHOTOS)
    rows, values = features(model, [findings.listing.photos[i].source for i in good], device, workers)
    seen = good[rows]
    pairs = look_alikes(values, _known_groups(findings)[seen])
    return findings.with_look_alikes([(int(seen[i]), int(seen[j]), cosine) for i, j, cosine in pairs])


def _known_groups(findings: Findings) -> npt.NDArray[np.int64]:
    """A number for every photo, the same for those that are known to be copies already."""
    group = np.arange(len(findings.listing.photos))
    for field in (*_EQUAL, *_NEAR):
        for places in map(list, findings.places[field]):
            group[places] = group[places].min()
    return group
