"""Sentences about runs that fail while they train, and about their checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from plusx.errors import Interrupted, ModelError, RunError


def loss_not_finite(step: int, loss: float, names: Sequence[str]) -> RunError:
    """The loss of a batch is NaN or infinite; `step` counts from 1, as in the logs."""
    return RunError(
        f"The loss became {loss} at step {step}, in the batch of {', '.join(names)}; the last checkpoint is kept. "
        "Look at these photos, or train with a lower --set learning_rate=...",
        code="loss-not-finite",
    )


def weights_not_finite(step: int, name: str) -> RunError:
    """An update has made a number NaN or infinite; `name` says what, as "the momentum of fc.bias".

    Such a state must not replace a good checkpoint.
    """
    return RunError(
        f"The numbers in {name} are no longer finite after step {step}; the last checkpoint is kept. "
        "Train with a lower --set learning_rate=..., or with --set clip_norm=1.",
        code="weights-not-finite",
    )


def out_of_memory(batch_size: int, fits: int | None) -> RunError:
    """A step did not fit into the memory of the device; `fits` is the largest tried batch that does."""
    if fits is None:
        advice = "not even one photo fits: choose a smaller --size or a smaller --model"
    else:
        parts = -(-batch_size // fits)
        advice = f"{fits} fit: use --batch-size {fits}, or compute the batch in parts with --set accumulate={parts}"
    return RunError(f"A batch of {batch_size} photos does not fit into memory; {advice}.", code="out-of-memory")


def lone_value(step: int) -> RunError:
    """A batch, or a part of one, is a single photo whose maps have shrunk to one value."""
    return RunError(
        f"Step {step} holds a single photo whose last maps are one pixel, and batch norm has no spread over one value; "
        "use a larger --size, another --batch-size or fewer parts with --set accumulate=...",
        code="lone-value",
    )


def interrupted(step: int, folder: Path, resume: str) -> Interrupted:
    """The run was asked to stop and is safe on disk."""
    return Interrupted(
        f"Stopped after step {step}; everything is in {folder}. Continue with: {resume}", code="interrupted"
    )


def interrupted_run(folder: Path, resume: str) -> Interrupted:
    """The same outside the steps, while a run begins or ends."""
    return Interrupted(f"Stopped; everything is in {folder}. Continue with: {resume}", code="interrupted")


def all_damaged(folder: Path, faults: Iterable[str]) -> ModelError:
    """Every checkpoint is damaged."""
    return ModelError(
        f"No checkpoint in {folder} can be used: {'; '.join(faults)}. Nothing was deleted; start the run again.",
        code="checkpoints-damaged",
    )


def best_lost(path: Path, fault: str) -> str:
    """What is told where a run goes on from the checkpoint at `path`, and its best weights are damaged."""
    return (
        f"The best weights so far are lost ({path.name}: {fault}); the run goes on from this checkpoint and keeps the "
        "best from here on."
    )


def lines_lost(path: Path, step: int) -> str:
    """What is told where a log is shorter than the checkpoint of `step` says."""
    return f"{path.name} has lost lines of the {step:,} steps done; the run goes on without them."


def best_damaged(folder: Path, fault: str) -> ModelError:
    """The best weights of a finished run are gone or have other bytes than were written."""
    return ModelError(
        f"The best weights in {folder} cannot be used: {fault}. Nothing was deleted; start the run again, "
        "or with --set keep=last.",
        code="best-damaged",
    )


def foreign_checkpoint(folder: Path, what: str) -> ModelError:
    """A checkpoint is whole but does not belong to this network, optimizer or version."""
    return ModelError(
        f"{folder} does not fit this run: {what}. Resume with the settings and the version it was written with.",
        code="checkpoint-mismatch",
    )
