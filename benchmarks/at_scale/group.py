"""Groups of processes that measure together, started as torchrun would: side by side, or in network namespaces."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[2]
LONGEST = 240.0  # seconds that a group may take

Tasks = Sequence[dict[str, Any]]


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def measured(tasks: Tasks, workers: int, spaces: Sequence[str] = (), first: str = "127.0.0.1") -> list[dict[str, Any]]:
    """What `workers` processes found, each in the network namespace of `spaces` that is its turn, if there are any.

    `first` is the address of the first. Raises RuntimeError with what a process said where one fails.
    """
    port = free_port()
    processes = [_started(tasks, rank, workers, f"{first}:{port}", spaces) for rank in range(workers)]
    try:
        said = [process.communicate(timeout=LONGEST) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, wrong) in zip(processes, said, strict=True):
        if process.returncode:
            raise RuntimeError(wrong.decode()[-2000:])
    return [json.loads(line) for line in said[0][0].splitlines()]


def _started(tasks: Tasks, rank: int, workers: int, address: str, spaces: Sequence[str]) -> subprocess.Popen[bytes]:
    host, _, port = address.rpartition(":")
    told = {"RANK": rank, "WORLD_SIZE": workers, "MASTER_ADDR": host, "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    environment = os.environ | {name: str(value) for name, value in told.items()} | {"PYTHONPATH": str(ROOT)}
    prefix = []
    if spaces:
        prefix = ["ip", "netns", "exec", spaces[rank % len(spaces)]]
        environment["GLOO_SOCKET_IFNAME"] = "wire"
    command = [*prefix, sys.executable, str(WORKER), json.dumps(list(tasks))]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
