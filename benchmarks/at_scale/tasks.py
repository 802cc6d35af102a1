"""What is measured: on some sizes and numbers of processes the constants are fitted, on others the model is checked.

No configuration is in both. A line that comes out says which it was by its "role".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Task = dict[str, Any]
KILO, MEGA = 1 << 10, 1 << 20
GIGABIT = 125e6  # bytes a second
SIZES = {"resnet18": 64, "resnet16 x 0.5": 64, "resnet10 x 0.5": 48}  # px
SMALLER, LARGER = 4, 32  # photos of a step that the cost of computing is fitted on
BASE = "resnet16 x 0.5"


@dataclass(frozen=True)
class Session:
    """`workers` processes that do `tasks` one after another, on one machine or on `machines` that a wire connects."""

    role: str
    workers: int
    tasks: tuple[Task, ...]
    machines: int = 1
    delay: float = 0.0  # seconds of the wire
    bandwidth: float = 0.0  # its bytes a second; 0: as many as go through


def reduce(*sizes: int, seconds: float = 1.5) -> Task:
    """All-reduces of so many bytes."""
    return {"do": "all_reduce", "bytes": sizes, "rounds": 60, "seconds": seconds}


def gather(*sizes: int, seconds: float = 1.5) -> Task:
    """All-gathers of so many bytes from each."""
    return {"do": "all_gather", "bytes": sizes, "rounds": 100, "seconds": seconds}


def step(network: str, batch: int, *, norms: bool = False, together: bool = True, seconds: float = 4.0) -> Task:
    """Training steps of `batch` photos a process; `norms`: batch norm over all of them."""
    told = {"network": network, "size": SIZES[network], "batch": batch, "norms": norms, "together": together}
    return {"do": "step", **told, "rounds": 40, "seconds": seconds}


def fitting() -> Iterator[Session]:
    """What the constants of one machine are fitted on."""
    alone = [step(name, batch, together=False) for name in SIZES for batch in (SMALLER, LARGER)]
    normed = [step(name, LARGER, norms=True, together=False) for name in SIZES]
    yield Session("fit", 1, (*alone, *normed))
    beside = [step(name, LARGER, together=False) for name in SIZES]
    ladder = (KILO, 16 * KILO, 256 * KILO, 4 * MEGA, 48 * MEGA)
    yield Session("fit", 2, (*beside, reduce(*ladder), gather(256, 2 * KILO)))
    yield Session("fit", 8, (reduce(*ladder), gather(256, 2 * KILO)))


def checking() -> Iterator[Session]:
    """What the model is checked on, on one machine."""
    two = [step(name, batch, norms=norms) for name, batch in ((BASE, 16), ("resnet18", 8)) for norms in (False, True)]
    yield Session("check", 2, (*two, step("resnet10 x 0.5", 12, norms=True)))
    messages = (reduce(4 * KILO, 64 * KILO, MEGA, 12 * MEGA), gather(KILO))
    four = (step(BASE, 8), step(BASE, 8, norms=True), step("resnet18", 4))
    yield Session("check", 4, (*messages, *four))
    yield Session("check", 6, (reduce(4 * KILO, MEGA, 12 * MEGA), step(BASE, 8)))
    yield Session("check", 8, (step("resnet10 x 0.5", 8), step("resnet10 x 0.5", 8, norms=True)))


def fitting_wire() -> Iterator[Session]:
    """What is fitted of machines on a wire: what the wire itself costs, and how often a message waits for its delay."""
    yield Session("fit", 2, (reduce(KILO, 64 * KILO, MEGA, 8 * MEGA), gather(256, 2 * KILO)), 2)
    yield Session("fit", 2, (reduce(KILO, 4 * KILO), gather(256)), 2, 2e-3)


def checking_wire() -> Iterator[Session]:
    """What the model is checked on over a wire."""
    messages = reduce(4 * KILO, 256 * KILO, 4 * MEGA)
    plain, normed = step(BASE, 16), step(BASE, 16, norms=True)
    yield Session("check", 2, (messages, plain, normed), 2, 0.5e-3)
    yield Session("check", 2, (messages, plain, normed), 2, 10e-3)
    yield Session("check", 2, (messages, plain), 2, 0.0, GIGABIT)
    yield Session("check", 2, (messages, plain), 2, 0.0, GIGABIT / 10)
    yield Session("check", 2, (messages, plain, normed, step("resnet18", 8)), 2, 2e-3, GIGABIT)
    yield Session("check", 4, (reduce(4 * KILO, MEGA), plain, normed), 4, 0.5e-3, GIGABIT)
