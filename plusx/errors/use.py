"""Sentences about using a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plusx.errors import DataError, UsageError


def unreadable_photo(name: str, error: Exception) -> DataError:
    """A single photo given to `Classifier.predict` cannot be read."""
    why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return DataError(f"{name} cannot be used: {why}; expected a photo.", code=getattr(error, "code", "unreadable"))


def no_paths() -> UsageError:
    """`predict` without anything to answer for."""
    return UsageError(
        "predict needs at least one photo, folder, glob or tar after the model; - reads a list from standard input.",
        code="no-paths",
    )


def nothing_found(paths: str) -> DataError:
    """The folders given to `predict` are empty."""
    return DataError(f"{paths} holds no files to answer for; name photos, or a folder of them.", code="no-photos")


def kaggle_needs_two(classes: int) -> UsageError:
    """A Kaggle submission has one probability per photo."""
    return UsageError(
        f"--kaggle writes the probability of the second of two classes, and this model has {classes}; use --csv.",
        code="kaggle-classes",
    )


SHOWN = 3  # things of a kind that are named
OLD_OR_NEW = "Bring the old photos back, or start a new run."
OR_ACCEPT = (
    "Bring the old photos back, start a new run, or train on with --accept-changes; the run then says of itself that "
    "it is not exact."
)


def changed(root: str, changes: Mapping[str, Sequence[str]], advice: str = OLD_OR_NEW) -> DataError:
    """DATA is not what the run was started with: `changes` are the photos by what happened to them, as "added"."""
    listed = "; ".join(f"{what}: {len(photos):,} ({first_few(photos)})" for what, photos in changes.items())
    return DataError(
        f"{root} has changed since the run was started. Photos {listed}. {advice}",
        code="data-changed",
    )


def changed_classes(root: str, new: Sequence[str], gone: Sequence[str]) -> DataError:
    """Photos may come and go; a network has as many answers as it had classes when it was made."""
    told = [f"{what} {first_few(names)}" for what, names in (("has also", new), ("has no more", gone)) if names]
    return DataError(
        f"{root} has other classes than the run was started with: it {' and '.join(told)}. "
        "Classes are fixed when a run starts: start a new run, or put the folders back as they were.",
        code="classes-changed",
    )


def accepted_changes(root: str, counts: Mapping[str, int], step: int) -> str:
    """What is told when a run goes on though its photos have changed."""
    return (
        f"{root} has changed since the run was started ({counted(counts)}), which was accepted: from step {step + 1:,} "
        "on it trains on the photos as they are now. The result is not exactly that of any run without a stop."
    )


def accepted_too_late(run: Path) -> str:
    """What is told where --accept-changes is given to a run that is finished."""
    return f"{run} is finished and stays as it was trained, so --accept-changes changes nothing; start a new run."


def not_exact(changes: Iterable[Mapping[str, Any]]) -> str:
    """What a run that was gone on with on changed photos says of itself, for as long as it exists."""
    told = (f"after step {change['step']:,} ({counted(change['photos'])})" for change in changes)
    return f"not exact: photos changed while it was stopped {', and '.join(told)}"


def counted(counts: Mapping[str, int]) -> str:
    """Counts of photos by what happened to them, as "photos added: 2, removed: 1"."""
    return "photos " + ", ".join(f"{what}: {count:,}" for what, count in counts.items())


def first_few(names: Sequence[str]) -> str:
    """The first few of many things to name, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def no_test_photos(root: str) -> DataError:
    """Nothing is left to test on."""
    return DataError(
        f"No photos are left in {root} to test on: the model was trained on all of them, or its test part is empty, "
        "or none can be read; give photos it has not seen.",
        code="no-test-photos",
    )
