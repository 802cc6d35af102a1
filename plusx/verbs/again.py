"""What a resumed run is gone on with: the settings and photos it was started with, or a refusal with the difference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plusx.config import Config
from plusx.data import decisions, split
from plusx.data.drift import Drift
from plusx.errors import usage
from plusx.errors.use import OR_ACCEPT
from plusx.recipes import plan as planning
from plusx.recipes.resolve import given, resolve
from plusx.run_folder import RunFolder
from plusx.verbs import accepted, labelled
from plusx.verbs.labelled import LabelledPhotos
from plusx.verbs.recorded import config_of
from plusx.verbs.wish import Wish

# no bit of the result depends on them
FREE = ("workers", "checkpoint_every", "checkpoint_seconds", "rank_seconds", "show_every_step")


def settings(run: RunFolder, wish: Wish) -> Config:
    """The settings of the run, with those wished now that change nothing of its result.

    They hold until it is stopped again; the run's record of its settings stays. Raises UsageError for any other
    setting, plan or decision that differs from those the run was started with.
    """
    config = config_of(run)
    wished = resolve(wish.flags, sets=wish.sets, file=wish.file, environment={})
    named = given(wish.flags, wish.sets, wish.file)
    changed: list[tuple[str, object, object]] = [
        (name, getattr(config, name), getattr(wished, name))
        for name in sorted(named - set(FREE))
        if getattr(wished, name) not in (getattr(config, name), "auto")
    ]
    if wish.plan is not None and planning.read_plan(wish.plan).total_steps != planning.read_plan(run.plan).total_steps:
        changed.append(("--plan", str(run.plan), str(wish.plan)))
    if wish.decisions and _decided_otherwise(run, wish.decisions):
        changed.append(("--decisions", str(run.decisions), ", ".join(map(str, wish.decisions))))
    if changed:
        raise usage.changed_settings(run.path, changed)
    return config.model_copy(update={name: getattr(wished, name) for name in named & set(FREE)})


def look(data: Sequence[str], run: RunFolder, *, accepting: bool) -> tuple[LabelledPhotos, Drift]:
    """The photos of DATA with the split that the run recorded, and no changes; or, without a split, what has changed.

    Raises DataError where something has, unless that is `accepting`ed; for other classes always.
    """
    photos = labelled.look_now(data, run)
    changes = accepted.changed(photos, run) if accepting else Drift()
    return (photos, changes) if changes else (labelled.as_recorded(photos, run, OR_ACCEPT), changes)


def _decided_otherwise(run: RunFolder, files: Sequence[Path]) -> bool:
    """Whether decisions given again do something else to the photos of the run than those it was started with."""
    labels = {(row.path, row.sha256): row.label for row in split.read_split_csv(run.split)}
    return decisions.contradict(decisions.read(files), labelled.recorded_decisions(run), labels)
