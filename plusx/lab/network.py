"""Networks by what makes them: model, seed, departures from the lab's settings, and how long they are trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from plusx.config import Config

_OF_THE_MACHINE = ("device", "workers")  # change nothing that is learned


@dataclass(frozen=True)
class Network:
    """One network to build or to train.

    `settings` are fields of Config that depart from the lab's own. It is trained for `steps`, for `epochs` or for
    `time` in seconds, at most one of them; the lab's number of steps where all are None. One with a time is trained
    alone, for it needs the machine for itself. `watched`: a probe writes signals.jsonl on the way,
    which costs less than 2 % of the time; so what one experiment has trained can tell its signals to another.
    """

    model: str
    seed: int = 0
    settings: tuple[tuple[str, Any], ...] = ()
    steps: int | None = None
    epochs: int | None = None
    time: float | None = None
    watched: bool = True

    @property
    def name(self) -> str:
        """What it is called, such as plain56-norm-none-seed-0; weights to start from are left out."""
        parts = [f"{key}-{value}" for key, value in self.settings if key != "weights"]
        lengths = {"steps": self.steps, "epochs": self.epochs, "seconds": self.time}
        parts += [f"{value:g}-{unit}" for unit, value in lengths.items() if value is not None]
        return "-".join([self.model, *map(_plain, parts), f"seed-{self.seed}"])

    @property
    def alone(self) -> bool:
        """Whether nothing else may be trained meanwhile."""
        return self.time is not None

    def config(self, base: Config) -> Config:
        """Its settings: those of the lab, its own over them."""
        own = dict(self.settings) | {"model": self.model, "seed": self.seed, "split_seed": base.splitting_seed}
        if self.epochs is not None or self.time is not None:
            own |= {"epochs": self.epochs, "time": self.time}
        return Config.model_validate(base.model_dump() | own)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Network:
        """From plain values."""
        settings = tuple((key, tuple(v) if isinstance(v, list) else v) for key, v in values["settings"])
        return cls(**{**values, "settings": settings})


def folder_name(network: Network, config: Config, steps: int | None, fingerprint: str) -> str:
    """Name of its run folder: equal names mean equal settings, photos and number of steps."""
    return f"{network.name}-{digest(config, steps, network.watched, fingerprint)}"


def digest(config: Config, *facts: Any) -> str:
    """Eight digits that differ with the settings, as far as they change what is learned, and with the `facts`."""
    dumped = config.model_dump(mode="json", exclude_defaults=True)  # a setting that is new changes no digit
    told = {key: value for key, value in dumped.items() if key not in _OF_THE_MACHINE}
    return hashlib.sha256(json.dumps([told, *facts], sort_keys=True).encode()).hexdigest()[:8]


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in text)
