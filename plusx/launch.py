"""What `torchrun` has told this process: which of how many it is. Without it, a process is alone."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """`rank` of `size` processes, `local_rank` of `local_size` on this machine; `restarts` of all of them before."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    restarts: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def __str__(self) -> str:
        """As people are told which one it is."""
        return f"rank {self.rank} of {self.size}"


def launched() -> Launch:
    """What the environment says, as torchrun sets it; one process alone where it says nothing."""
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        return Launch()
    return Launch(
        rank=_number("RANK", 0),
        size=_number("WORLD_SIZE", 1),
        local_rank=_number("LOCAL_RANK", 0),
        local_size=_number("LOCAL_WORLD_SIZE", 1),
        restarts=_number("TORCHELASTIC_RESTART_COUNT", 0),
    )


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else otherwise
