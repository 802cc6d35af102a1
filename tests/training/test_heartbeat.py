"""T14, T15: how a process is judged by what it says and what the system says of it, on both sides of each bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from plusx.errors import distributed as sentences
from plusx.training import heartbeat
from plusx.training.heartbeat import Beat, Bounds, Process, Sight, Verdict, judged, this_process, watched
from plusx.training.peers import is_of_a_message, sentence

BOUNDS = Bounds(slow=20, stopped=5, silent=10, failed=3)
THERE = Process("there", "another system", 4711, 1, 99)
STEADY = Beat(1, THERE, "training", step=7, entered=30)


def seen(*sights: tuple[float, Beat, str | None], entered: int = 30) -> Verdict | None:
    """What is judged at the last of some sights: the time, the beat, and the state of the process."""
    sight = Sight(sights[0][1], sights[0][0])
    verdict = None
    for now, beat, state in sights:
        sight.see(beat, state, entered, now)
        verdict = judged(sight, BOUNDS, now)
    return verdict


def beating(until: float, **others: object) -> Iterator[tuple[float, Beat, str | None]]:
    """A heart that beats every half second, and nothing else that moves."""
    for count in range(int(2 * until) + 1):
        yield count / 2, replace(STEADY, count=count, **others), ""


def test_a_process_that_beats_and_keeps_up_is_never_given_up() -> None:
    assert seen(*beating(3600)) is None


def test_one_that_is_dead_is_gone_at_once() -> None:
    assert seen((0, STEADY, ""), (0.5, replace(STEADY, count=1), None)) == Verdict("gone", 1, THERE, 7)


@pytest.mark.parametrize(("after", "kind"), [(9.9, None), (10.0, None), (10.1, "silent")])
def test_one_that_is_not_heard_of_is_silent_after_its_bound(after: float, kind: str | None) -> None:
    verdict = seen((0, STEADY, ""), (after, STEADY, ""))
    assert (verdict.kind if verdict else None) == kind


@pytest.mark.parametrize(("after", "kind"), [(5.0, None), (5.1, "stopped")])
def test_one_that_the_system_says_is_stopped_is_given_up_sooner(after: float, kind: str | None) -> None:
    verdict = seen((0, STEADY, "T"), (after, STEADY, "T"))
    assert (verdict.kind if verdict else None) == kind


def test_one_that_was_stopped_and_goes_on_starts_anew() -> None:
    again = replace(STEADY, count=1)
    assert seen((0, STEADY, "T"), (4.0, STEADY, "T"), (4.5, again, "R"), (5.0, again, "T"), (9.9, again, "T")) is None


def test_one_that_is_looked_at_by_a_debugger_is_not_stopped() -> None:
    assert seen((0, STEADY, "t"), (9.0, STEADY, "t")) is None


@pytest.mark.parametrize(("until", "kind"), [(20.0, None), (20.5, "slow")])
def test_one_that_beats_and_does_not_come_is_slow_after_its_bound(until: float, kind: str | None) -> None:
    verdict = seen(*beating(until), entered=31)
    assert (verdict.kind if verdict else None) == kind


@pytest.mark.parametrize("phase", ["starting", "alone"])
def test_one_that_does_what_nobody_else_does_is_waited_for(phase: str) -> None:
    assert seen(*beating(3600, phase=phase), entered=31) is None


def test_the_time_somebody_was_alone_is_not_counted_when_it_comes_back() -> None:
    later = replace(STEADY, count=9999)
    assert seen(*beating(600, phase="alone"), (600.5, later, ""), entered=31) is None


def test_one_that_comes_nearer_is_not_slow() -> None:
    sights = [(now, replace(beat, entered=int(now) // 15), "") for now, beat, _ in beating(200)]
    assert seen(*sights, entered=31) is None


def test_one_that_is_ahead_is_not_slow() -> None:
    assert seen(*beating(3600), entered=29) is None


def test_one_that_stands_still_is_called_stopped_and_not_slow() -> None:
    sights = [*beating(18), *((now, replace(STEADY, count=36), "T") for now in (18.5, 21.0, 23.0))]
    assert seen(*sights, entered=31) is None
    verdict = seen(*sights, (24.0, replace(STEADY, count=36), "T"), entered=31)
    assert verdict is not None
    assert verdict.kind == "stopped"


@pytest.mark.parametrize(("after", "kind"), [(3.0, None), (3.1, "failed")])
def test_one_that_failed_is_given_up_after_all_had_the_time_to_fail_alike(after: float, kind: str | None) -> None:
    failed = replace(STEADY, phase="failed", told="The disk is full.")
    verdict = seen((0, failed, ""), (after, failed, None))
    assert (verdict and (verdict.kind, verdict.told)) == (kind and (kind, "The disk is full."))


def test_one_that_left_in_order_is_not_missed() -> None:
    left = replace(STEADY, phase="left")
    assert seen((0, STEADY, ""), (0.5, left, None), (99, left, None)) is None


def test_a_reader_that_slept_itself_counts_anew() -> None:
    sight = Sight(STEADY, 0.0)
    sight.see(STEADY, "T", 31, 0.0)
    sight.forgive(1000.0)
    sight.see(STEADY, "T", 31, 1000.0)
    assert judged(sight, BOUNDS, 1004.0) is None


def test_whatever_is_lost_at_once_somebody_who_is_left_looks_after_it() -> None:
    assert watched(0, 2) == [1]
    assert watched(2, 3) == [0, 1]
    for first in range(64):
        lost = {(first + place) % 64 for place in range(24)}  # three machines of eight
        assert any(lost.intersection(watched(rank, 64)) for rank in range(64) if rank not in lost)
    assert all(len(watched(rank, 64)) == 8 for rank in range(64))


def test_beats_and_verdicts_are_read_back_as_they_were_written() -> None:
    verdict = Verdict("slow", 1, THERE, 7, 20.5, "")
    assert Beat.from_json(STEADY.to_json().encode()) == STEADY
    assert Verdict.from_json(verdict.to_json().encode()) == verdict


@pytest.fixture
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-S", "-c", "print(end='', flush=True); import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def process_of(pid: int) -> Process:
    return replace(this_process(), pid=pid, parent=os.getpid(), born=heartbeat._born(pid))


def awaited(process: Process, state: str | None) -> bool:
    until = time.monotonic() + 5
    while heartbeat.state_of(process) != state and time.monotonic() < until:
        time.sleep(0.01)
    return heartbeat.state_of(process) == state


@pytest.mark.skipif(not heartbeat._born(os.getpid()), reason="states of processes are read from /proc")
def test_a_process_on_this_machine_is_seen_alive_stopped_and_dead(sleeping: subprocess.Popen[bytes]) -> None:
    other = process_of(sleeping.pid)
    assert awaited(other, "S")
    assert heartbeat.state_of(replace(other, born=other.born + 1)) is None, "another process has its number by now"
    sleeping.send_signal(signal.SIGSTOP)
    assert awaited(other, "T")
    assert heartbeat.state_of(replace(other, place="elsewhere")) == ""
    sleeping.kill()
    assert awaited(other, None), "one that nobody has asked how it ended is dead as well"


@pytest.mark.skipif(not heartbeat._born(os.getpid()), reason="processes are told apart by /proc")
def test_only_a_process_started_beside_this_one_is_ended(
    sleeping: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = replace(process_of(sleeping.pid), parent=os.getppid())
    for other in (
        replace(beside, parent=1),
        replace(beside, place="elsewhere"),
        replace(beside, born=beside.born + 1),
        replace(beside, born=0),
        this_process(),
    ):
        assert not heartbeat.end(other)
    assert sleeping.poll() is None
    assert heartbeat.end(beside)
    assert sleeping.wait(5) == -signal.SIGKILL


WHOLE = (
    "What was saved is whole: torchrun --max-restarts goes on from there by itself; else start the same command again "
    "with --resume."
)


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        (Verdict("gone", 1, THERE, 1200), "was killed or crashed near step 1,200, and no other can go on without it."),
        (
            Verdict("stopped", 1, THERE, 7, 5.4),
            "was stopped by a signal (SIGSTOP) near step 7 and stood still for 5 s, while the others waited.",
        ),
        (
            Verdict("silent", 1, THERE, 7, 10.2),
            "was last heard of 10 s ago, near step 7: it, its machine or the network stands still.",
        ),
        (
            Verdict("slow", 1, THERE, 7, 20.4),
            "is alive, but the others have waited 20 s for it at step 7; if it is only slow, allow more with --set "
            "rank_seconds=40.",
        ),
    ],
)
def test_a_verdict_names_rank_process_and_machine_and_says_what_to_do(verdict: Verdict, told: str) -> None:
    error = sentence(verdict, 8)
    assert error.message == f"Rank 1 of 8 (process 4711 on there) {told} {WHOLE}"
    assert (error.exit_code, error.code) == (1, f"rank-{verdict.kind}")


def test_what_a_process_failed_of_is_told_by_the_others() -> None:
    told = sentence(Verdict("failed", 0, THERE, 7, 3.0, "The disk is full."), 2).message
    expected = "Rank 0 of 2 (process 4711 on there) ended, and no other can go on without it: The disk is full."
    assert told == expected


def test_a_lost_launcher_and_a_broken_connection_are_told() -> None:
    assert sentences.launcher_gone("there:29500", 10.4).message == (
        "Nothing was heard for 10 s from there:29500, where the processes find each other: torchrun there, or its "
        f"machine, is gone. {WHOLE}"
    )
    assert sentences.broken("Connection closed").message == (
        f"A connection between the processes broke (Connection closed), and none of them is missing. {WHOLE}"
    )


def test_errors_of_messages_are_told_from_others() -> None:
    import torch.distributed as dist

    gloo = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"
    assert is_of_a_message(RuntimeError(gloo))
    assert is_of_a_message(dist.DistNetworkError("reset"))
    assert not is_of_a_message(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_of_a_message(ValueError(gloo))
