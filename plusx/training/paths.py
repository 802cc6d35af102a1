"""Where a run keeps what it needs to go on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plusx import durable
from plusx.training import checkpoint


@dataclass(frozen=True)
class Paths:
    """Where a run keeps its checkpoints, its best weights and its two logs."""

    folder: Path
    resume_command: str

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def best(self) -> Path:
        """Folder of the best weights, one folder per step that a checkpoint may refer to."""
        return self.folder / "best"

    def resumed_from(self, keep: str) -> checkpoint.Choice:
        """The checkpoint that a run goes on from which keeps "best" or "last"; raises as `checkpoint.chosen`."""
        return checkpoint.chosen(self.checkpoints, self.best if keep == "best" else None)

    @property
    def logs(self) -> dict[str, durable.Log]:
        """history: functions of the run only; timing: clock figures."""
        return {name: durable.Log(self.folder / f"{name}.jsonl") for name in checkpoint.LOGS}
