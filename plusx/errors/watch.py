"""Sentences about a run that is watched: why it cannot be, and what its folder says."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from plusx.errors import ModelError
from plusx.errors.serve import Refused

TRAINING = "Training."
PREPARING = "The photos are being read; there is no plan yet."
BEGINNING = "The plan is made; the first step is about to be logged."
FINISHING = "Every step is done; the weights are being measured and calibrated on validation photos."
FINISHED = "Finished; the model is written."
NOT_BEGUN = "Nobody is training this run, and no step of it was saved."
NOTHING_YET = "The folder holds no run at the moment."

GONE = "The photos have moved or cannot be listed any more, so none are shown."
LOOKING = "Photos are being looked for."


def nothing_yet(path: Path) -> ModelError:
    """There is no run at the path, or not yet."""
    return ModelError(
        f"{path} holds no run yet: `plusx train` makes its folder once the photos are decoded; "
        "name a run folder, or start this again when the training tells its own.",
        code="no-run-yet",
    )


def several_runs(path: Path, runs: Sequence[Path]) -> ModelError:
    """A folder of `--seeds`: each seed is a run."""
    named = " or ".join(shlex.quote(str(run)) for run in runs[:3])
    return ModelError(f"{path} holds {len(runs)} runs, one per seed; watch one of them: {named}.", code="several-runs")


def no_image(number: int, count: int) -> Refused:
    """There are other photos now, or fewer."""
    return Refused(404, "no-image", f"There is no photo {number}; the run shows {count} at the moment.")


def running(size: int) -> str:
    """The run trains, at photos of that many pixels."""
    return f"Training on photos of {size} × {size} pixels."


def silent(seconds: float) -> str:
    """A process holds the run and writes nothing."""
    return (
        f"Seems stopped: a process holds the run, and has logged nothing for {_about(seconds)}. It may be suspended, "
        "or the machine may be busy with something else."
    )


def interrupted(step: int) -> str:
    """The run stands still and everything is saved."""
    return f"Interrupted and saved: it goes on from step {step:,}."


def ended(step: int, saved: int) -> str:
    """The run stands still, and the log is further than the newest checkpoint."""
    begins = f"it goes on from the checkpoint of step {saved:,}" if saved else "it begins anew, for nothing was saved"
    return f"Failed or was stopped at once after step {step:,}; its own output says why. Resumed, {begins}."


def revisions(total: int, made: Sequence[tuple[int, int]], stalled_at: int | None) -> tuple[str, ...]:
    """What became of the plan; `made` holds (at step, new end)."""
    told, before = [], total
    for at, end in made:
        why = "validation stood still" if at == stalled_at else f"the machine was {_than(end, before)} than measured"
        told.append(f"At step {at:,} the end went from step {before:,} to {end:,}, since {why}.")
        before = end
    return tuple(told)


def damaged(name: str) -> str:
    """A small file of the run."""
    return f"{name} is damaged or too large to be read; what it says is left out."


def damaged_lines(name: str, count: int) -> str:
    """Lines of a log that are passed over."""
    lines = "1 line that is" if count == 1 else f"{count:,} lines that are"
    return f"{name} has {lines} no JSON object; passed over."


def behind(name: str) -> str:
    """A long log that is not read to its end yet."""
    return f"{name} is long and not read to its end yet; the curves are growing."


def not_shown(count: int) -> str:
    """Photos that are chosen and cannot be shown."""
    photos = "1 photo has" if count == 1 else f"{count:,} photos have"
    return f"{photos} moved or changed since the run began, and cannot be shown."


def as_trained(size: int) -> str:
    """What the photos of a run in progress are."""
    return (
        f"At {size} × {size} pixels, a size at which this run trains. In training each is cropped, mirrored or changed "
        "otherwise, as the settings say, anew every epoch."
    )


def mistakes(wrong: int, n: int, share: str) -> str:
    """What the photos of a finished run are."""
    if not wrong:
        return f"All {n:,} validation photos are answered right; these are the least certain answers."
    return f"{wrong:,} of {n:,} validation photos ({share}) are answered wrong; these are the surest of them."


def _than(end: int, before: int) -> str:
    return "slower" if end < before else "faster"


def _about(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"
