"""How fast: the peak beside ONNX Runtime alone, latencies beside the ideal queue, and what overload does."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving import ideal
from serving.client import OK, Outcomes, joined, poisson
from serving.intervals import Estimate, quantile, quantile_estimate, ratio_estimate
from serving.servers import Bare, Server
from serving.session import Session, behind, cost

CONCURRENCIES = (1, 2, 4, 8, 16, 32)
LOADS = (0.3, 0.5, 0.7)
OVERLOADS = (2, 10)
REFUSED = (429, 503)
DEADLINE = 10.0  # seconds, of servers that name none
SETTLED = 2.0
STRETCHES = 4  # into which a load is cut, with the bare loop measured before each

Stretch = tuple[ideal.Measured, Outcomes]
SHARE = 0.99


def peak(session: Session, name: str, bare: Bare | None = None) -> dict[str, Any]:
    """The highest rate of `name` in a closed loop, in rounds that alternate with the bare loop where there is one.

    The bare loop, with decoding in it and with decoding in a thread beside it, has the best of its batch sizes.
    """
    lengths = session.lengths
    batches = _best_batches(bare, lengths.trial) if bare else {}
    rounds: dict[str, list[float]] = {name: [], **{way: [] for way in batches}}
    cpu: dict[str, list[float]] = {way: [] for way in rounds}
    with session.server(name) as server:
        concurrency = _best_concurrency(session, server)
        for _ in range(lengths.rounds):
            for way, batch in batches.items():
                assert bare, "there are batches"
                found = bare.ask(do="rate", batch=batch, seconds=lengths.rate, beside=way == "beside")
                rounds[way].append(found[0])
                cpu[way].append(found[1])
            used = server.cpu()
            outcomes = session.client(server).closed_loop(concurrency, lengths.warm / 2 + lengths.rate)
            rounds[name].append(outcomes.rate(lengths.warm / 2, lengths.warm / 2 + lengths.rate))
            cpu[name].append(1e3 * (server.cpu() - used) / len(outcomes.due))
    ours, costs = rounds.pop(name), {"cpu": cpu.pop(name), "bare_cpu": cpu, "client": cost(outcomes)}
    figures = {"concurrency": concurrency, "rounds": ours, "bare": rounds, "batches": batches} | costs
    return session.say("peak", name, rate=statistics.median(ours), **figures, counts=outcomes.counts())


def _best_batches(bare: Bare, seconds: float) -> dict[str, int]:
    """The batch with which the bare loop is fastest, for both ways of decoding."""

    def rate(batch: int, way: str) -> float:
        return float(bare.ask(do="rate", batch=batch, seconds=seconds, beside=way == "beside")[0])

    return {way: max(ideal.SIZES, key=lambda batch: rate(batch, way)) for way in ("alone", "beside")}


def _best_concurrency(session: Session, server: Server) -> int:
    seconds, warm = session.lengths.trial, session.lengths.trial / 4
    client = session.client(server)
    return max(CONCURRENCIES, key=lambda c: client.closed_loop(c, warm + seconds).rate(warm, warm + seconds))


def service_times(session: Session, bare: Bare) -> ideal.Measured:
    """s(b) of the ideal queue, measured now."""
    seconds = session.lengths.times / STRETCHES
    return ideal.Measured({size: bare.ask(do="times", batch=size, seconds=seconds) for size in ideal.SIZES})


def latency(session: Session, name: str, bare: Bare, rates: dict[str, float]) -> list[dict[str, Any]]:
    """Latencies under Poisson arrivals at each of `rates` (a second, by what they are called), beside the ideal."""
    found = []
    for place, (load, rate) in enumerate(rates.items()):
        with session.server(name) as server:
            stretches = [_stretch(session, server, bare, rate, STRETCHES * place + part) for part in range(STRETCHES)]
        found.append(session.say("latency", name, load=load, **_beside_ideal(session, stretches, place)))
    return found


def _stretch(session: Session, server: Server, bare: Bare, rate: float, seed: int) -> Stretch:
    """What the bare loop takes now, and then what becomes of arrivals: in turns, for the machine changes."""
    service = service_times(session, bare)
    client = session.client(server)
    client.closed_loop(2, session.lengths.warm / STRETCHES)
    due = poisson(rate, session.lengths.warm + session.lengths.load / STRETCHES, seed=seed)
    return service, client.open_loop(due)


def _beside_ideal(session: Session, stretches: Sequence[Stretch], seed: int) -> dict[str, Any]:
    """The figures of one load; the ideal queue gets the same arrivals, those of warming up included."""
    warm = session.lengths.warm
    arrivals = [(outcomes.due, service) for service, outcomes in stretches]
    counted = np.concatenate([due >= warm for due, _ in arrivals])
    greedy = np.concatenate([ideal.latencies(due, service, session.largest, seed) for due, service in arrivals])[
        counted
    ]
    batch, best = ideal.best(arrivals, session.largest, seed)
    outcomes = joined([outcomes for _, outcomes in stretches])
    ours = joined([outcomes.after(warm) for _, outcomes in stretches])
    values = ours.latencies()
    return {
        "rate": len(outcomes.due) / sum(float(due[-1]) for due, _ in arrivals),
        "median": 1e3 * quantile(values, 0.5),
        "p99": _milliseconds(quantile_estimate(values, SHARE)),
        "ideal": _milliseconds(quantile_estimate(greedy, SHARE)),
        "ratio": ratio_estimate(values, greedy, SHARE),
        "largest": session.largest,
        "best_batch": batch,
        "best_ideal": 1e3 * quantile(best[counted], SHARE),
        "best_ratio": ratio_estimate(values, best[counted], SHARE),
        "behind": behind(ours),
        "client": cost(outcomes),
        "counts": ours.counts(),
    }


def _closed_rate(session: Session, name: str) -> float:
    """Answers a second of a server that is started for this."""
    warm, seconds = session.lengths.warm, session.lengths.rate
    with session.server(name) as server:
        return session.client(server).closed_loop(16, warm + seconds).rate(warm, warm + seconds)


def _milliseconds(estimate: Estimate) -> Estimate:
    return Estimate(1e3 * estimate.value, 1e3 * estimate.low, 1e3 * estimate.high, estimate.n)


def shares(peak_rate: float, of: str = "") -> dict[str, float]:
    """The loads at which latencies are measured, in requests a second, by their names."""
    return {f"{share:.0%}{of}": share * peak_rate for share in LOADS}


def overload(session: Session, name: str, factor: float) -> dict[str, Any]:
    """`factor` times the peak: answers within the deadline, how fast the rest is refused, what memory does.

    The peak is measured just before and once more just after, since the machine changes: goodput is a share of the
    mean of both. Counted from SETTLED seconds after the deadline on: a queue that grows without end gives good answers
    until then.
    """
    lengths = session.lengths
    weights: list[int] = []
    peaks = [_closed_rate(session, name)]
    with session.server(name) as server:
        deadline = float(server.limits().get("deadline_seconds", DEADLINE))
        client = session.client(server)
        client.closed_loop(16, lengths.warm + lengths.rate / 2)
        before, cpu = server.weight(), server.cpu()
        begin = deadline + SETTLED
        end = begin + lengths.overload
        client.every(0.25, lambda: weights.append(server.weight()), end)
        outcomes = client.open_loop(poisson(factor * peaks[0], end, seed=0), patience=deadline + 2)
        used = server.cpu() - cpu
    peaks.append(_closed_rate(session, name))
    counted = outcomes.after(begin)
    refusals = (counted.done - counted.sent)[np.isin(counted.status, REFUSED)]
    answers = counted.latencies()[counted.status == OK]
    figures = {
        "factor": factor,
        "peaks": peaks,
        "goodput": outcomes.rate(begin, end, within=deadline) / statistics.mean(peaks),
        "deadline": deadline,
        "refusal": _milliseconds(quantile_estimate(refusals, SHARE)) if len(refusals) else None,
        "answer": _milliseconds(quantile_estimate(answers, SHARE)) if len(answers) else None,
        "weight": before / 1e6,
        "growth": (max(weights) - before) / 1e6,
    }
    costs = {"client": cost(outcomes), "client_cores": outcomes.cpu / end, "server_cores": used / end}
    return session.say("overload", name, **figures, **costs, behind=behind(counted), counts=counted.counts())
