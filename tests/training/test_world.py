"""What several processes say to each other, and what one alone does not."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import several
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from toy_training import Photos, settings, training

from plusx.errors import DataError, UsageError, usage
from plusx.launch import Launch, launched
from plusx.training.events import Saved, StepDone, Validated, WeightsDue
from plusx.training.heartbeat import Bounds
from plusx.training.loop import fit
from plusx.training.replica import Replica
from plusx.training.world import ALONE, World, joined

SIZE = 3


def _said(_: str) -> dict[str, Any]:
    with joined(torch.device("cpu")) as world:
        total = world.add(torch.tensor([1.0, float(world.rank)])).tolist()
        told = world.tell({"from": world.rank})
        once = world.once(lambda: f"done by {world.rank}")
        rows = np.arange(10, dtype=np.float32).reshape(5, 2)[world.mine(5)]
        said = {"total": total, "told": told, "once": once, "gathered": world.gather(rows).tolist()} | _refused(world)
        return said | {"failed": _failed(world)} | _averages(world)


def _failed(world: World) -> list[list[Any]]:
    """An error of a kind that is not of every process: met by the first alone, and by the second."""

    def refuse() -> None:
        if world.rank == 1:
            raise usage.too_short(1.0, 5.0, 10)

    found = []
    for do in (lambda: world.once(lambda: _raise(usage.too_short(1.0, 5.0, 10))), lambda: world.alike(refuse)):
        try:
            do()
        except UsageError as error:
            found.append([type(error).__name__, error.message, error.told])
    return found


def _raise(error: Exception) -> None:
    raise error


def _averages(world: World) -> dict[str, Any]:
    """Gradients as they are averaged, and as PyTorch averages them; how many sums were counted."""
    torch.manual_seed(1)
    images, found = torch.randn(world.size, 5, 7), []
    for of_torch in (False, True):
        torch.manual_seed(2)
        model = nn.Linear(7, 3)
        before = world.peers.entered if world.peers else 0
        forward = DistributedDataParallel(model) if of_torch else Replica(model, world).forward
        forward(images[world.rank]).square().sum().backward()
        found.append([] if model.weight.grad is None else model.weight.grad.tolist())
        if not of_torch:
            counted = (world.peers.entered if world.peers else 0) - before
    return {"bits": found[0] == found[1], "counted": counted}


def _refused(world: Any) -> dict[str, str]:
    def refuse() -> None:
        raise DataError("There are no photos.", code="no-photos")

    try:
        world.once(refuse)
    except DataError as error:
        return {"refused": error.message, "code": error.code}
    return {}


def test_processes_add_tell_and_gather_and_share_an_error(tmp_path: Path) -> None:
    expected = {
        "total": [3.0, 3.0],
        "told": {"from": 0},
        "once": "done by 0",
        "gathered": np.arange(10).reshape(5, 2).tolist(),
        "refused": "There are no photos.",
        "code": "no-photos",
        "bits": True,
        "counted": 1,
    }
    said = several.run(__file__, "_said", SIZE, tmp_path)
    failed = [answer.pop("failed") for answer in said]
    assert said == [expected] * SIZE
    short = usage.too_short(1.0, 5.0, 10).message
    own, theirs = ["TooShortError", short], ["UsageError", short]
    assert [once for once, _ in failed] == [[*own, False], [*theirs, True], [*theirs, True]]
    prefixed = ["UsageError", f"rank 1 of 3: {short}"]
    assert [alike for _, alike in failed] == [[*prefixed, False], [*own, True], [*prefixed, True]]


def test_a_copied_network_stays_in_its_world() -> None:
    world = World(0, 2, peers=cast(Any, threading.Lock()))  # which cannot be copied
    assert copy.deepcopy({"world": world})["world"] is world


def test_one_process_is_a_world_in_which_nothing_is_sent() -> None:
    rows = np.arange(4)
    with joined(torch.device("cpu")) as world:
        assert world is ALONE
    assert (ALONE.tell(5), ALONE.once(lambda: 7), ALONE.add(torch.tensor(2.0)).item()) == (5, 7, 2.0)
    assert ALONE.gather(rows) is rows
    assert rows[ALONE.mine(4)].tolist() == [0, 1, 2, 3]


def test_a_process_knows_its_rank_from_what_torchrun_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == Launch()
    told = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (told | {"TORCHELASTIC_RESTART_COUNT": "4"}).items():
        monkeypatch.setenv(name, value)
    assert launched() == Launch(rank=3, size=8, local_rank=1, local_size=2, restarts=4)
    assert not launched().first


class Watch:
    """In place of the watch over others: what it is told."""

    def __init__(self) -> None:
        self.entered, self.told = 0, list[str]()
        self.bounds, self.inside, self.within_steps = Bounds(), 0, False

    @contextmanager
    def alone(self) -> Iterator[None]:
        self.told.append("alone")
        self.inside += 1
        yield
        self.inside -= 1
        self.told.append("with others")

    @contextmanager
    def ended_by(self, _: Any) -> Iterator[None]:
        self.within_steps = True
        yield
        self.within_steps = False

    def at(self, step: int) -> None:
        """A step begins."""


def test_what_the_first_does_while_the_others_wait_is_marked_and_messages_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T15: else a long save, or a long look at the photos, would make a slow process of the first."""
    watch = Watch()
    world = World(0, 2, peers=cast(Any, watch))
    monkeypatch.setattr(dist, "broadcast", lambda *_: None)
    assert world.once(lambda: watch.told.append("does it") or 7) == 7
    assert watch.told == ["alone", "does it", "with others"]
    assert watch.entered == 1
    one = training(tmp_path, settings())
    one.world = world
    one.save()
    assert watch.told[3:] == ["alone", "with others"]
    world.allow(60)
    assert watch.bounds == Bounds(slow=60)


def test_what_only_the_first_does_in_a_training_is_marked_and_the_last_message_is_watched(tmp_path: Path) -> None:
    """T15: whoever hears of a step, of weights or of a checkpoint may write for long, and so may pruning."""
    watch, heard, added = Watch(), set[tuple[type, bool]](), list[bool]()

    class Adding(World):
        def add(self, values: torch.Tensor) -> torch.Tensor:
            added.append(watch.within_steps)
            return values

    how = settings(4, checkpoint_every=2, save_weights_every=1)
    one = training(tmp_path, how, lambda event: heard.add((type(event), watch.inside > 0)))
    one.world = Adding(0, 1, peers=cast(Any, watch))
    photos = Photos()
    fit(one, photos, photos.validate)
    assert heard == {(StepDone, True), (WeightsDue, True), (Validated, True), (Saved, True)}
    assert added == [True]
