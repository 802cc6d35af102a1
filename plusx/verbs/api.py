"""`plusx.train` as Python code calls it: settings by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plusx.verbs.finish import Trained
from plusx.verbs.reports import TrainEvent
from plusx.verbs.train import train as train_as_wished
from plusx.verbs.wish import Wish

Data = str | os.PathLike[str]


def train(
    data: Data | Sequence[Data] = (),
    *,
    out: Data | None = None,
    resume: bool = False,
    plan: Data | None = None,
    decisions: Data | Sequence[Data] = (),
    on_event: Callable[[TrainEvent], None] | None = None,
    **settings: Any,
) -> Trained:
    """Train on DATA: `plusx.train("pets", time="10m", seed=3)`. `settings` are fields of `plusx.config.Config`.

    `decisions` are CSV files of photos to leave out or to relabel, as `plusx check` writes and people edit them.

    Returns the run folder, the model file and the validation figures. Raises `plusx.Error`.
    """
    files = tuple(Path(path) for path in _several(decisions))
    plan, out = (Path(path) if path else None for path in (plan, out))
    wish = Wish(settings, plan=plan, out=out, resume=resume, decisions=files)
    return train_as_wished([os.fspath(root) for root in _several(data)], wish, on_event=on_event)


def _several(paths: Data | Sequence[Data]) -> list[Data]:
    return [paths] if isinstance(paths, str | os.PathLike) else list(paths)
