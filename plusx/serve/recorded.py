"""The small files of a run folder as facts to be shown: settings, machine, data, figures. None of them is trusted."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from plusx.data.table import text_of
from plusx.metrics import percent
from plusx.report.page import duration
from plusx.run_folder import RunFolder
from plusx.serve.ahead import Ahead
from plusx.serve.tail import Stamp, finite, whole

LARGEST = 8 << 20  # bytes of a small file; a larger one is passed over
LONGEST = 200  # characters of a value that are shown

Facts = tuple[tuple[str, str], ...]  # (name, value) as shown

SETTINGS = (
    *("recipe", "scale", "model", "width", "weights", "size", "batch_size", "optimizer", "learning_rate", "schedule"),
    *("weight_decay", "label_smoothing", "crop_scale", "flip", "policy", "mixup", "cutmix", "erasing", "average"),
    *("precision", "keep", "time", "epochs", "seed"),
)
UNUSED = (None, "none", 0.0, False)
MACHINE = ("device", "processor", "cores", "threads", "system", "python", "torch", "plusx")


class Recorded:
    """The small files of a run, each parsed anew only when it has changed. Missing or damaged ones are empty."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._files: dict[str, tuple[Stamp, Any]] = {}

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings of the run."""
        return _mapping(self._file("config.yaml", yaml.safe_load))

    @property
    def plan(self) -> Ahead | None:
        """The plan as it is now; None where there is none that can be read."""
        try:
            return Ahead.from_json(self.json("plan"))
        except (ValueError, TypeError, KeyError, OverflowError):
            return None

    def json(self, name: str) -> Mapping[str, Any]:
        """One of the run's JSON files."""
        return _mapping(self._file(f"{name}.json", json.loads))

    def skipped(self) -> list[tuple[str, str]]:
        """(path, reason) of the photos that the run leaves out."""
        return self._file("skipped.csv", _skipped_rows) or []

    def roots(self) -> tuple[str, ...]:
        """Where DATA is."""
        found = self.json("run").get("data")
        return tuple(map(str, found)) if isinstance(found, list) else ()

    def settings(self) -> Facts:
        """The settings that shape a training, as far as they are used."""
        values = self.config
        used = [name for name in SETTINGS if name in values and (name == "seed" or values[name] not in UNUSED)]
        return tuple((name, _lasting(values[name]) if name == "time" else _told(values[name])) for name in used)

    def machine(self) -> Facts:
        """Where the run is trained, and with what."""
        values = self.json("environment")
        return tuple((name, _told(values[name])) for name in MACHINE if name in values)

    def figures(self) -> Facts:
        """What a finished run measured, validation first."""
        measured = (("validation", self.json("metrics").get("validation")), ("test", self.json("test")))
        return tuple(fact for name, values in measured for fact in _measured(name, _mapping(values)))

    def _file(self, name: str, parse: Callable[[bytes], Any]) -> Any:
        path = self.run.path / name
        stamp = stamp_of(path)
        if stamp is None or stamp[1] > LARGEST:
            return None
        if name not in self._files or self._files[name][0] != stamp:
            try:
                self._files[name] = (stamp, parse(path.read_bytes()))
            except (OSError, ValueError, KeyError, RecursionError, csv.Error, yaml.YAMLError):
                self._files[name] = (stamp, None)
        return self._files[name][1]


def stamp_of(path: Path) -> Stamp | None:
    """Inode, length and time of the last change of a regular file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns) if path.is_file() else None


def _measured(name: str, values: Mapping[str, Any]) -> Facts:
    accuracy, loss, n = finite(values.get("accuracy")), finite(values.get("log_loss")), whole(values.get("n"))
    if accuracy is None or n is None:
        return ()
    told = f"{percent(accuracy)} of {n:,} photos"
    interval = values.get("accuracy_ci95")
    if isinstance(interval, list) and len(interval) == 2 and None not in (ends := [finite(end) for end in interval]):
        told += f" (95 % interval {percent(ends[0] or 0.0)} to {percent(ends[1] or 0.0)})"
    facts = ((f"{name} accuracy", told),)
    return facts if loss is None else (*facts, (f"{name} log loss", f"{loss:.4f}"))


def _skipped_rows(data: bytes) -> list[tuple[str, str]]:
    text = io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")
    return [(text_of(row["path"]), row["reason"]) for row in csv.DictReader(text)]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _lasting(value: Any) -> str:
    seconds = finite(value)
    return _told(value) if seconds is None else duration(seconds)


def _told(value: Any) -> str:
    """A value as shown; of what is no plain value only that it is there, since YAML can hold endless ones."""
    if isinstance(value, list) and len(value) <= 8 and not any(isinstance(one, list | dict) for one in value):
        return " to ".join(map(_told, value)) if len(value) == 2 else ", ".join(map(_told, value))
    if isinstance(value, list | dict):
        return "…"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
