"""`train`: from DATA to a run folder with a trained model. Composition only: every step lives in a room below."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import torch

from plusx.config import Config
from plusx.data import decisions, split
from plusx.data.source import Photo
from plusx.errors import DataError, DiskError, disk, usage
from plusx.errors import data as data_errors
from plusx.errors import remote as remote_errors
from plusx.errors.training import interrupted_run
from plusx.errors.use import accepted_too_late
from plusx.model_file import short_hash
from plusx.models import minimum_size
from plusx.models.normalise import Normalised
from plusx.recipes import plan as planning
from plusx.recipes.plan import Plan
from plusx.run_folder import RunFolder, create, open_run, refuse_taken
from plusx.training import checkpoint, environment
from plusx.training.events import Event, Listener, Notice
from plusx.training.interrupt import leaving
from plusx.training.loop import Outcome, Paths, Training, Validate, fit
from plusx.training.settings import Settings
from plusx.training.step import State
from plusx.verbs import accepted, again, decoding, labelled, room, start
from plusx.verbs.board import Board
from plusx.verbs.finish import Trained, finish, read_trained
from plusx.verbs.labelled import LabelledPhotos, Pixels
from plusx.verbs.maps import Maps
from plusx.verbs.network import build_network, network_arguments, refuse_network, whiten
from plusx.verbs.pace import Pacer
from plusx.verbs.planned import make_plan
from plusx.verbs.recorded import config_of
from plusx.verbs.reporting import write_pages
from plusx.verbs.reports import Built, Planned, Started, TrainEvent
from plusx.verbs.session import Decoded, Session, batches_of, prepared_device
from plusx.verbs.settle import at_scale, budgeted, wished
from plusx.verbs.start import Weights
from plusx.verbs.testing import validator
from plusx.verbs.weights import save_weights
from plusx.verbs.wish import Wish

PATIENCE = 20  # validations


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
    if wish.accept_changes and not wish.resume:
        raise usage.accept_without_resume()
    begun = time.monotonic() if started is None else started
    listen = on_event or _silent
    return _resume(data, wish, begun, listen) if wish.resume else _start(data, wish, begun, listen)


def _start(data: Sequence[str], wish: Wish, begun: float, listen: Callable[[TrainEvent], None]) -> Trained:
    """A new run: everything that can be refused is, then its folder is made, then it is trained."""
    config = wished(wish)
    refuse_taken(wish.out)
    weights = start.find(config.weights) if config.weights else None
    config = wished(wish, weights.settings) if weights else config
    device = prepared_device(config)
    refuse_network(config)
    config = budgeted(config, device)
    photos = labelled.look(data, config, wish.decisions)
    _tell(photos, listen)
    config = at_scale(config, wish, device, len(photos.rows("train")), begun)
    room.require_early(wish.out, config, photos)
    session = Session(tuple(data), config, device, begun, listen)
    budget = None if wish.plan else config.time
    pixels = decoding.decode(session, photos, wish.command(data, "--skip-bad"), budget)
    with closing(pixels.store):
        photos = decoding.kept_together(session, photos, pixels)
        with closing(decoding.parted(session, photos, pixels, budget)) as decoded:
            return train_split(session, photos, decoded, wish, weights)


def train_split(
    session: Session,
    photos: LabelledPhotos,
    decoded: Decoded,
    wish: Wish,
    weights: Weights | None = None,
    plan: Plan | None = None,
) -> Trained:
    """A new run on photos that are split and decoded, by `plan`: of `wish`, its folder, and its plan where it is None.

    Raises UsageError, ModelError, DiskError, RunError, and Interrupted after a stop on request.
    """
    network = build_network(session.config, len(photos.listing.classes), session.device)
    report = _load(network, weights, session, photos)
    plan = plan or make_plan(session, wish.plan, network, photos, decoded)
    room.require(wish.out, network, session.config, plan, photos)
    run = create(wish.out, run_name(session.data, session.config))
    with run.lock():
        if weights and report:
            start.record(run, weights, report)
        _write_start(run, session, photos, decoded, plan)
        return _train(session, run, photos, decoded, network, plan)


def _resume(data: Sequence[str], wish: Wish, begun: float, listen: Callable[[TrainEvent], None]) -> Trained:
    """An existing run, with the settings, photos and threads it was started with; a finished one stays as it is."""
    if wish.out is None:
        raise usage.resume_without_run()
    run = open_run(wish.out)
    config = again.settings(run, wish)
    kept = tuple(run.read("run")["data"])
    if data and labelled.absolute(data) != kept:
        raise usage.changed_settings(run.path, [("DATA", " ".join(kept), " ".join(data))])
    if run.finished:
        if wish.accept_changes:
            listen(Notice(accepted_too_late(run.path)))
        trained = read_trained(run)
        _write_missing_pages(run, config, listen)
        return trained
    with run.lock():
        session = Session(kept, config, recorded_device(run, config, listen), begun, listen)
        photos, changes = again.look(kept, run, accepting=wish.accept_changes)
        anew = Wish(file=run.path / "config.yaml").command(kept, "--skip-bad")
        pixels = decoding.decode(session, photos, anew, None)
        with closing(pixels.store):
            photos = accepted.accept(session, run, photos, pixels, changes) if changes else photos
            with closing(decoding.parted_again(session, photos, pixels, run)) as decoded:
                return resume_split(session, run, photos, decoded)


def resume_split(session: Session, run: RunFolder, photos: LabelledPhotos, decoded: Decoded) -> Trained:
    """Go on with a run, whose lock is held, on the photos it was started with."""
    network = build_network(session.config, len(photos.listing.classes), session.device)
    room.require_to_resume(run.path, network, session.config, photos)
    if not checkpoint.found(run.checkpoints):
        _load(network, start.find_again(run), session, photos)
    return _train(session, run, photos, decoded, network, planning.read_plan(run.plan))


def _load(
    network: Normalised, weights: Weights | None, session: Session, photos: LabelledPhotos
) -> start.Report | None:
    """Lay the weights, if any, into the network, and tell what became of them."""
    if weights is None:
        return None
    report = start.load(network, weights, photos.listing.classes, session.config.model)
    session.listen(Started(report.line()))
    validated = {short_hash(photos.hashes[row]) for row in photos.rows("val")}
    known = len(validated.intersection(weights.seen))
    if known and not session.bare:  # whose validation chooses nothing
        session.listen(
            Notice(
                f"The weights were trained or chosen on {known:,} of the {len(validated):,} validation photos, "
                "which flatters validation; `plusx evaluate` leaves such photos out of the test."
            )
        )
    return report


def _tell(photos: LabelledPhotos, listen: Callable[[TrainEvent], None]) -> None:
    """Say what was decided, which links lead out of DATA, and where one photo lies in two classes.

    Which one is right, only people know.
    """
    if photos.decided.rows:
        listen(Notice(photos.decided.sentence()))
    if photos.listing.outside:
        listen(Notice(data_errors.links_outside(photos.listing.outside)))
    first: dict[str, int | None] = {}
    labelled_photos = zip(photos.listing.photos, photos.hashes, strict=True)
    twice = {sha256 for photo, sha256 in labelled_photos if first.setdefault(sha256, photo.label) != photo.label}
    if twice:
        said = f"Photos that lie in more than one class: {len(twice):,}. `plusx check` names them; keep one of each."
        listen(Notice(said))


def _write_start(run: RunFolder, session: Session, photos: LabelledPhotos, decoded: Decoded, plan: Plan) -> None:
    """What a run knows before its first step; the settings come last, for a folder with settings is a run."""
    run.write("run", {"data": list(labelled.absolute(session.data))})
    run.write("environment", environment.record(session.device, fast_math=session.config.fast_math))
    run.write("plan", plan.to_json())
    split.write_split_csv(run.split, labelled.split_rows(photos))
    if decoded.bad:
        labelled.write_skipped(run.path / "skipped.csv", decoded.bad)
    if photos.decided.effective:
        decisions.write(run.decisions, photos.decided.effective)
    run.write_config(session.config.model_dump(mode="json"))


def _train(
    session: Session, run: RunFolder, photos: LabelledPhotos, decoded: Decoded, network: Normalised, plan: Plan
) -> Trained:
    """Fit, then finish. A signal leaves a run that can be continued, whenever it comes."""
    session.listen(Built(session.config, photos.listing, _counts(photos, decoded), network, run.path))
    session.listen(Planned(plan, session.config))
    with leaving(lambda: interrupted_run(run.path, _resume_command(session, run))), _resumable(session, run):
        outcome = _fit(session, run, photos, decoded, network, plan)
        trained = finish(run, config_of(run), photos, outcome, decoded, bare=session.bare)
    if not session.bare:
        _write_pages(run, photos.photos(photos.rows("val")), session.device.type, session.listen)
    return trained


@contextmanager
def _resumable(session: Session, run: RunFolder) -> Iterator[None]:
    """What a disk or a network refuses for good ends a run with the command that goes on with it."""
    try:
        yield
    except DataError as error:
        if error.code != remote_errors.NETWORK:
            raise
        raise remote_errors.resumable(error, _resume_command(session, run)) from error
    except DiskError as error:
        if error.code == disk.GONE:
            raise
        raise disk.resumable(error, _resume_command(session, run)) from error


def _write_missing_pages(run: RunFolder, config: Config, listen: Callable[[TrainEvent], None]) -> None:
    """The pages of a finished run that was stopped before it had them; photos that are gone are only named."""
    if run.report.exists() and run.card.exists():
        return
    try:
        found = labelled.split_photos(run.read("run")["data"], run)
        photos = [photo for photo, where in zip(found.listing.photos, found.splits, strict=True) if where]
    except DataError:
        photos = []
    _write_pages(run, photos, config.device, listen)


def _write_pages(run: RunFolder, photos: Sequence[Photo], device: str, listen: Callable[[TrainEvent], None]) -> None:
    """The report and the model card; what goes wrong with them is told and costs nothing."""
    fault = write_pages(run, photos, Maps(run.model, device))
    if fault:
        listen(Notice(fault))


def _resume_command(session: Session, run: RunFolder) -> str:
    return session.command or f"plusx train --resume --out {shlex.quote(str(run))}"


def recorded_device(run: RunFolder, config: Config, listen: Callable[[TrainEvent], None]) -> torch.device:
    """The device of a resumed run, with its thread count; whatever else has changed is told."""
    recorded = run.read("environment")
    device = prepared_device(config, recorded.get("threads"))
    changes = environment.differences(recorded, environment.record(device, fast_math=config.fast_math))
    if changes:
        listen(
            Notice(f"The environment has changed ({'; '.join(changes)}), so the result may differ in its last bits.")
        )
    return device


def _fit(
    session: Session, run: RunFolder, photos: LabelledPhotos, decoded: Decoded, network: Normalised, plan: Plan
) -> Outcome:
    """Train the network to the end of the plan, from its newest checkpoint where there is one."""
    pacer = Pacer(run, plan, session.started, session.config.frozen)
    settings = _settings(session.config, plan)
    paths = Paths(run.path, _resume_command(session, run))
    board = Board(run.path, wanted=session.config.tensorboard)
    with closing(batches_of(session, photos, decoded.training, pacer.size_at)) as batches, closing(board):
        if not checkpoint.found(run.checkpoints) and start.waits_for_whitening(run, network):
            whiten(network, batches)  # later the checkpoint holds the filters
        state = State.fresh(network, settings, _what_is_trained(session.config, photos))
        training = Training(state, settings, paths, _listener(session, run, board, network))
        training.resume()
        board.open(training.state.step)
        size = partial(_size_so_far, training, pacer, session.config)
        return fit(training, batches, _validator(session, photos, decoded.validation, size), pacer.revise)


def _what_is_trained(config: Config, photos: LabelledPhotos) -> dict[str, Any]:
    """What a checkpoint has to be of: the classes, the network as a model file tells it, and who keeps tensors."""
    network = {"network" if name == "name" else name: value for name, value in network_arguments(config).items()}
    return {"classes": list(photos.listing.classes), "optimizer": config.optimizer, "average": config.average} | network


def _size_so_far(training: Training, pacer: Pacer, config: Config) -> int:
    """What is to the final size of testing as the size of the last finished step is to the largest."""
    final, so_far = labelled.tested_size(config), pacer.size_at(max(0, training.state.step - 1))
    return max(minimum_size(config.model), round(final * so_far / max(size for _, size in pacer.plan.sizes)))


def _validator(
    session: Session, photos: LabelledPhotos, validation: Pixels | None, size: Callable[[], int]
) -> Validate | None:
    if validation is None:
        return None
    chooses = photos.chooses(validation.rows, session.config.splitting_seed)
    return validator(validation, photos.labels(validation.rows), chooses, size, session.config.batch_size)


def _settings(config: Config, plan: Plan) -> Settings:
    return Settings.of(
        config.model_dump() | {"patience": _patience(config, plan), "validate_every": _validate_every(config, plan)},
        total_steps=plan.total_steps,
        steps_per_epoch=plan.steps_per_epoch,
        revisions=plan.revisions,
    )


def _patience(config: Config, plan: Plan) -> int | None:
    """What was asked for; left to us, half of a long run: validation stands still while the learning rate is high."""
    if config.patience != "auto":
        return config.patience
    return max(PATIENCE, plan.total_steps // plan.steps_per_epoch // _validate_every(config, plan) // 2)


def _validate_every(config: Config, plan: Plan) -> int:
    """Epochs from one validation to the next."""
    return config.validate_every * plan.validate_every


def _listener(session: Session, run: RunFolder, board: Board, network: Normalised) -> Listener:
    """Events go to whoever watches and to the board; weights that are due are saved on the way."""
    watch = session.watch(network, run) if session.watch else _silent

    def listen(event: Event) -> None:
        try:
            save_weights(run.path, event)
        except DiskError as error:
            session.listen(Notice(f"{error.message} The run goes on."))
        board.listen(event)
        watch(event)
        session.listen(event)

    return listen


def _counts(photos: LabelledPhotos, decoded: Decoded) -> dict[str, int]:
    """Photos of each split that can be read."""
    bad = {name for name, _ in decoded.bad}
    good = [where for photo, where in zip(photos.listing.photos, photos.splits, strict=True) if photo.name not in bad]
    return {name: good.count(name) for name in split.NAMES}


def run_name(data: Sequence[str], config: Config) -> str:
    """What a run folder is called: `<data>-<recipe>`, as far as DATA has a name."""
    return f"{labelled.name_of(data) or 'run'}-{config.recipe}"


def _silent(event: TrainEvent) -> None:
    """Nobody watches."""
