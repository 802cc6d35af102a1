"""What is asked of a training process, and how it is done: one network, begun or gone on with, in its run folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from plusx.config import Config
from plusx.lab.network import Network
from plusx.lab.photos import Amount, LabPhotos
from plusx.lab.probe import watch
from plusx.recipes.plan import Plan, training_sizes
from plusx.run_folder import RunFolder
from plusx.training import environment
from plusx.verbs import labelled, start
from plusx.verbs.network import with_default_rate
from plusx.verbs.recorded import config_of
from plusx.verbs.reports import TrainEvent
from plusx.verbs.session import Session, order_of, prepared_device
from plusx.verbs.train import recorded_device, resume_split, train_split
from plusx.verbs.wish import Wish

DIVERGED = "diverged"  # .json in the folder of a run whose loss or weights are no longer finite


@dataclass(frozen=True)
class Setup:
    """What all trainings of a lab share. `command` is what goes on with it after a stop."""

    data: tuple[str, ...]
    config: Config
    amount: Amount
    command: str

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "data": self.data,
            "config": self.config.model_dump(mode="json"),
            "amount": vars(self.amount),
            "command": self.command,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Setup:
        """From plain values."""
        config = Config.model_validate(values["config"])
        return cls(tuple(values["data"]), config, Amount(**values["amount"]), values["command"])


@dataclass(frozen=True)
class Job:
    """One network and where its run lies; `steps` is its length unless it has one of its own."""

    network: Network
    folder: Path
    steps: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"network": self.network.to_json(), "folder": str(self.folder), "steps": self.steps}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """From plain values."""
        return cls(Network.from_json(values["network"]), Path(values["folder"]), values["steps"])


def train_network(setup: Setup, job: Job, photos: LabPhotos, listen: Callable[[TrainEvent], None]) -> None:
    """Train to the end, from its last checkpoint where there is one. Raises what `train` raises."""
    config = settled(job.network.config(setup.config))
    session = Session(setup.data, config, torch.device("cpu"), time.monotonic(), listen, setup.command, bare=True)
    session = replace(session, watch=watch if job.network.watched else None)
    run = RunFolder(job.folder)
    if (run.path / "config.yaml").exists():
        _go_on(session, run, photos)
    else:
        shutil.rmtree(run.path, ignore_errors=True)  # stopped before it was a run
        _begin(replace(session, device=prepared_device(config)), job, photos)


def settled(config: Config) -> Config:
    """The settings with what is left to model and machine filled in: the rate, and the precision."""
    config = with_default_rate(config)
    device = environment.choose_device(config.device)
    return config.model_copy(update={"precision": environment.choose_precision(device, config.precision)})


def _begin(session: Session, job: Job, photos: LabPhotos) -> None:
    config = session.config
    weights = start.find(config.weights) if config.weights else None
    photographs, decoded = photos.photos, photos.decoded
    per_epoch = order_of(config).steps_per_epoch(len(decoded.training.rows))
    plan = None
    if config.time is None and job.network.epochs is None:
        plan = Plan(job.network.steps or job.steps, per_epoch, training_sizes(config))
    train_split(session, photographs, decoded, Wish(out=job.folder), weights, plan)


def _go_on(session: Session, run: RunFolder, photos: LabPhotos) -> None:
    with run.lock():
        config = config_of(run)
        device = recorded_device(run, config, session.listen)
        recorded = labelled.as_recorded(photos.photos, run)
        resume_split(replace(session, config=config, device=device), run, recorded, photos.decoded)
