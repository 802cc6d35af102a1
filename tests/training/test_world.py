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
from toy_training import settings, training

from plusx.errors import DataError
from plusx.launch import Launch, launched
from plusx.training.heartbeat import Bounds
from plusx.training.world import ALONE, World, joined

SIZE = 3


def _said(_: str) -> dict[str, Any]:
    with joined(torch.device("cpu")) as world:
        total = world.add(torch.tensor([1.0, float(world.rank)])).tolist()
        told = world.tell({"from": world.rank})
        once = world.once(lambda: f"done by {world.rank}")
        rows = np.arange(10, dtype=np.float32).reshape(5, 2)[world.mine(5)]
        return {"total": total, "told": told, "once": once, "gathered": world.gather(rows).tolist()} | _refused(world)


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
    }
    assert several.run(__file__, "_said", SIZE, tmp_path) == [expected] * SIZE


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
        self.bounds = Bounds()

    @contextmanager
    def alone(self) -> Iterator[None]:
        self.told.append("alone")
        yield
        self.told.append("with others")


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
