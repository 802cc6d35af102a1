"""The steps of a run: from its plan, or its newest checkpoint, to its last weights."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

from plusx.config import Config
from plusx.data.cache import StreamingStore
from plusx.errors import DiskError
from plusx.launch import launched
from plusx.models import minimum_size
from plusx.models.normalise import Normalised
from plusx.recipes.plan import Plan
from plusx.run_folder import RunFolder
from plusx.training import checkpoint
from plusx.training.events import Event, Listener, Notice, silent
from plusx.training.loop import Outcome, Training, Validate, fit
from plusx.training.paths import Paths
from plusx.training.settings import Settings
from plusx.training.step import State
from plusx.verbs import labelled, start, together
from plusx.verbs.board import Board
from plusx.verbs.labelled import LabelledPhotos, Pixels
from plusx.verbs.network import network_arguments, whiten
from plusx.verbs.pace import Pacer
from plusx.verbs.session import Decoded, Session, batches_of
from plusx.verbs.testing import validator
from plusx.verbs.weights import save_weights

PATIENCE = 20  # validations


def fit_run(
    session: Session, run: RunFolder, photos: LabelledPhotos, decoded: Decoded, network: Normalised, plan: Plan
) -> Outcome:
    """Train the network to the end of the plan, from its newest checkpoint where there is one."""
    world = session.world
    world.allow(session.config.rank_seconds)
    pacer = Pacer(run, plan, session.started, session.config.frozen, world)
    settings = _settings(session.config, plan)
    paths = Paths(run.path, resume_command(session, run))
    board = Board(run.path, wanted=session.config.tensorboard and world.first)
    with closing(batches_of(session, photos, decoded.training, pacer.size_at)) as batches, closing(board):
        if world.tell(not checkpoint.found(run.checkpoints) and start.waits_for_whitening(run, network)):
            whiten(network, batches)  # later the checkpoint holds the filters
        state = State.fresh(network, settings, _what_is_trained(session.config, photos), world)
        training = Training(state, settings, paths, _listener(session, run, board, network))
        training.resume()
        if notice := world.once(lambda: together.resumed(world, run, training.state.step)):
            session.listen(Notice(notice))
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
    labels = photos.labels(validation.rows)
    if isinstance(validation.store, StreamingStore):
        validation.store.waiting = session.world.alone  # whoever waits for the network of DATA is not slow
    return validator(validation, labels, chooses, size, session.config.batch_size, session.world)


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
    """Events go to whoever watches and to the board; weights that are due are saved on the way.

    Of several processes the first does all that.
    """
    if not session.world.first:
        return silent
    watch = session.watch(network, run) if session.watch else silent

    def listen(event: Event) -> None:
        try:
            save_weights(run.path, event)
        except DiskError as error:
            session.listen(Notice(f"{error.message} The run goes on."))
        board.listen(event)
        watch(event)
        session.listen(event)

    return listen


def resume_command(session: Session, run: RunFolder) -> str:
    """The command line that goes on with a run, by as many processes as now."""
    launch = launched()
    here = f"--standalone --nproc-per-node {launch.size}" if launch.size == launch.local_size else "..."
    by = f"torchrun {here} -m " if launch.size > 1 else ""
    return session.command or f"{by}plusx train --resume --out {shlex.quote(str(run))}"
