"""The run folder: where everything about one training lies, under fixed names, and is never overwritten."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from plusx.durable import disk_errors, locked, make_folder, put_back, sweep_temporary, write_file, write_json
from plusx.errors import model_file as sentences

RUNS = Path("runs")


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def model(self) -> Path:
        """The finished model file."""
        return self.path / "model.safetensors"

    @property
    def split(self) -> Path:
        """Path, class, split, SHA-256 and near-duplicates of every photo."""
        return self.path / "split.csv"

    @property
    def decisions(self) -> Path:
        """The decisions about single photos that the run was started with; not there where it had none."""
        return self.path / "decisions.csv"

    @property
    def plan(self) -> Path:
        """Steps and sizes."""
        return self.path / "plan.json"

    @property
    def checkpoints(self) -> Path:
        """What resuming needs."""
        return self.path / "checkpoints"

    @property
    def validation_answers(self) -> Path:
        """The answers to the validation photos, written before the model file."""
        return self.path / "validation.csv"

    @property
    def test_answers(self) -> Path:
        """The answers to the test photos, written by `plusx evaluate`; their figures are in test.json."""
        return self.path / "answers.csv"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / "card.md"

    @property
    def finished(self) -> bool:
        """Whether the run has its model."""
        return self.model.exists()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out; leftovers of interrupted writes are swept. Raises DiskError where it is in use."""
        with locked(self.path / "run.lock"):
            for folder in (self.path, self.checkpoints, self.path / "best", self.path / "weights"):
                sweep_temporary(folder)
            for folder in (self.checkpoints, self.path / "best"):
                put_back(folder)
            yield

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one of the run's JSON files."""
        write_json(self.path / f"{name}.json", value)

    def read(self, name: str) -> dict[str, Any]:
        """Read one of the run's JSON files. Raises ModelError where it is missing or damaged."""
        path = self.path / f"{name}.json"
        try:
            values = json.loads(path.read_bytes())
        except OSError:
            raise sentences.no_run(self.path) from None
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise sentences.damaged(path, "it is not the JSON that was written")
        return values

    def write_config(self, values: Mapping[str, Any]) -> None:
        """Write the resolved configuration as YAML."""
        write_file(self.path / "config.yaml", yaml.safe_dump(dict(values), sort_keys=False).encode())

    def read_config(self) -> dict[str, Any]:
        """The configuration of the run. Raises ModelError where it is missing or damaged."""
        path = self.path / "config.yaml"
        try:
            values = yaml.safe_load(path.read_text())
        except OSError:
            raise sentences.no_run(self.path) from None
        except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: no UTF-8, or no date
            values = None
        if not isinstance(values, dict):
            raise sentences.damaged(path, "it is not the YAML that was written")
        return values


def create(out: Path | None, name: str) -> RunFolder:
    """A new, empty run folder: `out`, or runs/<name>-<n>, n the first free one. Raises UsageError for a taken `out`."""
    refuse_taken(out)
    if out is not None:
        make_folder(out)
        return RunFolder(out)
    make_folder(RUNS)
    return RunFolder(_first_free(name))


def refuse_taken(out: Path | None) -> None:
    """Raise UsageError where `out` is a file or a folder with something in it."""
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise sentences.folder_taken(out)


def open_run(path: Path) -> RunFolder:
    """An existing run folder. Raises ModelError where it is none."""
    if not (path / "config.yaml").exists():
        raise sentences.no_run(path)
    return RunFolder(path)


def model_path(run_or_model: Path) -> Path:
    """The model file behind a run folder or a model file. Raises ModelError where there is none, or a pipe."""
    if not run_or_model.is_dir():
        if not run_or_model.exists():
            raise sentences.missing(run_or_model)
        if not run_or_model.is_file():
            raise sentences.no_file(run_or_model)
        return run_or_model
    run = open_run(run_or_model)
    if not run.finished:
        raise sentences.unfinished(run_or_model)
    return run.model


def _first_free(name: str) -> Path:
    for number in itertools.count(1):
        path = RUNS / f"{name}-{number}"
        with disk_errors(path), contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError("numbers do not end")
