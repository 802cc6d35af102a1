"""Load tests of `plusx serve`, beside ONNX Runtime alone and beside other servers.

    python benchmarks/serve.py peak|latency|overload|slow|memory|sigterm|rivals|all --model M --photos TAR --out FILE

M is an exported model, or `resnet18` or `small`, which are made with random weights. TAR has JPEGs, or is a folder of
them. Every figure is a line that is appended to FILE; the table of all lines is printed at the end. `latency` and
`slow` load a share of the peak, that of the newest line of `peak` in FILE; `overload` measures its own. `memory` counts
in requests, so it takes `--memory-model`. `rivals` needs `--rivals-python`, an interpreter that has LitServe (see
rivals/litserve_server.py). `--server` names another one to be tested as plusx is. `--short` is for trying things:
seconds each, and figures that mean nothing. The client runs on the same cores: what a request costs it stands in
every line.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from serving import endurance, models, speed, tables
from serving.servers import Bare, kinds
from serving.session import SHORT, Lengths, Session, machine

OURS, LEAKING = "plusx", "leaking"
RIVALS = ("plain", "litserve")
table = tables.table


def peak(session: Session) -> None:
    """The peak, in rounds with the bare loop."""
    with Bare(session.model, session.source) as bare:
        speed.peak(session, session.server_name, bare)


def latency(session: Session) -> None:
    """Latencies at 30, 50 and 70 % of the peak."""
    with Bare(session.model, session.source) as bare:
        speed.latency(session, session.server_name, bare, speed.shares(session.peak_of(session.server_name)))


def overload(session: Session) -> None:
    """Twice and ten times the peak."""
    for factor in speed.OVERLOADS:
        speed.overload(session, session.server_name, factor)


def slow(session: Session) -> None:
    """A thousand slow clients."""
    endurance.slow(session, session.server_name, session.peak_of(session.server_name))


def memory(session: Session) -> None:
    """The slope of memory, of plusx and of the control that leaks."""
    small = replace(session, model=session.memory_model, name="")
    for name in (OURS, LEAKING) if session.server_name == OURS else (session.server_name,):
        endurance.memory(small, name)


def sigterm(session: Session) -> None:
    """A hundred signals."""
    endurance.signals(session, session.server_name)


def rivals(session: Session) -> None:
    """Other servers with the same model: peak, latencies at shares of their own peak and of that of plusx, overload."""
    with Bare(session.model, session.source) as bare:
        for name in RIVALS:
            speed.peak(session, name, bare)
            own = speed.shares(session.peak_of(name))
            speed.latency(session, name, bare, own | speed.shares(session.peak_of(OURS), f" of {OURS}'s peak"))
            speed.overload(session, name, 10)


PARTS: dict[str, Callable[[Session], None]] = {
    "peak": peak,
    "latency": latency,
    "overload": overload,
    "slow": slow,
    "memory": memory,
    "sigterm": sigterm,
    "rivals": rivals,
}


def asked() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="+", choices=(*PARTS, "all"))
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--name", default="", help="of the model in the tables; that of the file unless given")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="for models that are made and for what servers print")
    parser.add_argument("--rivals-python", type=Path, default=Path("python"))
    parser.add_argument("--server", default=OURS, choices=(OURS, LEAKING, *RIVALS))
    parser.add_argument("--memory-model", default="small")
    parser.add_argument("--flags", default="", help="more flags of `plusx serve`, in one string")
    parser.add_argument("--largest", type=int, default=16, help="the largest batch of the ideal queue")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="lengths, as in serving/session.py")
    return parser.parse_args()


def lengths_of(wanted: argparse.Namespace) -> Lengths:
    """How long everything takes: as it is, short, and what `--set` says."""
    lengths = SHORT if wanted.short else Lengths()
    pairs = dict(entry.split("=", 1) for entry in wanted.set)
    return replace(lengths, **{name: type(getattr(lengths, name))(value) for name, value in pairs.items()})


def main() -> None:
    """Measure the parts asked for, then print the tables."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end, too
    wanted = asked()
    work = wanted.work or Path(tempfile.mkdtemp(prefix="plusx-serve-"))
    work.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {
        "source": wanted.photos,
        "work": work,
        "out": wanted.out,
        "lengths": lengths_of(wanted),
        "kinds": kinds(wanted.rivals_python),
        "flags": wanted.flags.split(),
        "largest": wanted.largest,
        "server_name": wanted.server,
        "memory_model": models.found(wanted.memory_model, work),
        "machine": machine(),
    }
    session = Session(models.found(wanted.model, work), name=wanted.name, **common)
    for part in PARTS if "all" in wanted.part else wanted.part:
        PARTS[part](session)
    print("\n".join(table([json.loads(line) for line in wanted.out.read_text().splitlines()])))


if __name__ == "__main__":
    main()
