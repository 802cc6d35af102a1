"""`plusx lab NAME`: an experiment from its photos to its pages."""

from __future__ import annotations

import csv
import importlib
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plusx.data.drawn import write_set
from plusx.durable import make_folder, write_file, write_json
from plusx.errors import lab as sentences
from plusx.lab import catalogue
from plusx.lab.events import LabEvent, Listen
from plusx.lab.job import Setup
from plusx.lab.laboratory import Lab, Scope
from plusx.lab.network import Network
from plusx.lab.photos import Amount, gather
from plusx.lab.results import Result, Table
from plusx.recipes.resolve import given, resolve
from plusx.report.lab_page import lab_page, machine_line
from plusx.report.standalone import standalone
from plusx.training import environment
from plusx.training.events import Notice

RESULTS, PAGE = "results.json", "index.html"
# By the experiments; the last three because nothing may be chosen or ended by the test photos, which training watches.
DECIDED = ("model", "seed", "time", "epochs", "weights", "recipe", "shortcut", "norm", "keep", "patience", "max_epochs")
OUT = Path("lab")


@dataclass(frozen=True)
class LabWish:
    """What was asked for; None where the experiment decides. `typed`: the name that was, such as "all"."""

    full: bool = False
    seeds: int | None = None
    steps: int | None = None
    processes: int | None = None
    device: str | None = None
    out: Path = OUT
    sets: Sequence[str] = ()
    typed: str | None = None

    def again(self, name: str, data: Sequence[str]) -> str:
        """The command line that goes on after a stop in experiment `name`."""
        return self.command(self.typed or name, data)

    def command(self, name: str, data: Sequence[str]) -> str:
        """The command line that wishes the same of one experiment."""
        named = {"--seeds": self.seeds, "--steps": self.steps, "--jobs": self.processes, "--device": self.device}
        words = ["plusx", "lab", name, *data, *["--full"] * self.full]
        for flag, value in named.items():
            words += [flag, str(value)] if value is not None else []
        for text in self.sets:
            words += ["--set", text]
        return shlex.join([*words, "--out", str(self.out)])


@dataclass(frozen=True)
class Size:
    """What quick and full mean for one experiment. `flags` are fields of Config."""

    flags: Mapping[str, Any] = field(default_factory=dict)
    amount: Amount = field(default_factory=Amount)
    steps: int = 1_800
    seeds: int = 3


# Half the published batch at half its rate: twice the steps in equal time, or 56 plain layers do not learn at all.
_FASTER: dict[str, Any] = {"size": 16, "width": 0.5, "batch_size": 64, "learning_rate": 0.05, "log_every": 5}
QUICK = Size({"recipe": "cifar", **_FASTER}, Amount(20_000, 2_000), seeds=2)  # that many are less than 15 minutes
FULL = Size({"recipe": "cifar"}, Amount(train=45_000), steps=64_000, seeds=1)  # as many photos as in the paper


@dataclass(frozen=True)
class Done:
    """A result, and the folder it is written in."""

    result: Result
    folder: Path
    facts: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The document of `lab --json`."""
        return {"out": str(self.folder), **self.facts, **self.result.to_json()}


def lab(name: str, data: Sequence[str], wish: LabWish, on_event: Listen | None = None) -> Done:
    """Run one experiment on DATA, pictures drawn by plusx where there is none, and write OUT/NAME.

    Raises UsageError, DataError, DiskError, RunError, and Interrupted after a stop on request.
    """
    listen = on_event or _silent
    laboratory = open_lab(name, data, wish, listen)
    try:
        result = _experiment(name).run(laboratory)
    except KeyboardInterrupt:
        raise sentences.interrupted(wish.out, wish.again(name, data)) from None
    done = Done(result, laboratory.folder, {"command": wish.command(name, data), **_facts(name, laboratory)})
    _write(done)
    return done


def _facts(name: str, laboratory: Lab) -> dict[str, Any]:
    """How it was measured; steps where there are networks that are trained for a number of them."""
    counted = any(network.time is None and network.epochs is None for network in networks(name, laboratory))
    return {
        "mode": "full" if laboratory.full else "quick",
        "seeds": list(laboratory.seeds),
        "steps": laboratory.steps if counted else None,
        "data": list(laboratory.setup.data),
        "photos": dict(laboratory.counts),
        "data_fingerprint": laboratory.fingerprint,
        "config": laboratory.config.model_dump(mode="json"),
        "machine": environment.record(laboratory.device, fast_math=laboratory.config.fast_math),
    }


def networks(name: str, laboratory: Lab) -> list[Network]:
    """Every network that an experiment trains, none twice."""
    found = getattr(_experiment(name), "networks", None)
    return list(dict.fromkeys(found(laboratory))) if found else []


def open_lab(name: str, data: Sequence[str], wish: LabWish, listen: Listen) -> Lab:
    """The laboratory of an experiment: settings resolved, photos decoded. Raises UsageError and DataError."""
    catalogue.require(name)
    size = _size(name, wish)
    make_folder(wish.out)
    data = tuple(data) or (_drawn(wish.out, listen),)
    setup = Setup(tuple(data), _config(size, wish), size.amount, wish.again(name, data))
    photos = gather(data, setup.config, setup.amount, listen)
    scope = Scope(wish.full, tuple(range(size.seeds)), size.steps, wish.processes)
    make_folder(wish.out / name)
    return Lab(name, wish.out, setup, scope, photos, listen)


def _size(name: str, wish: LabWish) -> Size:
    """What the experiment says of its mode, and the wish over it."""
    module = _experiment(name)
    size: Size = getattr(module, "FULL", FULL) if wish.full else getattr(module, "QUICK", QUICK)
    for what, value in (("--seeds", wish.seeds), ("--steps", wish.steps), ("--jobs", wish.processes)):
        if value is not None and value < 1:
            raise sentences.too_few(what, value, 1)
    return Size(size.flags, size.amount, wish.steps or size.steps, wish.seeds or size.seeds)


def _config(size: Size, wish: LabWish) -> Any:
    wished = given({}, wish.sets, None)
    for name in sorted(wished):
        if name in DECIDED:
            raise sentences.not_of_the_lab(name)
    own = {name: value for name, value in size.flags.items() if name not in wished}  # flags would win over --set
    flags = own | {"device": wish.device, "skip_bad": True}
    config = resolve(flags, sets=wish.sets, environment={})
    # Not as flags: None there means "not given", and a recipe's own patience would stay.
    return config.model_copy(update={"patience": None, "keep": "last"})


def _drawn(out: Path, listen: Listen) -> str:
    folder = out / "pictures"
    listen(Notice(f"No DATA is named: the pictures are drawn by plusx, into {folder}."))
    write_set(folder)
    return str(folder)


def _experiment(name: str) -> Any:
    return importlib.import_module(f"plusx.lab.{name}")


def _write(done: Done) -> None:
    """The numbers, the tables, the figures, and the page; results.json comes last."""
    result, folder = done.result, done.folder
    for number, table in enumerate(result.tables, start=1):
        write_file(folder / f"table-{number}.csv", _csv(table))
    for figure in result.figures:
        write_file(folder / f"{figure.name}.svg", standalone(figure.svg).encode())
    write_file(folder / PAGE, lab_page(result, _told(done.facts)).encode())
    write_json(folder / RESULTS, {**done.facts, **result.to_json()})


def _told(facts: Mapping[str, Any]) -> dict[str, str]:
    """Rows of the page about how it was measured."""
    machine = facts["machine"]
    return {
        "Mode": facts["mode"],
        "Measured again by": facts["command"],
        "Photos": f"{' '.join(facts['data'])} (fingerprint {facts['data_fingerprint']})",
        "Machine": machine_line(machine),
        "Versions": f"plusx {machine['plusx']}, torch {machine['torch']}, Python {machine['python']}",
    }


def _csv(table: Table) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([table.header, *table.rows])
    return text.getvalue().encode()


def _silent(event: LabEvent) -> None:
    """Nobody watches."""
