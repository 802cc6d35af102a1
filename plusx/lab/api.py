"""`plusx.lab` as Python code calls it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from plusx.lab.conduct import OUT, Done, LabWish
from plusx.lab.conduct import lab as lab_as_wished
from plusx.lab.events import Listen

Data = str | os.PathLike[str]


class Wished(TypedDict, total=False):
    """What else may be asked for, each as the flag of `plusx lab`; `processes` is --jobs, `sets` are --set."""

    seeds: int | None
    steps: int | None
    processes: int | None
    device: str | None
    sets: Sequence[str]


def lab(
    name: str,
    data: Data | Sequence[Data] = (),
    *,
    out: Data = OUT,
    full: bool = False,
    on_event: Listen | None = None,
    **wished: Unpack[Wished],
) -> Done:
    """Run experiment `name` on DATA: `plusx.lab("degradation", "cifar10.tar.xz").result.findings`.

    `wished`: seeds, steps, processes (networks trained side by side), device, and sets such as "width=1". Returns the
    result, whose page, figures and numbers lie in `out`/`name`; called again it goes on where it was stopped. Raises
    `plusx.Error`.
    """
    roots = [data] if isinstance(data, str | os.PathLike) else list(data)
    return lab_as_wished(name, [os.fspath(root) for root in roots], LabWish(full, out=Path(out), **wished), on_event)
