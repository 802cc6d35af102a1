"""Sentences about using a model."""

from __future__ import annotations

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


def changed(root: str, added: int, removed: int, example: str) -> DataError:
    """DATA is not what the run was started with."""
    return DataError(
        f"{root} has changed since the run was started: photos added or edited: {added}, gone or edited: {removed} "
        f"(such as {example}); bring the old photos back, or start a new run.",
        code="data-changed",
    )


def no_test_photos(root: str) -> DataError:
    """Nothing is left to test on."""
    return DataError(
        f"No photos are left in {root} to test on: the model was trained on all of them, or its test part is empty, "
        "or none can be read; give photos it has not seen.",
        code="no-test-photos",
    )
