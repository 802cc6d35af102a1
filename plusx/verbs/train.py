"""`train`: from DATA to a run folder with a trained model. Composition only: every step lives in a room below."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
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
from plusx.images.decode import BadPhoto
from plusx.models.normalise import Normalised
from plusx.recipes import plan as planning
from plusx.recipes.plan import Plan
from plusx.recipes.resolve import resolve
from plusx.run_folder import RunFolder, create, open_run, refuse_taken
from plusx.training import checkpoint, environment
from plusx.training.events import Event, Listener, Notice
from plusx.training.loop import Outcome, Paths, Training, Validate, fit
from plusx.training.settings import Settings
from plusx.training.step import State
from plusx.verbs import labelled
from plusx.verbs.board import Board, require_tensorboard
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
    """What is trained, how, on what, since when, and who watches."""

    data: tuple[str, ...]
    config: Config
    device: torch.device
    started: float
    listen: Callable[[TrainEvent], None]


@dataclass(frozen=True)
class Decoded:
    """The pixels of a run: training and validation, and the photos left out because they cannot be read."""

    training: Pixels
    validation: Pixels | None
    bad: tuple[tuple[str, BadPhoto], ...]


def train(
    data: Sequence[str],
    wish: Wish,
    *,
    on_event: Callable[[TrainEvent], None] | None = None,
    started: float | None = None,
) -> Trained:
    """Train on DATA as `wish` asks; returns what was trained. `started` (monotonic) is when a time budget began.

    Raises UsageError, DataError, ModelError, DiskError, RunError, and Interrupted after a stop on request.
    Nothing is written before DATA has been found fit to train on.
    """
    begun = time.monotonic() if started is None else started
    listen = on_event or _silent
    return _resume(data, wish, begun, listen) if wish.resume else _start(data, wish, begun, listen)


def _start(data: Sequence[str], wish: Wish, begun: float, listen: Callable[[TrainEvent], None]) -> Trained:
    """A new run: look and decode, then make its folder, then train."""
    config = resolve(wish.flags, sets=wish.sets, file=wish.file)
    refuse_taken(wish.out)
    if config.tensorboard:
        require_tensorboard()
    device = _device(config)
    if config.time is None and config.epochs is None:
        config = config.model_copy(update={"time": CPU_BUDGET if device.type == "cpu" else GPU_BUDGET})
    session = Session(tuple(data), with_default_rate(config), device, begun, listen)
    photos = labelled.look(session.data, session.config)
    decoded = _decode(session, photos)
    run = create(wish.out, _run_name(data, config))
    with run.lock():
        run.write("run", {"data": list(labelled.absolute(data))})
        run.write("environment", environment.record(device, fast_math=config.fast_math))
        run.write_config(session.config.model_dump(mode="json"))
        split.write_split_csv(run.split, labelled.split_rows(photos))
        if decoded.bad:
            labelled.write_skipped(run.path / "skipped.csv", decoded.bad)
        return _train(session, run, photos, decoded, wish.plan)


def _resume(data: Sequence[str], wish: Wish, begun: float, listen: Callable[[TrainEvent], None]) -> Trained:
    """An existing run, with the settings, photos and threads it was started with; a finished one stays as it is."""
    if wish.out is None:
        raise usage.resume_without_run()
    run = open_run(wish.out)
    config = Config.model_validate(run.read_config())
    _refuse_changes(run, config, wish)
    kept = tuple(run.read("run")["data"])
    if data and labelled.absolute(data) != kept:
        raise usage.changed_settings(run.path, [("DATA", " ".join(kept), " ".join(data))])
    if run.finished:
        return read_trained(run)
    with run.lock():
        session = Session(kept, config, _recorded_device(run, config, listen), begun, listen)
        photos = labelled.look(kept, config)
        labelled.refuse_changed(run.split, photos)
        return _train(session, run, photos, _decode(session, photos), None)


def _train(
    session: Session, run: RunFolder, photos: LabelledPhotos, decoded: Decoded, given_plan: Path | None
) -> Trained:
    """Build, plan, fit, finish."""
    config, listen = session.config, session.listen
    network = build_network(config, len(photos.listing.classes), session.device)
    listen(Built(config, photos.listing, _counts(photos), network, run.path))
    plan = _plan(session, run, given_plan, network, decoded)
    listen(Planned(plan, config))
    outcome = _fit(session, run, photos, decoded, network, plan)
    return finish(run, config, photos, outcome, decoded.validation)


def _recorded_device(run: RunFolder, config: Config, listen: Callable[[TrainEvent], None]) -> torch.device:
    """The device of a resumed run, with its thread count; whatever else has changed is told."""
    recorded = run.read("environment")
    device = _device(config, recorded.get("threads"))
    changes = environment.differences(recorded, environment.record(device, fast_math=config.fast_math))
    if changes:
        listen(
            Notice(f"The environment has changed ({'; '.join(changes)}), so the result may differ in its last bits.")
        )
    return device


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


def _decode(session: Session, photos: LabelledPhotos) -> Decoded:
    """Decoded training and validation photos. Raises DataError that lists every unreadable one."""
    config = session.config
    largest = max(size for _, size in planning.training_sizes(config))
    wanted = {"train": labelled.training_preprocess(config, largest), "val": labelled.tested_preprocess(config)}
    decoded = {name: _decoded(session, photos, name, how) for name, how in wanted.items()}
    bad = tuple(entry for pixels in decoded.values() if pixels for entry in pixels.bad)
    if bad and not config.skip_bad:
        labelled.refuse_bad(session.data, len(photos.hashes), bad)
    if bad:
        session.listen(Notice(f"Training without {len(bad)} photos that cannot be read; skipped.csv names them."))
    training = decoded["train"]
    if training is None or len(np.unique(photos.labels(training.rows))) < len(photos.listing.classes):
        raise data_errors.no_training_photos(" ".join(session.data))
    return Decoded(training, decoded["val"], bad)


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


def _plan(session: Session, run: RunFolder, given: Path | None, network: Normalised, decoded: Decoded) -> Plan:
    """The plan of the run: its own when resumed, a given one, or a new one; written before the first step."""
    config = session.config
    if run.plan.exists():
        return planning.read_plan(run.plan)
    steps = _order(config).steps_per_epoch(len(decoded.training.rows))
    if given is not None:
        plan = planning.read_plan(given)
    elif config.epochs is not None:
        plan = planning.counted(config, steps, config.epochs)
    else:
        plan = _timed_plan(session, network, steps, decoded.validation)
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


def _fit(
    session: Session, run: RunFolder, photos: LabelledPhotos, decoded: Decoded, network: Normalised, plan: Plan
) -> Outcome:
    """Train the network to the end of the plan, from its newest checkpoint where there is one."""
    pacer = Pacer(run, plan, session.started)
    settings = _settings(session.config, plan)
    paths = Paths(run.path, f"plusx train --resume --out {shlex.quote(str(run))}")
    with (
        closing(_batches(session, photos, decoded.training, pacer)) as batches,
        Board(run.path, wanted=session.config.tensorboard) as board,
    ):
        if not checkpoint.found(run.checkpoints):  # else the checkpoint holds the filters
            whiten(network, batches)
        training = Training(State.fresh(network, settings), settings, paths, _listener(session, run, board))
        training.resume()
        share = partial(_size_share, training, pacer)
        return fit(training, batches, _validator(session, photos, decoded.validation, share), pacer.shorten)


def _size_share(training: Training, pacer: Pacer) -> float:
    """Size of the last finished step as a share of the largest."""
    return pacer.size_at(max(0, training.state.step - 1)) / max(size for _, size in pacer.plan.sizes)


def _validator(
    session: Session, photos: LabelledPhotos, validation: Pixels | None, share: Callable[[], float]
) -> Validate | None:
    if validation is None:
        return None
    chooses = split.halves([photos.hashes[i] for i in validation.rows], session.config.seed)
    return validator(validation, photos.labels(validation.rows), chooses, share)


def _settings(config: Config, plan: Plan) -> Settings:
    return Settings.of(
        config.model_dump(),
        total_steps=plan.total_steps,
        steps_per_epoch=plan.steps_per_epoch,
        shortened=plan.shortened,
        review_steps=tuple(planning.review_steps(plan)),
    )


def _listener(session: Session, run: RunFolder, board: Board) -> Listener:
    """Events go to whoever watches and to the board; weights that are due are saved on the way."""

    def listen(event: Event) -> None:
        save_weights(run.path, event)
        board.listen(event)
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
