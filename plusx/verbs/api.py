"""`plusx.train` as Python code calls it: settings by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from plusx.doctor.labels import LabelReport
from plusx.verbs.check_labels import BUDGET, FOLDS, LabelWish, default_out
from plusx.verbs.check_labels import check_labels as check_labels_as_wished
from plusx.verbs.finish import Trained
from plusx.verbs.reports import TrainEvent
from plusx.verbs.train import train as train_as_wished
from plusx.verbs.wish import Wish

Data = str | os.PathLike[str]


def train(
    data: Data | Sequence[Data] = (),
    *,
    out: Data | None = None,
    resume: bool | Literal["accept-changes"] = False,
    plan: Data | None = None,
    decisions: Data | Sequence[Data] = (),
    on_event: Callable[[TrainEvent], None] | None = None,
    **settings: Any,
) -> Trained:
    """Train on DATA: `plusx.train("pets", time="10m", seed=3)`. `settings` are fields of `plusx.config.Config`.

    `resume` goes on with the run in `out`; "accept-changes" does so though photos of DATA came, went or were edited,
    and the run then says that it is not exact. `decisions` are CSV files of photos to leave out or to relabel, as
    `plusx check` writes and people edit them.

    Returns the run folder, the model file and the validation figures. Raises `plusx.Error`.
    """
    files = tuple(Path(path) for path in _several(decisions))
    plan, out = (Path(path) if path else None for path in (plan, out))
    accept = resume == "accept-changes"
    wish = Wish(settings, plan=plan, out=out, resume=bool(resume), decisions=files, accept_changes=accept)
    return train_as_wished([os.fspath(root) for root in _several(data)], wish, on_event=on_event)


def check_labels(
    data: Data | Sequence[Data],
    *,
    out: Data | None = None,
    folds: int = FOLDS,
    time: str | float = BUDGET,
    on_event: Callable[[TrainEvent], None] | None = None,
    **settings: Any,
) -> LabelReport:
    """Labels of DATA that are probably wrong, by `folds` networks that judge photos they have not seen, within `time`.

    Writes labels.csv (to decide on), labels.json and the runs of the folds into `out`, check-NAME where it is not
    named; called again it goes on where it was stopped. `settings` are as those of `train`. Raises `plusx.Error`.
    """
    roots = _several(data)
    wish = LabelWish(Path(out) if out else default_out(roots), folds, time, settings)
    return check_labels_as_wished(roots, wish, on_event=on_event)


def _several(paths: Data | Sequence[Data]) -> list[Data]:
    return [paths] if isinstance(paths, str | os.PathLike) else list(paths)
