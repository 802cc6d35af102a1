"""T14 and T15: a process of several that is killed, stopped or far behind is named, and the others end in time.

As a program this file is what has imported everything once, and starts the processes of all scenarios by forking.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import several
import torch
import toy_training as toy

from plusx.errors import Error
from plusx.training import checkpoint
from plusx.training.heartbeat import Bounds
from plusx.training.loop import Training, fit
from plusx.training.paths import Paths
from plusx.training.step import State
from plusx.training.world import World, joined

BOUNDS = Bounds(slow=2.5, stopped=1.0, silent=6.0, failed=1.0)
WITHIN = 20.0  # seconds that all processes have to end, on a machine with much else to do; the promise is 30
WAITING = 6.0  # seconds after which the processes of the negative control are still there
SIGNALS = {"kill": signal.SIGKILL, "kill-first": signal.SIGKILL, "stop": signal.SIGSTOP, "unwatched": signal.SIGSTOP}
SIZES = {"kill": 3, "kill-first": 2, "stop": 2, "unwatched": 2, "sleep": 2, "fail": 2, "fit": 2}
AT = 6  # the step at which something happens


def messages(what: str, ready: Path, world: World) -> None:
    """Messages one after another, until something happens."""
    for step in range(10_000):
        world.at(step)
        if step == AT - 1:
            ready.touch()
        if (step, world.rank, what) == (AT, 1, "sleep"):
            time.sleep(60)
        if (step, world.rank, what) == (AT, 1, "fail"):
            raise ValueError("the photos are gone")
        world.add(torch.ones(2))
        time.sleep(0.05)


class Stopping(toy.Photos):
    """Photos of which each process has the whole batch; before step AT the second process is stopped."""

    def __init__(self, ready: Path, world: World) -> None:
        super().__init__()
        self.ready, self.world = ready, world

    def batch(self, step: int) -> toy.Batch:
        if step == AT:
            self.ready.touch()
            if self.world.rank == 1:
                os.kill(os.getpid(), signal.SIGSTOP)
        whole = super().batch(step)
        return Shared(whole.images, whole.targets, whole.indices)


class Shared(toy.Batch):
    @property
    def shares(self) -> tuple[int, ...]:
        return (len(self.images), len(self.images))


def trained(folder: Path, ready: Path, world: World) -> None:
    """The toy training, whose next checkpoint would be far away."""
    how = toy.settings(12, checkpoint_every=1000)
    state = State.fresh(toy.network(), how, world=world)
    one = Training(state, how, Paths(folder, "plusx train --resume"), lambda _: None)
    fit(one, Stopping(ready, world))


@dataclass
class Scenario:
    """Some forked processes, and what became of them."""

    what: str
    folder: Path
    pids: list[int] = field(default_factory=list)
    codes: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0

    def start(self) -> None:
        port = several.free_port()
        self.folder.mkdir()
        self.pids = [self._forked(rank, port) for rank in range(SIZES[self.what])]

    def _forked(self, rank: int, port: int) -> int:
        child = os.fork()
        if child:
            return child
        os.environ |= several.environment(rank, SIZES[self.what], port)
        os.dup2(os.open(self.folder / f"told-{rank}", os.O_CREAT | os.O_WRONLY), 2)
        try:
            with joined(bounds=Bounds(*4 * [1e9]) if self.what == "unwatched" else BOUNDS) as world:
                ready = self.folder / f"ready-{rank}"
                trained(self.folder, ready, world) if self.what == "fit" else messages(self.what, ready, world)
        except Error as error:
            os.write(2, f"plusx: {error.message}\n".encode())
        finally:
            os._exit(1)

    @property
    def ready(self) -> bool:
        return all((self.folder / f"ready-{rank}").exists() for rank in range(SIZES[self.what]))

    def disturb(self) -> None:
        if self.what in SIGNALS:
            os.kill(self.pids[self.what != "kill-first"], SIGNALS[self.what])

    def reap(self, since: float) -> bool:
        """Whether all have ended by now."""
        for rank, pid in enumerate(self.pids):
            if rank not in self.codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                self.codes[rank] = os.waitstatus_to_exitcode(ended[1])
        self.seconds = self.seconds or (time.monotonic() - since if len(self.codes) == len(self.pids) else 0.0)
        return self.seconds > 0

    def told(self) -> dict[str, Any]:
        words = [(self.folder / f"told-{rank}").read_text() for rank in range(len(self.pids))]
        codes = [self.codes.get(rank) for rank in range(len(self.pids))]
        return {"pids": self.pids, "codes": codes, "seconds": self.seconds, "said": words}

    def kill(self) -> None:
        for rank, pid in enumerate(self.pids):
            if rank not in self.codes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _until(seconds: float, reached: Any) -> None:
    until = time.monotonic() + seconds
    while not reached() and time.monotonic() < until:
        time.sleep(0.02)


def main(folder: str) -> None:
    """All scenarios beside each other."""
    torch.set_num_threads(1)
    scenarios = [Scenario(what, Path(folder) / what) for what in SIZES]
    for one in scenarios:
        one.start()
    try:
        _until(60, lambda: all(one.ready for one in scenarios))
        since = time.monotonic()
        for one in scenarios:
            one.disturb()
        watched = [one for one in scenarios if one.what != "unwatched"]
        _until(WITHIN, lambda: sum(one.reap(since) for one in watched) == len(watched))
        time.sleep(max(0.0, since + WAITING - time.monotonic()))
        scenarios[list(SIZES).index("unwatched")].reap(since)
        told = {one.what: one.told() for one in scenarios}
        (Path(folder) / "told.json").write_text(json.dumps(told))
    finally:
        for one in scenarios:
            one.kill()


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of the processes of each scenario."""
    folder = tmp_path_factory.mktemp("scenarios")
    environment = os.environ | {"PYTHONPATH": f"{several.ROOT}:{several.ROOT / 'tests' / 'training'}"}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run([sys.executable, __file__, str(folder)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "told.json").read_text()) | {"folder": str(folder)}


def sentences(said: str) -> list[str]:
    return re.findall(r"plusx: (.*)", said)


@pytest.mark.parametrize(
    ("what", "sentence", "code"),
    [
        ("kill", r"was killed or crashed near step [\d,]+, and no other can go on without it\.", -signal.SIGKILL),
        ("stop", r"was stopped by a signal \(SIGSTOP\) near step [\d,]+ and stood still for", -signal.SIGKILL),
        ("sleep", rf"is alive, but the others have waited \d s for it at step {AT}; if it is", -signal.SIGKILL),
        ("fail", r"ended, and no other can go on without it: ValueError\('the photos are gone'\)", 1),
    ],
)
def test_a_lost_process_is_named_and_all_others_end_in_time(
    what: str, sentence: str, code: int, ends: dict[str, Any]
) -> None:
    """T14 (kill), T15 (stop), one that is alive and does not come, and one that fails by itself."""
    end = ends[what]
    assert end["codes"] == [1, code, 1][: SIZES[what]], end
    assert 0 < end["seconds"] < WITHIN
    said = [sentences(each) for each in end["said"]]
    assert re.match(rf"Rank 1 of {SIZES[what]} \(process {end['pids'][1]} on \S+\) {sentence}", said[0][0]), said
    assert len(said[0]) == 1
    assert said[2:] in ([], [[]]), "what all would say is said by the first"


def test_where_the_first_is_lost_another_one_names_it(ends: dict[str, Any]) -> None:
    """T14: with it goes the store, which it keeps itself where no torchrun does."""
    end = ends["kill-first"]
    assert end["codes"] == [-signal.SIGKILL, 1], end
    assert sentences(end["said"][1])[0].startswith(f"Rank 0 of 2 (process {end['pids'][0]} on ")


def test_the_first_saves_the_last_finished_step_before_it_ends(ends: dict[str, Any]) -> None:
    """T15 within a training: nothing of what is finished is lost."""
    end = ends["fit"]
    assert end["codes"] == [1, -signal.SIGKILL], end
    assert "Rank 1 of 2" in end["said"][0]
    path, skipped = checkpoint.newest_valid(Path(ends["folder"]) / "fit" / "checkpoints")
    assert skipped == []
    assert path is not None
    assert checkpoint.step_of(path) == AT


def test_without_the_watch_the_others_wait_for_a_stopped_process(ends: dict[str, Any]) -> None:
    """The negative control of T15."""
    assert ends["unwatched"]["codes"] == [None, None]


if __name__ == "__main__":
    main(sys.argv[1])
