"""Cross-validation: for every part of DATA the answers of a network that was trained on all other parts.

Each fold is a run like any other, under OUT/folds/fold-K, so that a check that was interrupted goes on where it was.
Nothing is chosen on a fold: there is no patience, and the last weights are kept.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from plusx import model_file
from plusx.data.loader import in_order
from plusx.durable import write_file
from plusx.engines.torch_engine import TorchEngine
from plusx.errors import UsageError, usage
from plusx.run_folder import RunFolder
from plusx.training.events import Notice
from plusx.verbs import decoding, labelled
from plusx.verbs.finish import Trained
from plusx.verbs.labelled import LabelledPhotos, Pixels
from plusx.verbs.session import Decoded, Session
from plusx.verbs.train import recorded_config, recorded_device, resume_split, train_split
from plusx.verbs.wish import Wish

ANSWERS = "answers.safetensors"
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
        answering = 0.0
        for number in range(self.folds):
            told = f"Fold {number + 1} of {self.folds}"
            run = RunFolder(fold_folder(self.folder, number))
            fold = replace(self.photos, splits=tuple("val" if k == number else "train" for k in self.dealt))
            if not (run.path / ANSWERS).exists():
                self.session.listen(Notice(f"{told}: training on the other photos."))
                left = self.session.started + self.budget - time.monotonic()
                seconds = min(self.budget / self.folds, left / (self.folds - number)) - answering
                answering = self._fold(run, fold, seconds)
            rows, found = _read(run)
            answers[rows] = found
        return answers

    def _fold(self, run: RunFolder, fold: LabelledPhotos, seconds: float) -> float:
        """Train a fold, or go on with it, and answer for its photos; returns the seconds that answering took."""
        if not (run.path / "config.yaml").exists():
            shutil.rmtree(run.path, ignore_errors=True)  # stopped before it was a run
            decoded = decoding.parted(self.session, fold, self.pixels)
            _trained(self.session, fold, decoded, Wish(out=run.path), seconds)
        else:
            fold = labelled.as_recorded(fold, run)
            decoded = decoding.parted(self.session, fold, self.pixels)
            self._continued(run, fold, decoded)
        started = time.monotonic()
        _write(run, self.session, decoded)
        return time.monotonic() - started

    def _continued(self, run: RunFolder, fold: LabelledPhotos, decoded: Decoded) -> None:
        if run.finished:
            return
        with run.lock():
            config = recorded_config(run)
            device = recorded_device(run, config, self.session.listen)
            resume_split(replace(self.session, config=config, device=device), run, fold, decoded)


def fold_folder(folder: Path, number: int) -> Path:
    """Where the run of a fold lies; the first is called 1."""
    return folder / f"fold-{number + 1}"


def _trained(session: Session, fold: LabelledPhotos, decoded: Decoded, wish: Wish, seconds: float) -> Trained:
    """One fold's run, within its share of the time."""
    own = replace(session, config=session.config.model_copy(update={"time": seconds}), started=time.monotonic())
    try:
        return train_split(own, fold, decoded, wish)
    except UsageError as error:
        if error.code == "time-too-short":
            raise usage.fold_too_short(seconds, error.message) from None
        raise


def _write(run: RunFolder, session: Session, decoded: Decoded) -> None:
    """Answer for the photos of a fold as the model file of its run does, and keep the answers beside it."""
    validation = decoded.validation
    assert validation is not None, "a fold has photos"
    model = model_file.load(run.model)
    engine = TorchEngine(model, session.device, run.model)
    batches = enumerate(in_order(validation.store, validation.store_rows, min(engine.most, session.config.batch_size)))
    found = np.concatenate([rows for _, rows in engine.many(batches)])
    content = {"rows": validation.rows, "probabilities": found}
    write_file(run.path / ANSWERS, safetensors.numpy.save(content))


def _read(run: RunFolder) -> tuple[Folds, npt.NDArray[np.float32]]:
    tensors = safetensors.numpy.load((run.path / ANSWERS).read_bytes())
    return tensors["rows"], tensors["probabilities"]
