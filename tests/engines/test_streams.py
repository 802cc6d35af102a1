"""Batches computed side by side come back in order, and leave the process as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from plusx.engines.streams import side_by_side


def test_answers_come_in_the_order_of_their_batches_though_the_first_takes_longest() -> None:
    others_are_done = threading.Event()

    def compute(batch: int) -> int:
        if batch == 0:
            assert others_are_done.wait(10)
        if batch == 2:
            others_are_done.set()
        return 10 * batch

    batches = ((f"batch {n}", n) for n in range(5))
    assert list(side_by_side(compute, batches, 2)) == [(f"batch {n}", 10 * n) for n in range(5)]


def test_no_more_is_read_ahead_than_there_are_streams_and_one() -> None:
    read: list[int] = []

    def batches() -> Iterator[tuple[int, int]]:
        for n in range(9):
            read.append(n)
            yield n, n

    answers = side_by_side(lambda batch: batch, batches(), 2)
    assert next(answers) == (0, 0)
    assert read == [0, 1, 2]
    answers.close()  # type: ignore[attr-defined]
    assert read == [0, 1, 2]


@pytest.mark.parametrize(("threads", "share"), [(2, 1), (5, 2), (1, 1)])
def test_each_stream_has_its_share_of_threads_and_the_caller_keeps_them_all(threads: int, share: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        counts = dict(side_by_side(lambda _: torch.get_num_threads(), [(n, n) for n in range(4)], 2))
        assert counts == dict.fromkeys(range(4), share)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_what_fails_in_a_stream_is_raised_where_the_answer_was_due() -> None:
    answers = side_by_side(lambda batch: 1 // batch, [("good", 1), ("bad", 0)], 2)
    assert next(answers) == ("good", 1)
    with pytest.raises(ZeroDivisionError):
        next(answers)
