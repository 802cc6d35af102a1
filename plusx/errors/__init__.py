"""Every way plusx can fail, and the exit code of each.

    Error                 the base class: `except plusx.Error` catches them all
    ├── UsageError     2  a flag, a name or a config value is wrong
    ├── DataError      3  the photos, or the folder that holds them
    ├── ModelError     4  a model file or a checkpoint
    ├── DiskError      5  reading or writing failed below us
    ├── RunError       1  the run itself failed (NaN loss, out of memory)
    └── Interrupted   75  stopped on request, resumable

The sentences live beside this file, one module per subject (`errors.data`, `errors.images`, ...):
each is a small function that takes the facts and returns the error to raise. A sentence says
what is wrong, where, what was expected and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "DataError",
    "DiskError",
    "Error",
    "Interrupted",
    "ModelError",
    "RunError",
    "UsageError",
    "did_you_mean",
]


class Error(Exception):
    """Base of all plusx errors: one sentence, an exit code and a stable machine-readable code."""

    exit_code = 1
    told = False  # whether another process of the same training tells it

    def __init__(self, message: str, *, code: str = "failed") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class UsageError(Error):
    """A flag, a name or a config value is wrong."""

    exit_code = 2


class DataError(Error):
    """The photos, or the folder that holds them, cannot be used as they are."""

    exit_code = 3


class ModelError(Error):
    """A model file or a checkpoint is missing, damaged or of another kind."""

    exit_code = 4


class DiskError(Error):
    """The file system refused: full, read-only, gone."""

    exit_code = 5


class RunError(Error):
    """The run failed while it was running."""

    exit_code = 1


class Interrupted(Error):
    """The run was stopped on request after a durable checkpoint; it can be resumed."""

    exit_code = 75


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """' Did you mean X?' for the nearest known name, or '' where none is near. What all start with does not count."""
    rests = [other.removeprefix(prefix) for other in known]
    near = difflib.get_close_matches(name.removeprefix(prefix), rests, n=1, cutoff=0.6)
    return f" Did you mean {prefix}{near[0]}?" if near else ""
