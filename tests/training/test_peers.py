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
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import several
import torch
import toy_training as toy
from torch import nn
from torch.distributed import TCPStore

from plusx.errors import Error, RunError
from plusx.launch import Launch
from plusx.training import checkpoint
from plusx.training import peers as watch
from plusx.training.heartbeat import BETWEEN, Beat, Bounds, Verdict, this_process
from plusx.training.interrupt import SAVING_SECONDS
from plusx.training.loop import Training, fit
from plusx.training.paths import Paths
from plusx.training.peers import ANSWER, Peers
from plusx.training.replica import Replica
from plusx.training.step import State
from plusx.training.world import World, joined

BOUNDS = {  # large ones are not what the scenario is about, and a machine with much else to do may stand still so long
    "sleep": Bounds(slow=2.5, stopped=60, silent=60, failed=60),
    "plain": Bounds(slow=2.5, stopped=60, silent=60, failed=60),
    "stop": Bounds(slow=60, stopped=1.0, silent=60, failed=60),
    "fit": Bounds(slow=60, stopped=1.0, silent=60, failed=60),
    "fail": Bounds(slow=60, stopped=60, silent=60, failed=1.0),
    "unwatched": Bounds(*4 * [1e9]),
}
KILLED = Bounds(slow=60, stopped=60, silent=6.0, failed=60)  # `silent`: how long a store that is gone is waited for
WITHIN = 60.0  # seconds that all processes have to end, on a machine with much else to do; the promise is 30
WAITING = 6.0  # seconds after which the processes of the negative control are still there
SIGNALS = {"kill": signal.SIGKILL, "kill-first": signal.SIGKILL, "stop": signal.SIGSTOP, "unwatched": signal.SIGSTOP}
SIZES = {"kill": 3, "kill-first": 2, "stop": 2, "unwatched": 2, "sleep": 2, "fail": 2, "fit": 2, "plain": 2}
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


class Plain(nn.Module):
    """A network whose norms send nothing, the forward pass of which hangs once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.hangs = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2)), False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.hangs:
            time.sleep(60)
        answer: torch.Tensor = self.layers(images)
        return answer


def summed(ready: Path, world: World) -> None:
    """Steps in which only gradients are sent, until the second process hangs."""
    model = Plain()
    replica = Replica(model, world)
    for step in range(10_000):
        if step == AT - 1:
            ready.touch()
        model.hangs = (step, world.rank) == (AT, 1)
        world.at(step)
        with replica.part(last=True, apart=False):
            replica.forward(torch.ones(4, 3, 2, 2)).sum().backward()
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
            with joined(bounds=BOUNDS.get(self.what, KILLED)) as world:
                ready = self.folder / f"ready-{rank}"
                if self.what == "fit":
                    trained(self.folder, ready, world)
                elif self.what == "plain":
                    summed(ready, world)
                else:
                    messages(self.what, ready, world)
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
        late = [one.what for one in scenarios if not one.ready]
        assert not late, f"not ready after a minute: {late}"
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
        ("sleep", rf"is alive, but the others have waited \d+ s for it at step {AT}; if it is", -signal.SIGKILL),
        ("plain", rf"is alive, but the others have waited \d+ s for it at step {AT}; if it is", -signal.SIGKILL),
        ("fail", r"ended, and no other can go on without it: ValueError\('the photos are gone'\)", 1),
    ],
)
def test_a_lost_process_is_named_and_all_others_end_in_time(
    what: str, sentence: str, code: int, ends: dict[str, Any]
) -> None:
    """T14 (kill), T15 (stop), one that does not come, to a sum or to gradients, and one that fails by itself."""
    end = ends[what]
    codes = end["codes"]
    if what in ("sleep", "plain") and codes[1] == 1:  # it woke before it was killed, and read that it is given up
        codes[1] = code
    assert codes == [1, code, 1][: SIZES[what]], end
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


class Store:
    """That of torchrun, which answers late when several keys are asked for."""

    def __init__(self, store: Any, asked: threading.Event) -> None:
        self.store, self.asked = store, asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def multi_get(self, keys: list[str]) -> Any:
        self.asked.set()
        time.sleep(0.1)
        return self.store.multi_get(keys)


@pytest.fixture
def store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def peers(store: TCPStore, rank: int, run: str = "run", size: int = 2) -> Peers:
    return Peers(Launch(rank, size), run, Bounds(), f"127.0.0.1:{store.port}")


def test_a_process_that_leaves_while_it_speaks_is_heard_to_have_left(store: TCPStore) -> None:
    """Else the others would find it gone without a word, and end."""
    one, other = peers(store, 0), peers(store, 1)
    one.start()
    asked = threading.Event()
    other._store = Store(other._store, asked)
    other.start()
    assert asked.wait(10)
    other.leave()
    assert Beat.from_json(store.get("plusx/run/1")).phase == "left"
    one.leave()


def test_a_job_is_known_by_what_its_first_start_was_called(store: TCPStore) -> None:
    assert peers(store, 0, "first").job() == peers(store, 0, "again").job() == "first"
    another = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    assert peers(another, 0, "today").job() == "today"


def test_a_process_that_has_met_the_others_and_says_nothing_is_named(
    store: TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = peers(store, 0, size=3), peers(store, 1, size=3)
    monkeypatch.setattr(watch, "FIRST_BEAT", timedelta(seconds=0.2))
    with pytest.raises(RunError, match=r"^Rank 2 of 3 had not come after 0 s, and no other can begin without it; "):
        one.start()


@pytest.mark.parametrize(("lost", "finder", "tells"), [(2, 1, [0]), (0, 2, [2])])
def test_one_of_those_that_are_left_tells_the_sentence(
    lost: int, finder: int, tells: list[int], store: TCPStore
) -> None:
    verdict = Verdict("gone", lost, this_process(), 5, by=finder)
    left = [rank for rank in range(3) if rank != lost]
    assert [rank for rank in left if peers(store, rank, size=3)._sentence_of(verdict)] == tells


def test_a_connection_that_breaks_in_another_process_is_told_by_the_first(
    store: TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was ended without a word, and then called killed."""
    monkeypatch.setattr(watch, "AT_ONCE", 0.2 - Bounds().silent)
    monkeypatch.setattr(watch, "ENDING", 0.0)
    told: dict[int, str | None] = {}
    both, ended = [peers(store, rank) for rank in (0, 1)], [threading.Event(), threading.Event()]
    for rank, one in enumerate(both):
        one._end = partial(_note, told, rank, ended[rank])
        one.start()
    both[1].look(RuntimeError("[/x/third_party/gloo/gloo/transport/tcp/pair.cc:1] Connection closed by peer"))
    assert all(event.wait(10) for event in ended)
    assert told[1] is None
    assert told[0] is not None
    assert told[0].startswith("A connection between the processes broke ([/x/third_party/gloo/")


def _note(told: dict[int, str | None], rank: int, ended: threading.Event, what: str | None) -> None:
    told.setdefault(rank, what)
    ended.set()


def test_the_bounds_and_what_comes_after_them_stay_within_what_is_promised() -> None:
    """30 s: noticed by one, told to the others, who save what is finished before they end."""
    until_told = BETWEEN + ANSWER.total_seconds() + 2 * BETWEEN
    assert max(Bounds().slow, Bounds().silent) + BETWEEN + until_told + SAVING_SECONDS <= 30


def test_without_the_watch_the_others_wait_for_a_stopped_process(ends: dict[str, Any]) -> None:
    """The negative control of T15."""
    assert ends["unwatched"]["codes"] == [None, None]


if __name__ == "__main__":
    main(sys.argv[1])
