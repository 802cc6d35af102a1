"""What an experiment is given: photos, networks untrained and trained, and a memory for what it has measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from plusx.config import Config
from plusx.durable import Log, make_folder, write_json
from plusx.engines.torch_engine import trained_network
from plusx.errors import lab as sentences
from plusx.lab.events import Learned, Listen, Stepped, Told
from plusx.lab.fleet import fleet_of, train_all
from plusx.lab.job import DIVERGED, Job, Setup
from plusx.lab.network import Network, digest, folder_name
from plusx.lab.photos import LabPhotos, Photos
from plusx.model_file import load
from plusx.models.normalise import Normalised
from plusx.run_folder import RunFolder
from plusx.training.events import Notice
from plusx.verbs.network import build_network, refuse_network
from plusx.verbs.session import prepared_device

NETWORKS = "networks"  # the folder beside those of the experiments, which share what is trained


@dataclass(frozen=True)
class Scope:
    """How large an experiment is: published size or smaller, how long networks are trained, under which seeds."""

    full: bool
    seeds: tuple[int, ...]
    steps: int
    processes: int | None = None


class Lab:
    """A laboratory for one experiment."""

    def __init__(self, name: str, out: Path, setup: Setup, scope: Scope, photos: LabPhotos, listen: Listen) -> None:
        self.setup, self.scope, self.listen = setup, scope, listen
        self.folder, self._networks = out / name, out / NETWORKS
        self._photos = photos
        self.device = prepared_device(setup.config)

    @property
    def config(self) -> Config:
        """The settings of its networks, unless they depart from them."""
        return self.setup.config

    @property
    def full(self) -> bool:
        """Whether it is of the published size."""
        return self.scope.full

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its networks."""
        return self.scope.seeds

    @property
    def steps(self) -> int:
        """Steps of a training, unless a network has its own."""
        return self.scope.steps

    @property
    def after(self) -> str:
        """How a sentence about its trainings begins."""
        return f"After {self.steps:,} steps" + ("" if self.full else ", at this size")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; labels are positions in them."""
        return self._photos.photos.listing.classes

    @property
    def counts(self) -> Mapping[str, int]:
        """Photos trained on and tested on."""
        decoded = self._photos.decoded
        return {"train": len(decoded.training.rows), "test": len(decoded.validation.rows) if decoded.validation else 0}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the chosen photos and their labels."""
        return self._photos.photos.fingerprint

    def photos(self, split: str, count: int | None = None) -> Photos:
        """`count` photos of "train" or "test", evenly over the classes, the same whenever asked; all for None."""
        return self._photos.some(split, count, self.device)

    def build(self, network: Network) -> Normalised:
        """The untrained network, a function of its seed, in training mode."""
        return build_network(network.config(self.config), len(self.classes), self.device)

    def load(self, network: Network) -> Normalised:
        """The trained network, ready to answer. Raises RunError where it diverged."""
        step = self.diverged(network)
        if step is not None:
            raise sentences.diverged(network.name, step)
        path = self.run(network).model
        trained = trained_network(load(path), path).to(self.device)
        return trained.to(memory_format=torch.channels_last).eval()

    def run(self, network: Network) -> RunFolder:
        """Where a network is trained."""
        timed = network.time is not None or network.epochs is not None
        steps = None if timed else network.steps or self.steps
        name = folder_name(network, network.config(self.config), steps, self.fingerprint)
        return RunFolder(self._networks / name)

    def history(self, network: Network) -> list[dict[str, Any]]:
        """What its training logged."""
        return list(Log(self.run(network).path / "history.jsonl").records())

    def diverged(self, network: Network) -> int | None:
        """The step at which its loss stopped being a number; None where it did not."""
        run = self.run(network)
        return int(run.read(DIVERGED)["step"]) if (run.path / f"{DIVERGED}.json").exists() else None

    def sound(self, networks: Sequence[Network]) -> tuple[int, ...]:
        """The seeds under which none of the networks diverged; all where there is no such seed."""
        lost = {network.seed for network in networks if self.diverged(network) is not None}
        return tuple(seed for seed in self.seeds if seed not in lost) or self.seeds

    def finished(self, network: Network) -> bool:
        """Whether there is nothing left to train."""
        return self.run(network).finished or self.diverged(network) is not None

    def missing(self, networks: Sequence[Network]) -> list[Network]:
        """Those still to be trained, in order, none twice."""
        return [network for network in dict.fromkeys(networks) if not self.finished(network)]

    def trained(self, networks: Sequence[Network]) -> None:
        """Train those that are not, side by side where they may be. A diverged one is a result, and no error.

        Raises UsageError before any is trained where one cannot be, RunError where one fails otherwise,
        KeyboardInterrupt after a stop, with checkpoints of all.
        """
        missing = self.missing(networks)
        for network in missing:
            refuse_network(network.config(self.config))
        together = [network for network in missing if not network.alone]
        progress = _Progress(len(missing), self.listen)
        for group, processes in ((together, self.scope.processes), *(([n], 1) for n in missing if n.alone)):
            if group:
                jobs = [Job(network, self.run(network).path, self.steps) for network in group]
                on_cpu = self.device.type == "cpu"
                fleet = fleet_of(processes, len(jobs), on_cpu, self._networks)
                train_all(self.setup, jobs, fleet, progress.heard)

    def remembered(self, key: str, measure: Callable[[], Any]) -> Any:
        """What `measure` gives, JSON values, measured once and kept: a stopped experiment goes on from here.

        With other settings, photos or steps it is measured anew.
        """
        of = digest(self.config, self.steps, self.fingerprint)
        path = self.folder / "measured" / of / f"{key}.json"
        if not path.exists():
            value = measure()
            make_folder(path.parent)
            write_json(path, value)
        return json.loads(path.read_bytes())

    def tell(self, text: str) -> None:
        """What is done now."""
        self.listen(Told(text))


class _Progress:
    """Turns what training processes say into events of the lab."""

    def __init__(self, total: int, listen: Listen) -> None:
        self._done, self._total, self._listen = 0, total, listen

    def heard(self, job: Job, event: Mapping[str, Any]) -> None:
        """One event of one network."""
        name = job.network.name
        match event["event"]:
            case "step":
                self._listen(Stepped(name, event["step"], event["total"], event["loss"]))
            case "notice":
                self._listen(Notice(f"{name}: {event['text']}"))
            case _:
                self._done += 1
                self._listen(Learned(name, self._done, self._total, event.get("step")))
