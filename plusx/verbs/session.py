"""What the steps of `train` share: the settings, the device, the decoded photos, and the batches they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from plusx.config import Config
from plusx.data.augment import Augment
from plusx.data.listing import Names
from plusx.data.loader import Batches, Order, Part, Samples
from plusx.images.decode import BadPhoto
from plusx.run_folder import RunFolder
from plusx.training import environment
from plusx.training.events import Listener
from plusx.training.world import ALONE, World
from plusx.verbs import windowed
from plusx.verbs.labelled import LabelledPhotos, Pixels
from plusx.verbs.reports import TrainEvent


@dataclass(frozen=True)
class Session:
    """What is trained, how, on what, since when, and who watches.

    `command` continues it after a stop; `train --resume` where None is named. `bare`: only the answers to validation
    are wanted, as the network gives them: nothing is fitted on them, and there are no pages. `watch` is called with
    network and run before the first step, of a resumed run too; what it returns hears every event of the training,
    a `StepDone` while the gradients of that step are still there. `world`: the processes that train together.
    """

    data: tuple[str, ...]
    config: Config
    device: torch.device
    started: float
    listen: Callable[[TrainEvent], None]
    command: str | None = None
    bare: bool = False
    watch: Callable[[nn.Module, RunFolder], Listener] | None = None
    world: World = ALONE


@dataclass(frozen=True)
class Decoded:
    """The pixels of a run, and the photos left out since they cannot be read, those of the test included."""

    training: Pixels
    validation: Pixels | None
    bad: tuple[tuple[str, BadPhoto], ...]

    def close(self) -> None:
        """Let go of the cache."""
        for pixels in (self.training, self.validation):
            if pixels is not None:
                pixels.store.close()


def prepared_device(config: Config, threads: int | None = None) -> torch.device:
    """The device of the settings, this process made ready for it. Raises UsageError where it cannot be."""
    device = environment.own_device(environment.choose_device(config.device))
    environment.prepare(device, threads, fast_math=config.fast_math)
    environment.require_precision(device, config.precision)
    return device


def batches_of(session: Session, photos: LabelledPhotos, pixels: Pixels, size_at: Callable[[int], int]) -> Batches:
    """The training batches of a run at the sizes that `size_at` gives."""
    names = Names(photos.listing.photos, pixels.rows)
    samples = Samples(photos.labels(pixels.rows), pixels.store_rows, names, len(photos.listing.classes))
    augment = Augment.of(session.config.model_dump())
    chosen = photos.photos(pixels.rows)
    order = replace(order_of(session.config), window=windowed.window_of(session.config, chosen))
    part = Part(session.device, session.world.rank, session.world.size)
    batches = Batches(pixels.store, samples, order, augment, size_at, part)
    supply = windowed.supply_of(session.config, pixels, chosen, batches.steps_per_epoch)
    return batches.supplied_by(supply, session.world.alone)  # whoever waits for the network of DATA is not slow


def order_of(config: Config) -> Order:
    """The order in which samples are seen."""
    return Order(config.seed, config.batch_size, config.drop_last, config.sampling, config.merge_lone)
