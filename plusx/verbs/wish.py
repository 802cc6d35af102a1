"""What was asked of `train`, as the flags of its command line are; and that command line again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Wish:
    """Settings by name, and how to start. `accept_changes`: go on, though the photos of the run have changed."""

    flags: Mapping[str, Any] = field(default_factory=dict)
    sets: Sequence[str] = ()
    file: Path | None = None
    plan: Path | None = None
    out: Path | None = None
    resume: bool = False
    decisions: Sequence[Path] = ()
    accept_changes: bool = False

    def command(self, data: Sequence[str], *more: str) -> str:
        """The command line that wishes the same of `data`, and `more`."""
        return shlex.join(["plusx", "train", *data, *self._flags(), *more])

    def _flags(self) -> Iterator[str]:
        for name, value in self.flags.items():
            flag = f"--{name.replace('_', '-')}"
            if value is True:
                yield flag
            elif value is not None and value is not False:
                yield from (flag, str(value))
        for text in self.sets:
            yield from ("--set", text)
        for flag, path in (("--config", self.file), ("--plan", self.plan), ("--out", self.out)):
            if path is not None:
                yield from (flag, str(path))
        for path in self.decisions:
            yield from ("--decisions", str(path))
        if self.resume:
            yield "--resume"
        if self.accept_changes:
            yield "--accept-changes"
