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
    on_event: Callable[[TrainEvent], None] | None = None,
    **settings: Any,
) -> Trained:
    """Train on DATA: `plusx.train("pets", time="10m", seed=3)`. `settings` are fields of `plusx.config.Config`.

    Returns the run folder, the model file and the validation figures. Raises `plusx.Error`.
    """
    roots = [data] if isinstance(data, str | os.PathLike) else list(data)
    wish = Wish(settings, plan=Path(plan) if plan else None, out=Path(out) if out else None, resume=resume)
    return train_as_wished([os.fspath(root) for root in roots], wish, on_event=on_event)
