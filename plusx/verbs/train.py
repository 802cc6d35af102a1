"""`train`: from DATA to a run folder with a trained model. Composition only: every step lives in a room below."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from plusx.config import Config
from plusx.data import decisions, split
from plusx.data.listing import Digests, Photo, called
from plusx.errors import DataError, DiskError, disk, usage
from plusx.errors import data as data_errors
from plusx.errors import remote as remote_errors
from plusx.errors.training import interrupted_run
from plusx.errors.use import accepted_too_late
from plusx.model_file import short_hash
from plusx.models.normalise import Normalised
from plusx.recipes import plan as planning
from plusx.recipes.plan import Plan
from plusx.run_folder import RunFolder, create, open_run
from plusx.training import checkpoint, environment
from plusx.training.events import Notice, silent
from plusx.training.interrupt import leaving
from plusx.training.world import World, joined
from plusx.verbs import accepted, again, decoding, labelled, room, start, together
from plusx.verbs.finish import Trained, finish, read_trained
from plusx.verbs.fitting import fit_run, resume_command
from plusx.verbs.labelled import LabelledPhotos
from plusx.verbs.maps import Maps
from plusx.verbs.network import build_network, refuse_network
from plusx.verbs.planned import make_plan
from plusx.verbs.recorded import config_of
from plusx.verbs.reporting import write_pages
from plusx.verbs.reports import Built, Planned, Started, TrainEvent
from plusx.verbs.session import Decoded, Session, prepared_device
from plusx.verbs.settle import at_scale, budgeted, wished
from plusx.verbs.start import Weights
from plusx.verbs.wish import Wish


def train(
    data: Sequence[str],
    wish: Wish,
    *,
    on_event: Callable[[TrainEvent], None] | None = None,
    started: float | None = None,
) -> Trained:
    """Train on DATA as `wish` asks; returns what was trained. `started` (monotonic) is when a time budget began.

    Raises UsageError, DataError, ModelError, DiskError, RunError, and Interrupted after a stop on request.
    Nothing is written before DATA has been found fit to train on. Started by torchrun, several processes train
    together; the first writes, speaks and has the figures, and the others are quiet.
    """
    if wish.accept_changes and not wish.resume:
        raise usage.accept_without_resume()
    begun = time.monotonic() if started is None else started
    together.require_out(wish)
    with joined() as world:
        wish = together.wished(wish, world)
        how = How(begun, world, on_event if on_event and world.first else silent)
        return _resume(data, wish, how) if wish.resume else _start(data, wish, how)


@dataclass(frozen=True)
class How:
    """Since when, by which processes and watched by whom a run is trained."""

    begun: float
    world: World
    listen: Callable[[TrainEvent], None]


def _start(data: Sequence[str], wish: Wish, how: How) -> Trained:
    """A new run: everything that can be refused is, then its folder is made, then it is trained."""
    world = how.world
    config, device, weights = world.alike(lambda: _settled(wish, world))
    photos = world.alike(lambda: labelled.look(data, config, wish.decisions))
    _tell(photos, how.listen)
    config = at_scale(config, wish, device, len(photos.rows("train")), how.begun, world)
    together.refuse_other_settings(world, config.model_dump(mode="json"))
    world.once(lambda: room.require_early(wish.out, config, photos))
    session = Session(tuple(data), config, device, how.begun, how.listen, world=world)
    budget = None if wish.plan else config.time
    pixels = decoding.decode(session, photos, wish.command(data, "--skip-bad"), budget)
    with closing(pixels.store):
        photos = decoding.kept_together(session, photos, pixels)
        with closing(decoding.parted(session, photos, pixels, budget)) as decoded:
            return train_split(session, photos, decoded, wish, weights)


def _settled(wish: Wish, world: World) -> tuple[Config, torch.device, Weights | None]:
    """The settings, the device and the weights of a new run. Raises for everything that needs no photo to be seen."""
    config = wished(wish)
    if world.first:
        together.refuse_folder(wish.out, world)
    weights = start.find(config.weights) if config.weights else None
    config = wished(wish, weights.settings) if weights else config
    device = prepared_device(config)
    refuse_network(config)
    return budgeted(config, device), device, weights


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
    world = session.world
    _refuse_other_photos(session, photos, decoded)
    network = build_network(session.config, len(photos.listing.classes), session.device)
    report = world.alike(lambda: _load(network, weights, session, photos))
    plan = made = plan or make_plan(session, wish.plan, network, photos, decoded)
    world.once(lambda: room.require(wish.out, network, session.config, made, photos))
    run = RunFolder(Path(world.once(lambda: str(_create(wish, session)))))
    with together.held(run, world):
        if weights and report:
            world.once(lambda: start.record(run, weights, report))
        world.once(lambda: _write_start(run, session, photos, decoded, made))
        return _train(session, run, photos, decoded, network, plan)


def _create(wish: Wish, session: Session) -> RunFolder:
    together.refuse_folder(wish.out, session.world)
    if wish.out is not None and wish.out.exists():
        return RunFolder(wish.out)
    return create(wish.out, run_name(session.data, session.config))


def _refuse_other_photos(session: Session, photos: LabelledPhotos, decoded: Decoded) -> None:
    """Raise DataError where the processes would train or choose on different photos."""
    pixels = [decoded.training, *([decoded.validation] if decoded.validation else [])]
    rows = np.concatenate([each.rows for each in pixels]).tolist()
    together.refuse_other_photos(session.world, [f"{photos.hashes[row]} {photos.splits[row]}" for row in rows])


def _resume(data: Sequence[str], wish: Wish, how: How) -> Trained:
    """An existing run, with the settings, photos and threads it was started with; a finished one stays as it is."""
    if wish.out is None:
        raise usage.resume_without_run()
    run, world, listen = RunFolder(wish.out), how.world, how.listen
    config, kept = world.alike(lambda: _kept(run, wish, data))
    if world.once(lambda: run.finished):
        return _finished(run, config, wish, how)
    with together.held(run, world):
        device = world.alike(lambda: recorded_device(run, config, listen))
        session = Session(kept, config, device, how.begun, listen, world=world)
        photos, changes = world.alike(lambda: again.look(kept, run, accepting=wish.accept_changes))
        anew = Wish(file=run.path / "config.yaml").command(kept, "--skip-bad")
        pixels = decoding.decode(session, photos, anew, None)
        with closing(pixels.store):
            photos = accepted.accept(session, run, photos, pixels, changes) if changes else photos
            with closing(decoding.parted_again(session, photos, pixels, run)) as decoded:
                return resume_split(session, run, photos, decoded)


def _kept(run: RunFolder, wish: Wish, data: Sequence[str]) -> tuple[Config, tuple[str, ...]]:
    """The settings and DATA of an existing run. Raises UsageError where others are wished."""
    config = again.settings(open_run(run.path), wish)
    kept = tuple(run.read("run")["data"])
    if data and labelled.absolute(data) != kept:
        raise usage.changed_settings(run.path, [("DATA", " ".join(kept), " ".join(data))])
    return config, kept


def _finished(run: RunFolder, config: Config, wish: Wish, how: How) -> Trained:
    """A run that has its model gets the pages it lacks."""
    how.world.end()
    if not how.world.first:
        return Trained(run.path, run.model, {})
    if wish.accept_changes:
        how.listen(Notice(accepted_too_late(run.path)))
    trained = read_trained(run)
    _write_missing_pages(run, config, how.listen)
    return trained


def resume_split(session: Session, run: RunFolder, photos: LabelledPhotos, decoded: Decoded) -> Trained:
    """Go on with a run, whose lock is held, on the photos it was started with."""
    world = session.world
    _refuse_other_photos(session, photos, decoded)
    network = build_network(session.config, len(photos.listing.classes), session.device)
    world.once(lambda: room.require_to_resume(run.path, network, session.config, photos))
    if world.tell(not checkpoint.found(run.checkpoints)):
        world.alike(lambda: _load(network, start.find_again(run), session, photos))
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
    labels = photos.labels(photos.every)
    several: dict[str, set[int]] = {}
    for row in Digests.of(photos.hashes).repeated().tolist():
        several.setdefault(photos.hashes[row], set()).add(int(labels[row]))
    twice = sum(len(found) > 1 for found in several.values())
    if twice:
        said = f"Photos that lie in more than one class: {twice:,}. `plusx check` names them; keep one of each."
        listen(Notice(said))


def _write_start(run: RunFolder, session: Session, photos: LabelledPhotos, decoded: Decoded, plan: Plan) -> None:
    """What a run knows before its first step; the settings come last, for a folder with settings is a run."""
    run.write("run", {"data": list(labelled.absolute(session.data))} | together.job(session.world))
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
    together.refuse_other_settings(session.world, {"plan": plan.to_json()} | session.config.model_dump(mode="json"))
    session.listen(Built(session.config, photos.listing, _counts(photos, decoded), network, run.path))
    session.listen(Planned(plan, session.config))
    with leaving(lambda: interrupted_run(run.path, resume_command(session, run))), _resumable(session, run):
        outcome = fit_run(session, run, photos, decoded, network, plan)
        session.world.end()
        if not session.world.first:
            return Trained(run.path, run.model, {})
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
        raise remote_errors.resumable(error, resume_command(session, run)) from error
    except DiskError as error:
        if error.code == disk.GONE:
            raise
        raise disk.resumable(error, resume_command(session, run)) from error


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


def _counts(photos: LabelledPhotos, decoded: Decoded) -> dict[str, int]:
    """Photos of each split that can be read."""
    good = ~called(photos.listing.photos, {name for name, _ in decoded.bad})
    return {name: int(good[photos.rows(name)].sum()) for name in split.NAMES}


def run_name(data: Sequence[str], config: Config) -> str:
    """What a run folder is called: `<data>-<recipe>`, as far as DATA has a name."""
    return f"{labelled.name_of(data) or 'run'}-{config.recipe}"
