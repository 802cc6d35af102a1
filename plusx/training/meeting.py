"""Where processes that torchrun has started find each other: under a name that nobody has used before.

torchrun keeps one store for all starts of a job, and what the processes of an earlier start have written there is still
to be read: addresses at which nobody listens any more. Its count of restarts tells starts apart on one machine; of
several, each counts its own.
"""

from __future__ import annotations

import time
import uuid

from torch.distributed.distributed_c10d import Store

from plusx.errors import distributed as sentences
from plusx.launch import Launch

ARRIVAL = 300.0  # seconds from the first process that has come to the last
_PAUSE = 0.05


def meet(store: Store, launch: Launch, seconds: float = ARRIVAL) -> str:
    """The name under which the processes of this start write to the store; returns when all of them have come.

    Each asks under the newest name and is answered with what it said: what is left of an earlier start answers nobody.
    Raises RunError where one has not come after so many `seconds`.
    """
    until = time.monotonic() + seconds
    token = uuid.uuid4().hex
    if not launch.first:
        return _answered(store, launch, token, until)
    store.set("meeting", token)
    for rank in range(1, launch.size):
        while not store.check([f"{token}/{rank}"]):
            _wait(until, rank, launch.size, seconds)
    for rank in range(1, launch.size):
        store.set(f"{token}/{rank}/answer", store.get(f"{token}/{rank}").decode())
    return token


def _answered(store: Store, launch: Launch, token: str, until: float) -> str:
    """The name under which the first process has answered this one."""
    began = time.monotonic()
    while True:
        if store.check(["meeting"]):
            name = store.get("meeting").decode()
            store.set(f"{name}/{launch.rank}", token)
            answer = f"{name}/{launch.rank}/answer"
            if store.check([answer]) and store.get(answer).decode() == token:
                return name
        _wait(until, 0, launch.size, until - began)


def _wait(until: float, rank: int, size: int, seconds: float) -> None:
    if time.monotonic() > until:
        raise sentences.not_come(rank, size, seconds)
    time.sleep(_PAUSE)
