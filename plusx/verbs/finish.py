"""The end of a training: validation figures with their intervals, and the model file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx import model_file
from plusx.config import Config
from plusx.data.cache import StreamingStore
from plusx.data.index import SPLITS
from plusx.data.listing import Digests, Sides, called
from plusx.data.loader import in_order
from plusx.durable import sha256_file, write_file
from plusx.engines.torch_engine import TorchEngine
from plusx.errors import cache as cache_errors
from plusx.errors.model_file import damaged
from plusx.model_file import Header, ModelFile
from plusx.recipes import plan as planning
from plusx.recipes.plan import read_plan
from plusx.run_folder import RunFolder
from plusx.training.environment import choose_precision
from plusx.training.loop import Outcome
from plusx.trust.novelty import Discriminant
from plusx.verbs import accepted, labelled, neighbours, start, strangers, together
from plusx.verbs.answers import Answered, write_answers
from plusx.verbs.labelled import Indices, LabelledPhotos, Pixels, tested_preprocess, tested_size
from plusx.verbs.network import network_arguments
from plusx.verbs.session import Decoded
from plusx.verbs.testing import BATCH
from plusx.verbs.trusted import Trusted, Validated, trusted
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


def finish(
    run: RunFolder, config: Config, photos: LabelledPhotos, outcome: Outcome, decoded: Decoded, *, bare: bool = False
) -> Trained:
    """Measure and calibrate the kept weights on validation, write metrics.json, then the model file: it is finished.

    `bare`: nothing is fitted, and the answers are those of the network as it is.
    """
    engine = _engine(run, config, photos, outcome)
    score = None if bare else _look(run, config, photos, decoded, engine)
    validated = _validated(photos, engine, decoded.validation, config, score)
    fitted = Trusted() if bare else trusted(validated, photos.listing.classes, config.risk)
    header = replace(_header(config, photos, outcome), **fitted.to_json())
    answered = _answered(photos, decoded.validation, validated, fitted, header)
    figures: dict[str, Any] = {
        "steps": outcome.steps,
        "kept_step": outcome.kept_step,
        "stopped_early": outcome.stopped_early or read_plan(run.plan).stalled_at is not None,
        "data_fingerprint": photos.fingerprint,
        **({"accepted_changes": changes} if (changes := accepted.facts(run)) else {}),
        **({"changed_processes": numbers} if (numbers := together.facts(run)) else {}),
        "validation": answered and answered.figures(),
    }
    if answered:
        write_answers(run.validation_answers, answered)
    gone = model_file.seen_hashes([row.sha256 for row in accepted.gone(run) if row.split != "test"])
    seen = np.union1d(np.union1d(_used(photos, decoded), gone), start.seen(run))
    tensors = as_arrays(outcome.model) | (score.tensors() if score else {})
    model = model_file.to_bytes(ModelFile(replace(header, metrics=_brief(figures)), tensors, seen))
    run.write("metrics", figures | fitted.to_json() | {"model_sha256": hashlib.sha256(model).hexdigest()})
    write_file(run.model, model)  # last: a run with a model is finished
    return read_trained(run)


def _brief(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures for the model file, without the table of confusions: of 1,000 classes it has a million numbers."""
    measured = figures["validation"]
    return {**figures, "validation": measured and {k: v for k, v in measured.items() if k != "confusion"}}


def looks(training: int, steps: int, config: Config) -> int:
    """How many times the end of a training of so many photos and steps looks at a photo, besides validation."""
    return strangers.LOOKS * neighbours.remembered(training, steps * config.batch_size)


def read_trained(run: RunFolder) -> Trained:
    """What an already finished run gave. Raises ModelError where its model is no longer what was written."""
    metrics = run.read("metrics")
    if metrics.get("model_sha256") != sha256_file(run.model):
        raise damaged(run.model, "its bytes are not those that were written when the run ended")
    return Trained(run.path, run.model, metrics)


def _used(photos: LabelledPhotos, decoded: Decoded) -> npt.NDArray[np.uint64]:
    """Short hashes of every photo trained or chosen on: what could not be read was neither."""
    bad = called(photos.listing.photos, {name for name, _ in decoded.bad})
    tested = Sides.of(photos.splits).codes == SPLITS.index("test")
    used: npt.NDArray[np.uint64] = Digests.of(photos.hashes).words[~(tested | bad)]
    return used


def _header(config: Config, photos: LabelledPhotos, outcome: Outcome) -> Header:
    return Header(
        classes=photos.listing.classes,
        preprocess=tested_preprocess(config),
        network=network_arguments(config),
        size=tested_size(config),
        views=config.views,
        data_fingerprint=photos.fingerprint,
        config=config.model_dump(mode="json"),
        step=outcome.kept_step,
    )


def _engine(run: RunFolder, config: Config, photos: LabelledPhotos, outcome: Outcome) -> TorchEngine:
    """What will answer: everything that is fitted is fitted on its very answers."""
    device = next(outcome.model.parameters()).device
    kept = ModelFile(_header(config, photos, outcome), as_arrays(outcome.model))
    return TorchEngine(kept, device, run.path, choose_precision(device, "auto"))


def _look(
    run: RunFolder, config: Config, photos: LabelledPhotos, decoded: Decoded, engine: TorchEngine
) -> Discriminant | None:
    """Remember some training photos in the run folder; the score of novelty that they give, if it has a use.

    How many follows from the plan, so that a repeated run looks at the same.
    """
    training = decoded.training
    labels = photos.labels(training.rows)
    most = neighbours.remembered(len(labels), read_plan(run.plan).total_steps * config.batch_size)
    places = neighbours.balanced(labels, config.seed, most)
    shown = _at_hand(config, photos, training, training.rows[places])
    with closing(shown.store) if shown.store is not training.store else nullcontext():
        looked = strangers.look(engine, shown.store, shown.store_rows, config.seed)
    if looked.features:
        neighbours.remember(run, np.concatenate(looked.features), photos, training.rows[places[looked.order]])
    return strangers.fit(engine, looked, config.seed) if decoded.validation is not None else None


def _at_hand(config: Config, photos: LabelledPhotos, training: Pixels, rows: Indices) -> Pixels:
    """The pixels of the training photos at `rows`, to be read in any order; streamed ones are decoded for it first.

    Raises DataError where one of these cannot be read any more.
    """
    if not isinstance(training.store, StreamingStore):
        return replace(training, rows=rows, store_rows=training.store_rows[np.searchsorted(training.rows, rows)])
    how = labelled.training_preprocess(config, max(size for _, size in planning.training_sizes(config)))
    pixels = labelled.decode(photos, rows, how, config, lambda *_: None)
    if pixels.bad:
        raise cache_errors.photo_lost(pixels.bad[0][0], pixels.bad[0][1].reason)
    return pixels


def _validated(
    photos: LabelledPhotos,
    engine: TorchEngine,
    validation: Pixels | None,
    config: Config,
    score: Discriminant | None,
) -> Validated | None:
    """What the engine says of the validation photos, by all views."""
    if validation is None or not len(validation.rows):
        return None
    batches = in_order(validation.store, validation.store_rows, min(BATCH, engine.most))
    said = [engine.answers(pixels) for pixels in batches]
    probabilities = np.concatenate([answers.probabilities for answers in said])
    chooses = photos.chooses(validation.rows, config.splitting_seed)
    seen = [answers.descriptors for answers in said if answers.descriptors is not None]
    novelty = score.score(np.concatenate(seen)) if score else None
    return Validated(probabilities, photos.labels(validation.rows), chooses, novelty)


def _answered(
    photos: LabelledPhotos, validation: Pixels | None, validated: Validated | None, fitted: Trusted, header: Header
) -> Answered | None:
    """The answers to the validation photos as the model file will give them."""
    if validation is None or validated is None:
        return None
    named = [(photos.listing.photos[i].name, photos.hashes[i]) for i in validation.rows]
    calibrated = fitted.calibrated(validated.probabilities)
    answered = Answered.of(header.classes, named, validated.labels, calibrated)
    return answered.decided(header, None if validated.novelty is None else validated.novelty.astype(np.float64))
