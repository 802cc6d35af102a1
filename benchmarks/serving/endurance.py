"""How a server ends and endures: slow clients beside healthy ones, memory over many requests, SIGTERM under load."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from serving import wanted
from serving.client import OK, Client, Outcomes, poisson
from serving.intervals import quantile_estimate, ratio_estimate, slope_estimate
from serving.servers import Server
from serving.session import Session, cost

EACH = 250  # slow clients of each kind
SETTLE = 3.0  # seconds in which the slow clients connect
SHARE, HEALTHY = 0.99, 0.3  # the quantile; the load of the healthy clients, of the peak
CONCURRENCY = 8


def slow(session: Session, name: str, peak_rate: float) -> dict[str, Any]:
    """Latencies of healthy clients at 30 % of the peak with 1,000 slow ones and without, in turn, the same arrivals."""
    lengths = session.lengths
    due = poisson(HEALTHY * peak_rate, lengths.warm + lengths.slow, seed=0)
    values: dict[bool, list[Any]] = {True: [], False: []}
    became: list[dict[str, Any]] = []
    counts: list[dict[str, int]] = []
    cores: dict[bool, list[float]] = {True: [], False: []}
    for number in range(lengths.slow_rounds):
        for crowded in (True, False) if number % 2 else (False, True):
            with session.server(name) as server:
                used = server.cpu()
                outcomes, told = _beside(session, server, due, crowded)
                cores[crowded].append((server.cpu() - used) / float(due[-1]))
            values[crowded].append(outcomes.after(lengths.warm).latencies())
            counts.append(outcomes.counts())
            became += [told] if told else []
    without, beside = (np.concatenate(values[crowded]) for crowded in (False, True))
    p99 = {way: _milliseconds(found) for way, found in (("without", without), ("beside", beside))}
    more = {"became": became, "counts": counts, "cores": {"without": cores[False], "beside": cores[True]}}
    return session.say("slow", name, ratio=ratio_estimate(beside, without, SHARE), **p99, **more)


def _beside(session: Session, server: Server, due: Any, crowded: bool) -> tuple[Outcomes, dict[str, Any] | None]:
    client = session.client(server)
    client.closed_loop(2, session.lengths.warm)
    if not crowded:
        return client.open_loop(due), None
    seconds = SETTLE + float(due[-1])
    command = [sys.executable, str(Path(__file__).with_name("slow.py")), *map(str, (*server.address, seconds, EACH))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        time.sleep(SETTLE)
        outcomes = client.open_loop(due)
        return outcomes, json.loads(process.communicate()[0])


def _milliseconds(values: Any) -> list[float]:
    value, low, high, n = quantile_estimate(values, SHARE)
    return [1e3 * value, 1e3 * low, 1e3 * high, n]


def memory(session: Session, name: str) -> dict[str, Any]:
    """Resident memory over the requests of a closed loop: its slope by time, after the first fifth, and its growth."""
    times: list[float] = []
    weights: list[float] = []
    lengths = session.lengths
    with session.server(name) as server:
        client = session.client(server)
        rate = client.closed_loop(CONCURRENCY, lengths.rate).rate(lengths.rate / 4, lengths.rate)
        seconds = 1.1 * lengths.requests / rate

        def weigh() -> None:
            times.append(client.now())
            weights.append(server.weight() / 1e6)

        client.every(max(0.25, seconds / 600), weigh, seconds)
        outcomes = client.closed_loop(CONCURRENCY, seconds)
    when, what = np.array(times), np.array(weights)
    settled = when >= seconds / 5
    slope = slope_estimate(when[settled], what[settled])
    return session.say("memory", name, **_verdict(what[settled], slope), requests=len(outcomes.due), seconds=seconds,
                       weight=float(what[-1]), counts=outcomes.counts(), client=cost(outcomes))  # fmt: skip


def _verdict(weights: Any, slope: Any) -> dict[str, Any]:
    """Slope in MB a second; growth in MB, between the means of the first and the last tenth."""
    tenth = max(1, len(weights) // 10)
    growth = float(weights[-tenth:].mean() - weights[:tenth].mean())
    passed = bool(slope.low <= 0 and growth <= wanted.GROWTH)
    return {"slope": slope, "growth": growth, "passed": passed}


def signals(session: Session, name: str) -> dict[str, Any]:
    """SIGTERM while so many requests are in flight, again and again: what becomes of those, exit codes and times.

    In flight is a request whose last byte the kernel had before the signal was sent, and whose answer had not come.
    What is sent later may be refused or lose its connection.
    """
    chance = random.Random(0)
    found: list[dict[str, Any]] = []
    for number in range(session.lengths.signals):
        flags = ("--queue", str(2 * session.lengths.in_flight))
        with session.server(name, *flags) as server:
            found.append(_ended(session.client(server), server, session.lengths, 0.5 + chance.random()))
        if found[-1]["failed"] or found[-1]["code"]:
            print(f"signal {number}: {found[-1]}", file=sys.stderr, flush=True)
    total = {key: sum(one[key] for one in found) for key in ("in_flight", "answered", "refused", "failed", "later")}
    seconds = sorted(one["seconds"] for one in found)
    codes = sorted({one["code"] for one in found}, key=str)
    middle, last = seconds[len(seconds) // 2], seconds[-1]
    return session.say("sigterm", name, n=len(found), **total, codes=codes, seconds_median=middle, seconds_longest=last)


def _ended(client: Client, server: Server, lengths: Any, moment: float) -> dict[str, Any]:
    """One signal, `moment` seconds into a load."""
    ends: list[float] = []
    killed: list[float] = []

    def kill() -> None:
        killed.append(client.now())
        os.kill(server.process.pid, signal.SIGTERM)

    def watch() -> None:
        if killed and not ends and server.process.poll() is not None:
            ends.append(client.now())

    client.at(moment, kill)
    client.every(0.01, watch, moment + 60)
    outcomes = client.closed_loop(lengths.in_flight, moment + 1.0, patience=60)
    code = _exit_code(server)
    seconds = (ends[0] if ends else client.now()) - killed[0]
    return in_flight(outcomes, killed[0]) | {"code": code, "seconds": seconds}


def _exit_code(server: Server) -> int | None:
    try:
        return server.process.wait(30)
    except subprocess.TimeoutExpired:
        return None


def in_flight(outcomes: Outcomes, moment: float) -> dict[str, int]:
    """What became of the requests that were in flight at `moment`, and how many were sent later."""
    there = (outcomes.sent < moment) & ~(outcomes.done <= moment)
    status = outcomes.status[there]
    answered, refused = int((status == OK).sum()), int(np.isin(status, (429, 503)).sum())
    return {
        "in_flight": int(there.sum()),
        "answered": answered,
        "refused": refused,
        "failed": int(there.sum()) - answered - refused,
        "later": int((outcomes.due >= moment).sum()),
    }
