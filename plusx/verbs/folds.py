"""Cross-validation: for every part of DATA the answers of a network that was trained on all other parts.

Each fold is a run like any other, under OUT/folds/fold-K, so that a check that was interrupted goes on where it was.
Nothing is chosen or fitted on a fold: there is no patience, the last weights are kept, and the answers are not
calibrated, for that would take the labels that are judged.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plusx.errors import model_file as model_errors
from plusx.errors import usage
from plusx.run_folder import RunFolder
from plusx.training.events import Notice
from plusx.verbs import decoding, labelled
from plusx.verbs.answers import read_answers
from plusx.verbs.labelled import LabelledPhotos, Pixels
from plusx.verbs.recorded import config_of
from plusx.verbs.session import Decoded, Session
from plusx.verbs.train import recorded_device, resume_split, train_split
from plusx.verbs.wish import Wish

SETTINGS = ("patience=null", "keep=last", "validate_every=1000000", "skip_bad=true")

Answers = npt.NDArray[np.float64]
Folds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CrossValidation:
    """Photos dealt into folds, their pixels, and where the runs of the folds lie. The session's config is of one."""

    session: Session
    photos: LabelledPhotos
    pixels: Pixels
    dealt: Folds
    folder: Path
    budget: float

    @property
    def folds(self) -> int:
        """How many there are."""
        return int(self.dealt.max()) + 1

    def answers(self) -> Answers:
        """Out-of-fold probabilities of every photo, [N, C]; NaN where a photo cannot be read."""
        answers = np.full((len(self.photos.hashes), len(self.photos.listing.classes)), np.nan)
        for number in range(self.folds):
            run = RunFolder(fold_folder(self.folder, number))
            fold = replace(self.photos, splits=tuple("val" if k == number else "train" for k in self.dealt))
            if not run.finished:
                told = f"Fold {number + 1} of {self.folds}: training on the other photos."
                self.session.listen(Notice(told))
                left = self.session.started + self.budget - time.monotonic()
                self._fold(run, fold, min(self.budget / self.folds, left / (self.folds - number)))
            rows, found = _read(run, fold)
            answers[rows] = found
        return answers

    def _fold(self, run: RunFolder, fold: LabelledPhotos, seconds: float) -> None:
        """Train a fold within `seconds`, or go on with it."""
        if (run.path / "config.yaml").exists():
            fold = labelled.as_recorded(fold, run)
            self._continued(run, fold, decoding.parted(self.session, fold, self.pixels))
        else:
            shutil.rmtree(run.path, ignore_errors=True)  # stopped before it was a run
            decoded = decoding.parted(self.session, fold, self.pixels)
            self._trained(fold, decoded, Wish(out=run.path), seconds)

    def _trained(self, fold: LabelledPhotos, decoded: Decoded, wish: Wish, seconds: float) -> None:
        spent = time.monotonic() - self.session.started
        config = self.session.config.model_copy(update={"time": seconds})
        session = replace(self.session, config=config, started=time.monotonic())
        try:
            train_split(session, fold, decoded, wish)
        except usage.TooShortError as error:
            needed = spent + error.needed * self.folds  # what came before the folds takes its time again
            raise usage.folds_too_short(self.budget, self.folds, error.needed, needed) from None

    def _continued(self, run: RunFolder, fold: LabelledPhotos, decoded: Decoded) -> None:
        with run.lock():
            config = config_of(run)
            device = recorded_device(run, config, self.session.listen)
            resume_split(replace(self.session, config=config, device=device), run, fold, decoded)


def fold_folder(folder: Path, number: int) -> Path:
    """Where the run of a fold lies; the first is called 1."""
    return folder / f"fold-{number + 1}"


def _read(run: RunFolder, fold: LabelledPhotos) -> tuple[Folds, npt.NDArray[np.float32]]:
    """Positions and probabilities of the photos of a fold, as its run wrote them when it ended."""
    answered = read_answers(run.validation_answers)
    if answered is None:
        raise model_errors.damaged(run.validation_answers, "it is gone")
    place = {photo.name: i for i, photo in enumerate(fold.listing.photos)}
    return np.array([place[name] for name in answered.names], dtype=np.int64), answered.probabilities
