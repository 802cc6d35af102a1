"""The plan of a new run: a given one, so many epochs, or as many steps as the time budget holds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from plusx.models.normalise import Normalised
from plusx.recipes import plan as planning
from plusx.recipes.plan import Plan
from plusx.verbs.finish import looks
from plusx.verbs.labelled import LabelledPhotos, tested_size
from plusx.verbs.maps import MAPS, SECONDS
from plusx.verbs.pace import RESERVE, seconds_per_photo_tested, seconds_per_step
from plusx.verbs.session import Decoded, Session, batches_of, order_of


def make_plan(
    session: Session, given: Path | None, network: Normalised, photos: LabelledPhotos, decoded: Decoded
) -> Plan:
    """The plan in the file `given`, one of so many epochs, or the longest that the time budget holds."""
    config = session.config
    steps = order_of(config).steps_per_epoch(len(decoded.training.rows))
    if given is not None:
        return session.world.alike(lambda: planning.repeated(given, config, steps))
    if config.epochs is not None:
        return replace(planning.counted(config, steps, config.epochs), scale=config.scale)
    sizes = [size for _, size in planning.training_sizes(config)]
    with closing(batches_of(session, photos, decoded.training, lambda step: sizes[step % len(sizes)])) as batches:
        cost = seconds_per_step(network, config, batches, session.world)
    # the clock of the first process counts, and what it has left
    made = session.world.once(lambda: _timed(session, network, steps, cost, decoded).to_json())
    return replace(Plan.from_json(made), scale=config.scale)


def _timed(session: Session, network: Normalised, steps: int, cost: Mapping[int, float], decoded: Decoded) -> Plan:
    """Divide what is left of the budget by the measured time of a step, `cost` at each size."""
    config = session.config
    tested = seconds_per_photo_tested(network, tested_size(config), session.device)
    photos = len(decoded.validation.rows) if decoded.validation else 0
    ending = photos * len(config.views) * tested + (0 if session.bare else min(SECONDS, MAPS * tested))
    left = session.started + (config.time or 0.0) - time.monotonic() - RESERVE - ending
    between = photos / 2 * tested / session.world.size  # of one validation between epochs, which all share
    plan = planning.timed(config, steps, cost, left, overhead=between)
    if session.bare:
        return replace(plan, ending=ending)
    more = looks(len(decoded.training.rows), plan.total_steps, config) * tested
    plan = planning.timed(config, steps, cost, left - more, overhead=between)
    return replace(plan, ending=ending + more)
