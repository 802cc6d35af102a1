"""The end of a training: validation figures with their intervals, and the model file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plusx import model_file
from plusx.config import Config
from plusx.durable import sha256_file, write_file
from plusx.errors.model_file import damaged
from plusx.model_file import Header, ModelFile
from plusx.recipes.plan import read_plan
from plusx.run_folder import RunFolder
from plusx.training.loop import Outcome
from plusx.verbs import start
from plusx.verbs.answers import Answered, write_answers
from plusx.verbs.labelled import LabelledPhotos, Pixels, tested_preprocess, tested_size
from plusx.verbs.network import network_arguments
from plusx.verbs.session import Decoded
from plusx.verbs.testing import probabilities
from plusx.verbs.weights import as_arrays


@dataclass(frozen=True)
class Trained:
    """A finished run: its folder, its model file and the figures in metrics.json."""

    run: Path
    model: Path
    metrics: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {"run": str(self.run), "model": str(self.model), **self.metrics}


def finish(run: RunFolder, config: Config, photos: LabelledPhotos, outcome: Outcome, decoded: Decoded) -> Trained:
    """Measure the kept weights on all of validation, write metrics.json, then the model file: the run is finished."""
    answered = _validation(photos, outcome, decoded.validation, config)
    figures: dict[str, Any] = {
        "steps": outcome.steps,
        "kept_step": outcome.kept_step,
        "stopped_early": outcome.stopped_early or read_plan(run.plan).stalled_at is not None,
        "data_fingerprint": photos.fingerprint,
        "validation": answered.figures() if answered else None,
    }
    header = Header(
        classes=photos.listing.classes,
        preprocess=tested_preprocess(config),
        network=network_arguments(config),
        size=tested_size(config),
        views=config.views,
        metrics=figures,
        data_fingerprint=photos.fingerprint,
        config=config.model_dump(mode="json"),
        step=outcome.kept_step,
    )
    if answered:
        write_answers(run.validation_answers, answered.decided(header))
    seen = np.union1d(model_file.seen_hashes(_used(photos, decoded)), start.seen(run))
    model = model_file.to_bytes(ModelFile(header, as_arrays(outcome.model), seen))
    run.write("metrics", figures | {"model_sha256": hashlib.sha256(model).hexdigest()})
    write_file(run.model, model)  # last: a run with a model is finished
    return read_trained(run)


def read_trained(run: RunFolder) -> Trained:
    """What an already finished run gave. Raises ModelError where its model is no longer what was written."""
    metrics = run.read("metrics")
    if metrics.get("model_sha256") != sha256_file(run.model):
        raise damaged(run.model, "its bytes are not those that were written when the run ended")
    return Trained(run.path, run.model, metrics)


def _used(photos: LabelledPhotos, decoded: Decoded) -> list[str]:
    """SHA-256 of every photo trained or chosen on: what could not be read was neither."""
    rows = zip(photos.listing.photos, photos.hashes, photos.splits, strict=True)
    bad = {name for name, _ in decoded.bad}
    return [sha256 for photo, sha256, where in rows if where != "test" and photo.name not in bad]


def _validation(photos: LabelledPhotos, outcome: Outcome, validation: Pixels | None, config: Config) -> Answered | None:
    if validation is None or not len(validation.rows):
        return None
    store, rows = validation.store, validation.store_rows
    views, tested = config.views, tested_size(config)
    answers = probabilities(outcome.model, store, rows, views, tested, batch_size=config.batch_size)
    named = [(photos.listing.photos[i].name, photos.hashes[i]) for i in validation.rows]
    return Answered.of(photos.listing.classes, named, photos.labels(validation.rows), answers)
