"""Several processes that torchrun could have started: a function of a test runs in each, and answers in JSON.

As a program it is one of them: `several.py MODULE FUNCTION OUT [ARGUMENT]`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plusx.training import interrupt

ROOT = Path(__file__).resolve().parents[2]
STOPS: list[interrupt.Stop] = []


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
    started = []
    for rank in range(size):
        words = [sys.executable, __file__, module, function, str(folder / f"{function}-{rank}.json"), argument]
        with (folder / f"{function}-{rank}.txt").open("wb") as said:
            started.append(subprocess.Popen(words, env=environment(rank, size, port), stdout=said, stderr=said))
    return started


def answers(processes: Sequence[subprocess.Popen[bytes]], function: str, folder: Path, wait: float = 300) -> list[Any]:
    """What each process answered, in order of rank; fails with what it said where one did not end well."""
    until = time.monotonic() + wait
    try:
        for rank, process in enumerate(processes):
            code = process.wait(max(1.0, until - time.monotonic()))
            assert code == 0, f"process {rank}: {(folder / f'{function}-{rank}.txt').read_text()}"
    finally:
        end(processes)
    return [json.loads((folder / f"{function}-{rank}.json").read_text()) for rank in range(len(processes))]


def end(processes: Sequence[subprocess.Popen[Any]]) -> None:
    """Leave none behind."""
    for process in processes:
        process.kill()
        process.wait()


def heed_stops() -> None:
    """Let `ask_to_stop` know who watches for signals."""
    made = interrupt.Stop.__init__

    def make(self: interrupt.Stop, *arguments: Any) -> None:
        made(self, *arguments)
        STOPS.append(self)

    interrupt.Stop.__init__ = make  # type: ignore[method-assign]


def ask_to_stop() -> None:
    """Ask this process to stop; returns once whoever watches for signals has heard it."""
    os.kill(os.getpid(), signal.SIGTERM)
    assert STOPS[-1].requested.wait(30)


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
