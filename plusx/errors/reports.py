"""Sentences about pages and comparisons."""

from __future__ import annotations

from pathlib import Path

from plusx.errors import ModelError, UsageError


def unwritten(path: Path, error: Exception) -> str:
    """The notice where a page could not be made: the run it is about is whole."""
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{path} could not be written ({what}); the run is whole, and `plusx evaluate` writes its pages anew."


def unwritten_of_data(path: Path, error: Exception) -> str:
    """The notice where the page of a test on other photos could not be made: its figures are told all the same."""
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{path} could not be written ({what}); the figures are whole: test again with another --report."


def uncompared(path: Path, error: Exception) -> str:
    """The notice where the page of a comparison could not be made: the runs are whole."""
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{path} could not be written ({what}); the runs are whole, and `plusx compare` writes it with --out."


def too_few_runs(n: int) -> UsageError:
    """`compare` has nothing to compare."""
    return UsageError(f"compare needs at least two different runs and got {n}; name their run folders.", code="one-run")


def other_classes(first: Path, other: Path) -> UsageError:
    """Two runs tell different things apart."""
    return UsageError(
        f"{other} tells other classes apart than {first}, so there is nothing to compare; "
        "name runs that were trained on the same classes.",
        code="other-classes",
    )


def not_measured(path: Path) -> UsageError:
    """A run without figures."""
    return UsageError(
        f"{path} was trained without validation photos and has not been tested; test it first: plusx evaluate {path}.",
        code="not-measured",
    )


def too_few_seeds(wanted: int) -> UsageError:
    """`--seeds` of none or one."""
    return UsageError(f"--seeds is {wanted}, and a spread needs at least 2; leave it out for one run.", code="one-seed")


def no_seeds(path: Path) -> ModelError:
    """A folder that `--seeds` did not begin."""
    return ModelError(
        f"{path} holds no training over several seeds; continue a single run without --seeds, or start a new one "
        "without --resume.",
        code="no-seeds",
    )


def seeds_damaged(path: Path) -> ModelError:
    """The record of a training over several seeds."""
    return ModelError(f"{path} is damaged: it is not the JSON that was written; start anew elsewhere.", code="damaged")
