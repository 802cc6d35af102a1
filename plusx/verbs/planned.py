"""The plan of a new run: a given one, so many epochs, or as many steps as the time budget holds."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from plusx.data.loader import Batches
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
        return planning.repeated(given, config, steps)
    if config.epochs is not None:
        return replace(planning.counted(config, steps, config.epochs), scale=config.scale)
    sizes = [size for _, size in planning.training_sizes(config)]
    with closing(batches_of(session, photos, decoded.training, lambda step: sizes[step % len(sizes)])) as batches:
        return replace(_timed(session, network, steps, batches, decoded), scale=config.scale)


def _timed(session: Session, network: Normalised, steps: int, batches: Batches, decoded: Decoded) -> Plan:
    """Divide what is left of the budget by the measured time of a step."""
    config = session.config
    cost = seconds_per_step(network, config, batches)
    tested = seconds_per_photo_tested(network, tested_size(config), session.device)
    photos = len(decoded.validation.rows) if decoded.validation else 0
    ending = photos * len(config.views) * tested + (0 if session.bare else min(SECONDS, MAPS * tested))
    left = session.started + (config.time or 0.0) - time.monotonic() - RESERVE - ending
    plan = planning.timed(config, steps, cost, left, overhead=photos / 2 * tested)
    if session.bare:
        return replace(plan, ending=ending)
    more = looks(len(decoded.training.rows), plan.total_steps, config) * tested
    plan = planning.timed(config, steps, cost, left - more, overhead=photos / 2 * tested)
    return replace(plan, ending=ending + more)
