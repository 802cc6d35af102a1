"""The tables of the load tests, from their lines."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from table import row_of

from serving import wanted

Line = dict[str, Any]


def table(lines: Sequence[Line]) -> list[str]:
    """A Markdown table for every part that was measured, of the newest line of everything."""
    found: list[str] = []
    for part, (title, head, row) in PARTS.items():
        rows = [row_of(*cells) for line in _newest(lines, part) for cells in row(line)]
        if rows:
            found += [*([""] if found else []), title, "", row_of(*head), row_of(*["---"] * len(head)), *rows]
    return found


def _newest(lines: Sequence[Line], part: str) -> list[Line]:
    """One line of everything that differs in server, model, load or factor: the last."""
    kept: dict[tuple[Any, ...], Line] = {}
    for line in lines:
        if line["part"] == part:
            kept[line["model"], line["server"], line.get("load"), line.get("factor")] = line
    return list(kept.values())


def _peak(line: Line) -> list[list[Any]]:
    ours = line["rounds"]
    cells = [f"{line['rate']:.1f} ({min(ours):.1f} to {max(ours):.1f})", line["concurrency"]]
    for way in ("alone", "beside"):
        theirs = line["bare"].get(way)
        if theirs:
            ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
            share = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            cells += [f"{statistics.median(theirs):.1f}, batches of {line['batches'][way]}", share]
        else:
            cells += ["", ""]
    cpu = [f"{statistics.median(values):.1f}" for values in (line["cpu"], *line["bare_cpu"].values())]
    return [[*_names(line), *cells, ", ".join(cpu), len(ours), f"{line['client']:.0f}"]]


def _latency(line: Line) -> list[list[Any]]:
    ideal, best = _between(line["ideal"]), f"{line['best_ideal']:.1f} ms, at most {line['best_batch']} at once"
    cells = [line["load"], f"{line['rate']:.1f}", f"{_number(line['median'], 1)} ms", _between(line["p99"]), ideal]
    ratios = [_between(line["ratio"], "", 2), best, _between(line["best_ratio"], "", 2)]
    return [[*_names(line), *cells, *ratios, f"{line['p99'][3]:,}", _lost(line["counts"])]]


def _overload(line: Line) -> list[list[Any]]:
    refusal = _between(line["refusal"]) if line["refusal"] else "none"
    answer = _between(line["answer"]) if line["answer"] else "none"
    memory = f"{line['weight']:.0f} MB + {max(0.0, line['growth']):.0f}"
    counts = ", ".join(f"{count:,} × {_status(status)}" for status, count in line["counts"].items())
    peaks = ", ".join(f"{peak:.1f}" for peak in line["peaks"])
    return [[*_names(line), f"{line['factor']:g}", peaks, f"{line['goodput']:.0%}", refusal, answer, memory, counts]]


def _slow(line: Line) -> list[list[Any]]:
    found = []
    for kind, limit in wanted.CLOSED_WITHIN.items():
        told = [one["kinds"][kind] for one in line["became"]]
        longest = max([one["longest"] or 0.0 for one in told] + [one["oldest"] for one in told])
        closed = sum(one["closed"] for one in told)
        found.append(f"{longest:.1f} s ({closed:,} closed; wanted {limit:.0f} s)")
    cells = [_between(line["without"]), _between(line["beside"]), _between(line["ratio"], "", 2)]
    cells.append(", ".join(f"{statistics.mean(line['cores'][way]):.2f}" for way in ("without", "beside")))
    return [[*_names(line), *cells, f"{line['without'][3]:,}", *found]]


def _memory(line: Line) -> list[list[Any]]:
    slope = ", ".join(f"{1e3 * value:+.1f}" for value in line["slope"][:3])
    verdict = "holds" if line["passed"] else "leaks"
    cells = [f"{line['requests']:,}", f"{line['seconds']:.0f}", f"{line['weight']:.0f} MB", slope]
    return [[*_names(line), *cells, f"{line['growth']:+.1f} MB (wanted at most {wanted.GROWTH:.0f})", verdict]]


def _sigterm(line: Line) -> list[list[Any]]:
    codes = ", ".join(map(str, line["codes"]))
    cells = [line["n"], f"{line['in_flight']:,}", f"{line['answered']:,}", line["refused"], line["failed"]]
    return [[*_names(line), *cells, codes, f"{line['seconds_median']:.2f}", f"{line['seconds_longest']:.2f}"]]


def _names(line: Line) -> list[str]:
    return [line["model"], line["server"]]


def _between(estimate: Sequence[float | None], unit: str = " ms", digits: int = 1) -> str:
    value, low, high = (_number(number, digits) for number in estimate[:3])
    return f"{value}{unit if value != 'none' else ''} ({low} to {high})"


def _number(value: float | None, digits: int) -> str:
    return "none" if value is None else f"{value:.{digits}f}"


def _lost(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} × {_status(status)}" for status, count in counts.items() if status != "200") or "0"


def _status(status: str) -> str:
    return {"0": "no answer", "-1": "not sent"}.get(status, status)


PARTS: dict[str, tuple[str, tuple[str, ...], Callable[[Line], list[list[Any]]]]] = {
    "peak": (
        "**Peak**, answers a second in a closed loop, medians over rounds with the least and the greatest; ONNX "
        "Runtime in a bare loop of the same round, with decoding in the loop and in a thread beside it: wanted "
        f"is at least {wanted.OF_THE_BARE_LOOP} of it. CPU is that of "
        "all cores, of the server and of both loops.",
        ("model", "server", "peak", "connections", "bare loop", "share of it", "decoding beside", "share of it",
         "CPU, ms a photo", "rounds", "client, µs a request"),
        _peak,
    ),
    "latency": (
        "**Latency** under Poisson arrivals, from when a request was due; p99 with its interval, beside that of the "
        "ideal queue with the same arrivals: wanted is at most "
        f"{wanted.OF_THE_IDEAL} of it. The best ideal takes as many at once as gives it the lowest p99.",
        ("model", "server", "load", "requests/s", "median", "p99", "ideal p99", "ratio", "best ideal p99", "ratio",
         "requests", "not answered"),
        _latency,
    ),
    "overload": (
        "**Overload**: goodput are answers within the deadline, as a share of the peak, which is measured just "
        "before and just after, wanted at least "
        f"{wanted.GOODPUT:.0%}; refusals come {wanted.REFUSED_WITHIN:.0f} ms after they were sent at most; memory "
        f"grows by at most {wanted.OVERLOAD_GROWTH:.0f} MB.",
        ("model", "server", "times the peak", "peaks", "goodput", "refused, p99", "answered, p99", "memory",
         "all requests"),
        _overload,
    ),
    "slow": (
        "**Slow clients**: p99 of healthy ones at 30 % of the peak without and beside a thousand slow ones, the same "
        f"arrivals, wanted is a ratio of at most {wanted.OF_THE_IDEAL}; how long the longest connection of each "
        "kind lived.",
        ("model", "server", "without", "beside", "ratio", "cores of the server", "requests", *wanted.CLOSED_WITHIN),
        _slow,
    ),
    "memory": (
        "**Memory** of all processes over requests of a closed loop, after the first fifth: slope with its interval, "
        "which has to include 0, and growth. `leaking` is the control: the same server, which keeps 400 bytes "
        "a request.",
        ("model", "server", "requests", "seconds", "memory", "slope, kB/s (interval)", "growth", "verdict"),
        _memory,
    ),
    "sigterm": (
        "**SIGTERM** under load: what became of the requests that had been sent and were not answered when it came.",
        ("model", "server", "signals", "in flight", "answered", "refused", "failed", "exit codes",
         "seconds to the exit", "longest"),
        _sigterm,
    ),
}  # fmt: skip
