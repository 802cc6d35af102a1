"""`train`: from DATA to a run folder with a trained model. Composition only: every step lives in a room below."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plusx.config import Config
from plusx.data import split
from plusx.data.augment import Augment
from plusx.data.loader import Batches, Order, Samples
from plusx.errors import data as data_errors
from plusx.errors import usage
from plusx.models.normalise import Normalised
from plusx.recipes import plan as planning
from plusx.recipes.plan import Plan
from plusx.recipes.resolve import resolve
from plusx.run_folder import RunFolder, create, open_run
from plusx.training import environment
from plusx.training.events import Event, Listener, Notice
from plusx.training.loop import Outcome, Paths, Training, Validate, fit
from plusx.training.settings import Settings
from plusx.training.step import State
from plusx.verbs import labelled
from plusx.verbs.finish import Trained, finish, read_trained
from plusx.verbs.labelled import LabelledPhotos, Pixels
from plusx.verbs.network import build_network, whiten, with_default_rate
from plusx.verbs.pace import RESERVE, Pacer, seconds_per_photo_tested, seconds_per_step
from plusx.verbs.reports import Built, Decoding, Planned, TrainEvent
from plusx.verbs.testing import validator
from plusx.verbs.weights import save_weights

CPU_BUDGET, GPU_BUDGET = 600.0, 120.0


@dataclass(frozen=True)
class Wish:
    """What was asked for, as flags of the command line are: settings, and how to start."""

    flags: Mapping[str, Any] = field(default_factory=dict)
    sets: Sequence[str] = ()
    file: Path | None = None
    plan: Path | None = None
    out: Path | None = None
    resume: bool = False


@dataclass(frozen=True)
class Session:
    """A run folder, what is trained in it, how, on what, and since when."""

    run: RunFolder
    data: tuple[str, ...]
    config: Config
    device: torch.device
    started: float
    listen: Callable[[TrainEvent], None]


def train(
    data: Sequence[str],
    wish: Wish,
    *,
    on_event: Callable[[TrainEvent], None] | None = None,
    started: float | None = None,
) -> Trained:
    """Train on DATA as `wish` asks; returns what was trained. `started` (monotonic) is when a time budget began.

    Raises UsageError, DataError, ModelError, DiskError, RunError, and Interrupted after a stop on request.
    """
    begun = time.monotonic() if started is None else started
    session = (_resumed if wish.resume else _new)(data, wish, begun, on_event or _silent)
    if wish.resume and session.run.finished:
        return read_trained(session.run)
    with session.run.lock():
        return _train(session, wish)


def _train(session: Session, wish: Wish) -> Trained:
    """Look, decode, build, plan, fit, finish."""
    config, listen = session.config, session.listen
    photos = _photos(session)
    training, validation = _pixels(session, photos)
    network = build_network(config, len(photos.listing.classes), session.device)
    listen(Built(config, photos.listing, _counts(photos), network, session.run.path))
    plan = _plan(session, wish, network, training, validation)
    listen(Planned(plan, config))
    pacer = Pacer(session.run, plan, session.started)
    batches = _batches(session, photos, training, pacer)
    try:
        outcome = _fit(session, network, batches, pacer, _validator(session, photos, validation))
    finally:
        batches.close()
    return finish(session.run, config, photos, outcome, validation)


def _new(data: Sequence[str], wish: Wish, begun: float, listen: Callable[[TrainEvent], None]) -> Session:
    config = resolve(wish.flags, sets=wish.sets, file=wish.file)
    device = _device(config)
    if config.time is None and config.epochs is None:
        config = config.model_copy(update={"time": CPU_BUDGET if device.type == "cpu" else GPU_BUDGET})
    config = with_default_rate(config)
    labelled.look_at_paths(data)  # before a folder is made for the run
    run = create(wish.out, _run_name(data, config))
    run.write("run", {"data": list(labelled.absolute(data))})
    run.write("environment", environment.record(device, fast_math=config.fast_math))
    run.write_config(config.model_dump(mode="json"))
    return Session(run, tuple(data), config, device, begun, listen)


def _resumed(data: Sequence[str], wish: Wish, begun: float, listen: Callable[[TrainEvent], None]) -> Session:
    if wish.out is None:
        raise usage.resume_without_run()
    run = open_run(wish.out)
    config = Config.model_validate(run.read_config())
    _refuse_changes(run, config, wish)
    kept = tuple(run.read("run")["data"])
    if data and labelled.absolute(data) != kept:
        raise usage.changed_settings(run.path, [("DATA", " ".join(kept), " ".join(data))])
    device = _device(config, run.read("environment").get("threads"))
    changes = environment.differences(run.read("environment"), environment.record(device, fast_math=config.fast_math))
    if changes:
        listen(
            Notice(f"The environment has changed ({'; '.join(changes)}), so the result may differ in its last bits.")
        )
    return Session(run, kept, config, device, begun, listen)


def _refuse_changes(run: RunFolder, config: Config, wish: Wish) -> None:
    """A resumed run keeps its settings; flags given again must say the same."""
    given = {name for name, value in wish.flags.items() if value is not None}
    given |= {text.partition("=")[0].strip() for text in wish.sets}
    wished = resolve(wish.flags, sets=wish.sets, file=wish.file, environment={})
    changed = [
        (name, getattr(config, name), getattr(wished, name))
        for name in sorted(given & set(Config.model_fields))
        if getattr(config, name) != getattr(wished, name)
    ]
    if changed:
        raise usage.changed_settings(run.path, changed)


def _device(config: Config, threads: int | None = None) -> torch.device:
    environment.prepare(threads, fast_math=config.fast_math)
    return environment.choose_device(config.device)


def _photos(session: Session) -> LabelledPhotos:
    """The photos of DATA and their split, which a resumed run must find as they were."""
    photos = labelled.look(session.data, session.config)
    if session.run.split.exists():
        labelled.refuse_changed(session.run.split, photos)
    else:
        split.write_split_csv(session.run.split, labelled.split_rows(photos))
    return photos


def _pixels(session: Session, photos: LabelledPhotos) -> tuple[Pixels, Pixels | None]:
    """Decoded training and validation photos. Raises DataError that lists every unreadable one."""
    config = session.config
    largest = max(size for _, size in planning.training_sizes(config))
    wanted = {"train": labelled.training_preprocess(config, largest), "val": labelled.tested_preprocess(config)}
    decoded = {name: _decoded(session, photos, name, how) for name, how in wanted.items()}
    bad = [entry for pixels in decoded.values() if pixels for entry in pixels.bad]
    if bad and not config.skip_bad:
        labelled.refuse_bad(session.data, len(photos.hashes), bad)
    if bad:
        session.listen(Notice(f"Training without {len(bad)} photos that cannot be read; skipped.csv names them."))
        labelled.write_skipped(session.run.path / "skipped.csv", bad)
    training = decoded["train"]
    if training is None or len(np.unique(photos.labels(training.rows))) < len(photos.listing.classes):
        raise data_errors.no_training_photos(" ".join(session.data))
    return training, decoded["val"]


def _decoded(session: Session, photos: LabelledPhotos, name: str, how: Any) -> Pixels | None:
    rows = photos.rows(name)
    if not len(rows):
        return None

    def progress(done: int, total: int) -> None:
        session.listen(Decoding(name, done, total))

    pixels = labelled.decode(photos, rows, how, session.config, progress)
    if pixels.store.notice:
        session.listen(Notice(pixels.store.notice))
    return pixels


def _plan(session: Session, wish: Wish, network: Normalised, training: Pixels, validation: Pixels | None) -> Plan:
    """The plan of the run: its own when resumed, a given one, or a new one; written before the first step."""
    config, run = session.config, session.run
    if run.plan.exists():
        return planning.read_plan(run.plan)
    order = _order(config)
    steps = order.steps_per_epoch(len(training.rows))
    if wish.plan is not None:
        plan = planning.read_plan(wish.plan)
    elif config.epochs is not None:
        plan = planning.counted(config, steps, config.epochs)
    else:
        plan = _timed_plan(session, network, steps, validation)
    run.write("plan", plan.to_json())
    return plan


def _timed_plan(session: Session, network: Normalised, steps: int, validation: Pixels | None) -> Plan:
    """Divide what is left of the budget by the measured time of a step."""
    config, device = session.config, session.device
    cost = seconds_per_step(network, config, device)
    tested = seconds_per_photo_tested(network, config.test_size or config.size, device)
    photos = len(validation.rows) if validation else 0
    left = session.started + (config.time or 0.0) - time.monotonic() - RESERVE - photos * tested * _views(config)
    return planning.timed(config, steps, cost, left, overhead=photos / 2 * tested)


def _batches(session: Session, photos: LabelledPhotos, pixels: Pixels, pacer: Pacer) -> Batches:
    names = [photo.name for photo in photos.photos(pixels.rows)]
    samples = Samples(photos.labels(pixels.rows), pixels.store_rows, names, len(photos.listing.classes))
    augment = Augment.of(session.config.model_dump())
    return Batches(pixels.store, samples, _order(session.config), augment, pacer.size_at, session.device)


def _order(config: Config) -> Order:
    return Order(config.seed, config.batch_size, config.drop_last, config.sampling)


def _validator(session: Session, photos: LabelledPhotos, validation: Pixels | None) -> Validate | None:
    if validation is None:
        return None
    chooses = split.halves([photos.hashes[i] for i in validation.rows], session.config.seed)
    return validator(validation, photos.labels(validation.rows), chooses)


def _fit(session: Session, network: Normalised, batches: Batches, pacer: Pacer, validate: Validate | None) -> Outcome:
    settings = _settings(session.config, pacer.plan)
    paths = Paths(session.run.path, f"plusx train --resume --out {session.run}")
    if not session.run.checkpoints.exists():  # else the checkpoint holds the filters
        whiten(network, batches)
    training = Training(State.fresh(network, settings), settings, paths, _with_weights(session))
    training.resume()
    return fit(training, batches, validate, pacer.shorten)


def _settings(config: Config, plan: Plan) -> Settings:
    return Settings.of(
        config.model_dump(),
        total_steps=plan.total_steps,
        steps_per_epoch=plan.steps_per_epoch,
        shortened=plan.shortened,
        review_steps=tuple(planning.review_steps(plan)),
    )


def _with_weights(session: Session) -> Listener:
    """Events go to whoever watches; weights that are due are saved on the way."""

    def listen(event: Event) -> None:
        save_weights(session.run.path, event)
        session.listen(event)

    return listen


def _counts(photos: LabelledPhotos) -> dict[str, int]:
    return {name: photos.splits.count(name) for name in split.NAMES}


def _views(config: Config) -> int:
    return 2 if config.flip_views else 1


def _run_name(data: Sequence[str], config: Config) -> str:
    """`<data>-<recipe>`, as far as DATA has a name."""
    first = Path(labelled.absolute(data)[0])
    named = first.parent if "*" in first.name or first.suffix in (".tar", ".csv") else first
    return f"{named.name or 'run'}-{config.recipe}"


def _silent(event: TrainEvent) -> None:
    """Nobody watches."""
