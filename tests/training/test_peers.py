"""T14 and T15: a process of several that is killed, stopped or far behind is named, and the others end in time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import several
import torch

from plusx.errors import Error
from plusx.training.heartbeat import Bounds
from plusx.training.world import joined

SIZE = 3
BOUNDS = Bounds(slow=1.5, stopped=1.0, silent=4.0, failed=0.5)
PROMISED = 30.0  # seconds until all have ended
WITHIN = 12.0  # with the bounds above


def _working(argument: str) -> str:
    """Messages one after another; `argument`: the folder of process numbers, what happens, and "unwatched" perhaps."""
    folder, what, *unwatched = argument.split()
    bounds = Bounds(1e9, 1e9, 1e9, 1e9) if unwatched else BOUNDS
    try:
        with joined(torch.device("cpu"), bounds) as world:
            for step in range(10_000):
                world.at(step)
                if step == 5:
                    (Path(folder) / f"pid-{world.rank}").write_text(str(os.getpid()))
                if (step, world.rank, what) == (8, 1, "sleep"):
                    time.sleep(60)
                if (step, world.rank, what) == (8, 1, "fail"):
                    raise ValueError("the photos are gone")
                world.add(torch.ones(2))
                time.sleep(0.01)
    except Error as error:
        os.write(2, f"plusx: {error.message}\n".encode())
        os._exit(error.exit_code)
    return "ended"


def _started(folder: Path, what: str) -> tuple[list[subprocess.Popen[bytes]], int]:
    """Three processes at work, and the number of that with rank 1."""
    processes = several.start(__file__, "_working", SIZE, folder, f"{folder} {what}")
    until = time.monotonic() + 60
    while not all((folder / f"pid-{rank}").exists() for rank in range(SIZE)):
        assert time.monotonic() < until, "the processes did not begin"
        time.sleep(0.02)
    time.sleep(0.2)
    return processes, processes[1].pid


def _ended(processes: list[subprocess.Popen[bytes]], within: float) -> list[tuple[int, str]]:
    """Exit code and last words of each."""
    until = time.monotonic() + within
    ends = []
    for process in processes:
        _, told = process.communicate(timeout=max(0.1, until - time.monotonic()))
        ends.append((process.returncode, told.decode()))
    return ends


@pytest.mark.parametrize(
    ("what", "number", "sentence", "code"),
    [
        ("kill", signal.SIGKILL, r"was killed or crashed near step \d+, and no other", -signal.SIGKILL),
        ("stop", signal.SIGSTOP, r"was stopped by a signal \(SIGSTOP\) near step \d+ and stood", -signal.SIGKILL),
        ("sleep", None, r"is alive, but the others have waited \d+ s for it at step 8; if", -signal.SIGKILL),
        ("fail", None, r"ended, and no other can go on without it: ValueError\('the photos are gone'\)", 1),
    ],
)
def test_a_lost_process_is_named_by_all_others_which_end_in_time(
    what: str, number: signal.Signals | None, sentence: str, code: int, tmp_path: Path
) -> None:
    """T14 (kill) and T15 (stop), slow, and one that fails by itself."""
    processes, lost = _started(tmp_path, what)
    if number is not None:
        os.kill(lost, number)
    ends = _ended(processes, WITHIN)
    assert [code for code, _ in ends] == [1, code, 1], ends
    said = [re.findall(r"plusx: (.*)", told) for _, told in ends]
    assert re.match(rf"Rank 1 of 3 \(process {lost} on \S+\) {sentence}", said[0][0]), said
    assert len(said[0]) == 1
    assert said[2] == [], "what all would say is said by the first"


def test_without_the_watch_the_others_wait_for_a_stopped_process(tmp_path: Path) -> None:
    """The negative control of T15."""
    processes, lost = _started(tmp_path, "stop unwatched")
    os.kill(lost, signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        _ended(processes, 6.0)
    for process in processes:
        process.kill()
        process.communicate()
