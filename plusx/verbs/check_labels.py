"""`check --labels`: which labels of DATA are probably wrong, by networks that had not seen the photos they judge."""

from __future__ import annotations

import os
import shlex
import time as clock
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plusx.config import Config
from plusx.data import decisions, split
from plusx.doctor.labels import CSV, LabelReport, judged, write
from plusx.durable import locked, make_folder, write_json
from plusx.errors import data as data_errors
from plusx.errors import usage
from plusx.recipes.resolve import seconds
from plusx.run_folder import RunFolder
from plusx.verbs import decoding, labelled
from plusx.verbs.check_page import refuse_other_folder
from plusx.verbs.folds import SETTINGS, CrossValidation, fold_folder
from plusx.verbs.labelled import LabelledPhotos
from plusx.verbs.labels_page import write_labels_page
from plusx.verbs.network import refuse_network
from plusx.verbs.recorded import config_of
from plusx.verbs.reports import TrainEvent
from plusx.verbs.session import Session, prepared_device
from plusx.verbs.settle import at_scale, budgeted, wished
from plusx.verbs.wish import Wish

FOLDS, BUDGET = 5, "10m"
ASKED = "check"  # check.json in OUT/folds: what was asked, so that the same is continued


@dataclass(frozen=True)
class LabelWish:
    """What is asked of `check --labels`: where the result goes, parts, time for all of them, and settings by name."""

    out: Path
    folds: int = FOLDS
    time: str | float = BUDGET
    flags: dict[str, Any] = field(default_factory=dict)
    sets: Sequence[str] = ()

    @property
    def folder(self) -> Path:
        """Where the runs of the folds lie."""
        return self.out / "folds"

    def command(self, data: Sequence[str]) -> str:
        """The command line that continues this check."""
        asked = ["--labels", "--folds", str(self.folds), "--time", str(self.time), "--out", str(self.out)]
        device = str(self.flags.get("device", "auto"))
        return shlex.join(["plusx", "check", *data, *asked, *(["--device", device] if device != "auto" else [])])


def default_out(data: Sequence[str | os.PathLike[str]]) -> Path:
    """The folder for the result where none is named: check-NAME, NAME that of DATA."""
    return Path(f"check-{labelled.name_of([os.fspath(root) for root in data]) or 'photos'}")


def check_labels(
    data: Sequence[str | os.PathLike[str]],
    wish: LabelWish,
    *,
    on_event: Callable[[TrainEvent], None] | None = None,
    started: float | None = None,
) -> LabelReport:
    """Judge every label of DATA by cross-validation; writes labels.csv, .json, .html and the runs of the folds.

    Called again with the same wish it goes on where it was stopped. Raises UsageError where `out` holds the check of
    something else, DataError where DATA cannot be trained on, Interrupted after a stop on request.
    """
    begun = clock.monotonic() if started is None else started
    if wish.folds < 2:
        raise usage.too_few_folds(wish.folds)
    roots = [os.fspath(root) for root in data]
    if not (wish.folder / f"{ASKED}.json").exists():
        refuse_other_folder(wish.out)
    if (wish.out / CSV).exists():
        decisions.read([wish.out / CSV])  # what was decided is carried over in the end: a foreign table is told now
    make_folder(wish.folder)
    with locked(wish.folder / "check.lock"):
        return _checked(roots, wish, begun, on_event or (lambda _: None))


def _checked(data: list[str], wish: LabelWish, begun: float, listen: Callable[[TrainEvent], None]) -> LabelReport:
    budget = seconds(wish.time)
    asked = Wish({**wish.flags, "recipe": "fast", "time": budget / wish.folds}, (*SETTINGS, *wish.sets))
    config = wished(asked)
    device = prepared_device(config)
    refuse_network(config)
    photos = labelled.look(data, config)
    _refuse_another(wish, data, budget, photos)
    config = _settled(wish, asked, budgeted(config, device), begun, len(photos.hashes))
    session = Session(tuple(data), config, device, begun, listen, wish.command(data), bare=True)
    pixels = decoding.decode(session, photos, session.command or "", budget)
    with closing(pixels.store):
        photos = labelled.together(photos, pixels, config)
        labels = photos.labels(photos.every).tolist()
        _refuse_few(photos, labels, wish.folds)
        dealt = split.folds(labels, photos.keys, wish.folds, config.seed)
        answers = CrossValidation(session, photos, pixels, dealt, wish.folder, budget).answers()
        report = judged(photos.listing, photos.hashes, answers, wish.out, wish.folds)
        write(report)
        write_labels_page(report, photos.listing.photos, config.workers)
    return report


def _settled(wish: LabelWish, asked: Wish, config: Config, begun: float, photos: int) -> Config:
    """The settings of every fold: those of the first, where there is one, or at the scale that its time affords."""
    first = RunFolder(fold_folder(wish.folder, 0))
    if (first.path / "config.yaml").exists():
        return config_of(first).model_copy(update={"device": config.device})
    trained_on = round(photos * (wish.folds - 1) / wish.folds)
    return at_scale(config, asked, prepared_device(config), trained_on, begun)


def _refuse_another(wish: LabelWish, data: Sequence[str], budget: float, photos: LabelledPhotos) -> None:
    """Note what is asked; raise UsageError where the folder holds the folds of another question."""
    flags = {name: value for name, value in wish.flags.items() if name != "device"}  # another may go on with it
    now = {
        "data": list(labelled.absolute(data)),
        "folds": wish.folds,
        "time": budget,
        "settings": {**flags, "set": list(wish.sets)},
        "photos": photos.fingerprint,
    }
    folder = RunFolder(wish.folder)
    if not (wish.folder / f"{ASKED}.json").exists():
        write_json(wish.folder / f"{ASKED}.json", now)
        return
    before = folder.read(ASKED)
    changed = [(name, before.get(name), value) for name, value in now.items() if before.get(name) != value]
    if changed:
        raise usage.another_check(wish.out, changed)


def _refuse_few(photos: LabelledPhotos, labels: Sequence[int], folds: int) -> None:
    """Raise DataError where a class has too few different photos to have some in every fold."""
    distinct = [len({key for key, label in zip(photos.keys, labels, strict=True) if label == c}) for c in set(labels)]
    for label, count in zip(sorted(set(labels)), distinct, strict=True):
        if count < folds:
            raise data_errors.too_few_for_folds(photos.listing.root, photos.listing.classes[label], count, folds)
