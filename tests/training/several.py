"""Several processes that torchrun could have started: a function of a test runs in each, and answers in JSON.

As a program it is one of them: `several.py MODULE FUNCTION OUT [ARGUMENT]`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun sets for one of `size` processes on this machine."""
    told = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    address |= {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # it warns of a store that ends with the first process, as here it does
    return os.environ | {name: str(value) for name, value in told.items()} | address | {"PYTHONPATH": str(ROOT)}


def start(module: str, function: str, size: int, folder: Path, argument: str = "") -> list[subprocess.Popen[bytes]]:
    """`size` processes, each of which calls `function(argument)` of the test file `module` and writes its answer."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, __file__, module, function, str(folder / f"{function}-{rank}.json"), argument],
            env=environment(rank, size, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(size)
    ]


def answers(processes: Sequence[subprocess.Popen[bytes]], function: str, folder: Path, wait: float = 300) -> list[Any]:
    """What each process answered, in order of rank; fails with what it said where one did not end well."""
    for rank, process in enumerate(processes):
        _, said = process.communicate(timeout=wait)
        assert process.returncode == 0, f"process {rank}: {said.decode()}"
    return [json.loads((folder / f"{function}-{rank}.json").read_text()) for rank in range(len(processes))]


def run(module: str, function: str, size: int, folder: Path, argument: str = "") -> list[Any]:
    """The answers of `size` processes to `function(argument)`."""
    return answers(start(module, function, size, folder, argument), function, folder)


def _main(module: str, function: str, out: str, argument: str) -> None:
    spec = importlib.util.spec_from_file_location("test_file", module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(module).parent))
    spec.loader.exec_module(loaded)
    Path(out).write_text(json.dumps(getattr(loaded, function)(argument)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
