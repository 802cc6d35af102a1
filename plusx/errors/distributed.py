"""Sentences about processes that train one network together, where one of them is missing."""

from __future__ import annotations

from plusx.errors import RunError

_WHOLE = (
    "What was saved is whole: torchrun --max-restarts goes on from there by itself; else start the same command "
    "again with --resume."
)


def gone(name: str, step: int) -> RunError:
    """A process has ended without a word: killed, or ended by the system; `name` as `named` gives it."""
    return _lost(f"{name} was killed or crashed near step {step:,}, and no other can go on without it", "rank-gone")


def stopped(name: str, step: int, seconds: float) -> RunError:
    """A process was stopped by a signal and was not continued."""
    return _lost(
        f"{name} was stopped by a signal (SIGSTOP) near step {step:,} and stood still for {seconds:.0f} s, while the "
        "others waited",
        "rank-stopped",
    )


def silent(name: str, step: int, seconds: float) -> RunError:
    """Nothing was heard of a process: it, its machine or the network between stands still."""
    return _lost(
        f"{name} was last heard of {seconds:.0f} s ago, near step {step:,}: it, its machine or the network stands "
        "still",
        "rank-silent",
    )


def slow(name: str, step: int, seconds: float) -> RunError:
    """A process is alive, and the others have waited for it for longer than they are to."""
    return _lost(
        f"{name} is alive, but the others have waited {seconds:.0f} s for it at step {step:,}; if it is only slow, "
        f"allow more with --set rank_seconds={2 * max(1, round(seconds))}",
        "rank-slow",
    )


def failed(name: str, told: str) -> RunError:
    """A process ended with an error of its own, which the others did not meet."""
    return RunError(f"{name} ended, and no other can go on without it: {told}", code="rank-failed")


def not_come(rank: int, size: int, seconds: float) -> RunError:
    """A process that torchrun has started did not get as far as to meet the others."""
    return RunError(
        f"Rank {rank} of {size} had not come after {seconds:.0f} s, and no other can begin without it; see what it or "
        "its machine says.",
        code="rank-not-come",
    )


def launcher_gone(address: str, seconds: float) -> RunError:
    """The store in which processes find each other is gone, with torchrun or with the first process."""
    return _lost(
        f"Nothing was heard for {seconds:.0f} s from {address}, where the processes find each other: torchrun there, "
        "or its machine, is gone",
        "launcher-gone",
    )


def broken(what: str) -> RunError:
    """A message between processes failed, and none of them is known to be missing."""
    return _lost(f"A connection between the processes broke ({what}), and none of them is missing", "connection-broken")


def named(rank: int, size: int, pid: int, machine: str) -> str:
    """How people find the process of a rank."""
    return f"Rank {rank} of {size} (process {pid} on {machine})"


def _lost(what: str, code: str) -> RunError:
    return RunError(f"{what}. {_WHOLE}", code=code)
