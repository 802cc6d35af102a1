"""Processes find each other, and never those of an earlier start, whose words the store of torchrun still holds."""

from __future__ import annotations

import threading
import time

import pytest
from torch.distributed import HashStore

from plusx.errors import RunError
from plusx.launch import Launch
from plusx.training.meeting import meet

SIZE = 3


def met(store: HashStore, late: float = 0.0) -> list[str]:
    """The names that three processes agree on; the first comes so many seconds late."""
    names: dict[int, str] = {}

    def come(rank: int) -> None:
        time.sleep(0 if rank else late)
        names[rank] = meet(store, Launch(rank, SIZE), 20)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in range(SIZE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [names[rank] for rank in range(SIZE)]


def test_all_meet_under_one_name_and_after_a_restart_under_another() -> None:
    store = HashStore()
    first, second = met(store), met(store, late=0.3)  # who comes early finds the name of the start before
    assert len(set(first)) == len(set(second)) == 1
    assert first[0] != second[0]


def test_nobody_is_answered_before_all_have_come() -> None:
    """Else who was answered would begin, and say so in its own way where another one never comes."""
    store, answered = HashStore(), threading.Event()

    def come(rank: int) -> None:
        meet(store, Launch(rank, SIZE), 20)
        if rank == 1:
            answered.set()

    threads = [threading.Thread(target=come, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    assert not answered.wait(0.5)
    come(2)
    for thread in threads:
        thread.join()
    assert answered.is_set()


def test_a_rank_that_does_not_come_is_named_by_the_first_and_a_missing_first_by_the_others() -> None:
    for rank, missing in ((0, 1), (1, 0)):
        with pytest.raises(RunError) as caught:
            meet(HashStore(), Launch(rank, SIZE), 0.2)
        assert caught.value.message == (
            f"Rank {missing} of 3 had not come after 0 s, and no other can begin without it; see what it or its "
            "machine says."
        )
