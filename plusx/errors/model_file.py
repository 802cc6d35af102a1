"""Sentences about model files and run folders."""

from __future__ import annotations

import shlex
from pathlib import Path

from plusx.errors import ModelError, UsageError

EXPECTED = "expected a model.safetensors of plusx, an .onnx file it was exported to, or the run folder that holds it"


def missing(path: Path) -> ModelError:
    """There is nothing at the path."""
    return ModelError(f"There is no {path}; {EXPECTED}.", code="no-model")


def no_file(path: Path) -> ModelError:
    """A pipe or a device, which can be read once or never ends."""
    return ModelError(f"{path} is no file, but a pipe or a device; {EXPECTED}.", code="unreadable-model")


def unreadable(path: Path, error: OSError) -> ModelError:
    """The system does not let us read it."""
    return ModelError(f"{path} cannot be read: {error.strerror or error}; {EXPECTED}.", code="unreadable-model")


def foreign(path: Path, kind: str) -> ModelError:
    """Another kind of file."""
    return ModelError(f"{path} is {kind}; {EXPECTED}.", code="not-a-model")


def exported(path: Path) -> ModelError:
    """An exported file where a network is needed."""
    return ModelError(
        f"{path} is an exported file, which answers and holds no network to look into or to go on with; name the "
        "model.safetensors or the run folder it was made from.",
        code="exported-file",
    )


def other_format(path: Path, found: object, expected: int) -> ModelError:
    """A model file of another format version."""
    return ModelError(
        f"{path} has model format {found} and this plusx reads format {expected}; "
        "use the version of plusx that wrote it, or train again.",
        code="model-format",
    )


def damaged(path: Path, what: str) -> ModelError:
    """A model file with a fault in it."""
    return ModelError(f"{path} is damaged: {what}; copy it again or train again.", code="model-damaged")


def not_as_written(path: Path, error: Exception) -> ModelError:
    """What answers are decided by does not fit."""
    return damaged(path, f"its calibration, thresholds or novelty are not as written ({error})")


def no_run(path: Path) -> ModelError:
    """Not a run folder."""
    if not path.exists():
        return ModelError(f"There is no {path}; expected a run folder that `plusx train` made.", code="no-run")
    return ModelError(f"{path} is not a run folder of plusx; expected one that `plusx train` made.", code="no-run")


def unfinished(path: Path) -> ModelError:
    """A run without a model yet."""
    return ModelError(
        f"The run in {path} has no model yet; finish it with: plusx train --resume --out {shlex.quote(str(path))}",
        code="unfinished",
    )


def folder_taken(path: Path) -> UsageError:
    """`--out` names something that exists."""
    return UsageError(
        f"{path} exists already, and runs are never overwritten; choose another --out, or add --resume to continue it.",
        code="out-exists",
    )


def needs_data(path: Path) -> UsageError:
    """A model file alone knows no photos to test on."""
    return UsageError(
        f"{path} is a model file and has no test photos of its own; add DATA: plusx evaluate {path} FOLDER",
        code="needs-data",
    )
