"""The tables of docs/scaling.md, each a function of the lines that were measured."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from table import row_of

from at_scale import bounds, projected
from at_scale.assumed import FIGURES, GPUS_OF_A_MACHINE, NCCL, NVIDIA, figure
from at_scale.constants import Constants, of_lines
from plusx.bench.scaling import Link

Line = dict[str, Any]
COLLECTIONS = (1e8, 1e9, 1e10)
INFERENCE, CORES = Path(__file__).parents[1] / "results" / "inference.jsonl", 2


def header(*cells: str) -> list[str]:
    """The first two lines of a table."""
    return [row_of(*cells), row_of("---", *["---:"] * (len(cells) - 1))]


def error(foretold: float, measured: float) -> str:
    """How far what was foretold is off."""
    return f"{foretold / measured - 1:+.0%}"


def compared(lines: list[Line]) -> list[str]:
    """Whole training steps: foretold and measured, and each error."""
    constants, steps = of_lines(lines), [e for e in lines if e["role"] == "check" and e["do"] == "step"]
    rows = header(
        "network", "processes", "photos each", "batch norm over all", "wire", "foretold", "measured", "off by"
    )
    for line in steps:
        foretold, norms = constants.foretold(line), "yes" if line["norms"] else "no"
        told = (line["network"], line["workers"], line["batch"], norms, _wire(line))
        rows.append(row_of(*told, *(_ms(s) for s in (foretold, line["seconds"])), error(foretold, line["seconds"])))
    return [*rows, "", _summary(constants, steps)]


def _summary(constants: Constants, lines: list[Line]) -> str:
    """How far off the model is, by what processes share."""
    groups: dict[str, list[float]] = {}
    for line in lines:
        off = abs(constants.foretold(line) / line["seconds"] - 1)
        groups.setdefault(_shared(constants, line), []).append(off)
    told = (
        f"{name} {statistics.median(off):.0%}, at worst {max(off):.0%} (n = {len(off)})" for name, off in groups.items()
    )
    return f"Off by, median: {'; '.join(told)}." if groups else "Nothing was measured to check against."


def _shared(constants: Constants, line: Line) -> str:
    cores = "a core for each process" if line["workers"] <= constants.cores else "more processes than cores"
    return cores if line["machines"] == 1 else f"over a wire, {cores}"


def messages(lines: list[Line]) -> list[str]:
    """All-reduces and all-gathers by themselves, foretold and measured."""
    constants = of_lines(lines)
    checked = [e for e in lines if e["role"] == "check" and e["do"] in ("all_reduce", "all_gather")]
    rows = header("message", "bytes", "processes", "wire", "foretold", "measured", "off by")
    for line in checked:
        foretold = constants.foretold(line)
        told = (line["do"].replace("_", "-"), f"{line['bytes']:,}", line["workers"], _wire(line))
        rows.append(row_of(*told, *(_ms(s) for s in (foretold, line["seconds"])), error(foretold, line["seconds"])))
    return [*rows, "", _summary(constants, checked)]


def _wire(line: Line) -> str:
    if line["machines"] == 1:
        return "none"
    rate = f"{line['bandwidth'] * 8 / 1e6:,.0f} Mbit/s" if line["bandwidth"] else "as fast as it goes"
    return f"{line['delay'] * 1e3:g} ms, {rate}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f} ms" if seconds < 0.1 else f"{seconds * 1e3:,.0f} ms"


def fitted(lines: list[Line]) -> list[str]:
    """The constants of this machine."""
    constants, own = of_lines(lines), projected.own(lines)
    rows = header("constant", "value", "fitted on")
    for name, work in constants.work.items():
        value = f"{work.fixed * 1e3:.2f} ms + {work.per_photo * 1e3:.3f} ms a photo"
        rows.append(row_of(f"computing, `{name}`, one core", value, "steps of 4 and of 32 photos, one process"))
    rows.append(
        row_of("two processes, a core each", f"{constants.beside:.2f} times as long", "steps of 32, not together")
    )
    rows.append(row_of("norms of all processes", f"{constants.norms:.2f} times as long", "steps of 32, one process"))
    rows.append(row_of("a message, a core each", _link(constants.free), "two processes, 1 kB to 48 MB"))
    rows.append(row_of("a message, two on a core", _link(constants.crowded), "eight processes on two cores, halved"))
    if constants.wire is not None:
        rows.append(row_of("a message over a wire without delay", _link(constants.wire), "two processes, 1 kB to 8 MB"))
        rows.append(row_of("delays of a wire that a message waits for", f"{constants.trips:.2f}", "messages at 2 ms"))
    rows.append(row_of("backward pass", f"{own.backward:.0%} of a step", "steps of one process"))
    rows.append(row_of("reading a JPEG to 224 px, a core", f"{own.decoded:.0f} photos/s", _decoded(lines)))
    rows.append(row_of("writing a checkpoint", f"{own.written / 1e6:.0f} MB/s", "the largest of three networks"))
    return rows


def _decoded(lines: list[Line]) -> str:
    line = next(line for line in lines if line["do"] == "decode")
    return f"a drawn one of 500 x 375 px and {line['bytes'] / 1e3:.0f} kB"


def _link(link: Link) -> str:
    rate = f"{link.bandwidth / 1e9:.2f} GB/s" if math.isfinite(link.bandwidth) else "any bandwidth"
    return f"{link.delay * 1e6:.0f} µs and {rate}"


def answer(lines: list[Line]) -> list[str]:
    """What a decision needs: efficiency and machine-hours of 8, 64 and 512 GPUs."""
    own = projected.own(lines)
    rows = header(
        "GPUs",
        "network",
        "efficiency",
        "of JPEGs",
        "90 epochs of ImageNet",
        "machine-hours",
        "10^9 photos scored",
        "machine-hours",
        "first limits",
    )
    for gpus in projected.GPUS:
        for name in projected.NETWORKS:
            best = projected.trained(name, gpus, own, projected.OF_A_GPU)
            jpegs = projected.trained(name, gpus, own, projected.OF_A_GPU, projected.How(jpegs=True))
            score = projected.scoring(name, 1e9, gpus // GPUS_OF_A_MACHINE, own)
            times = (_hours(best.hours), _number(best.machine_hours), _hours(score.hours), _number(score.machine_hours))
            limits = f"{jpegs.limit}; {best.limit}; scoring: {score.limit}"
            rows.append(row_of(gpus, name, f"{best.efficiency:.0%}", f"{jpegs.efficiency:.0%}", *times, limits))
    return rows


def training(lines: list[Line]) -> list[str]:
    """Photos of each GPU kept, and of all together."""
    own = projected.own(lines)
    rows = header(
        "network",
        "GPUs",
        "photos a GPU",
        "in a step",
        "step",
        "photos/s",
        "efficiency",
        "90 epochs",
        "machine-hours",
        "read, GB/s",
        "first limit",
    )
    for name in projected.NETWORKS:
        for kept in ("of a GPU", "of all"):
            for gpus in projected.GPUS:
                photos = projected.OF_A_GPU if kept == "of a GPU" else projected.OF_ALL / gpus
                one = projected.trained(name, gpus, own, photos)
                size = (f"{photos:.0f}", f"{photos * gpus:,.0f}", _ms(one.one.seconds), f"{one.rate:,.0f}")
                times = (f"{one.efficiency:.0%}", _hours(one.hours), _number(one.machine_hours))
                rows.append(row_of(name, gpus, *size, *times, f"{one.rate * figure('a photo') / 1e9:.1f}", one.limit))
    return rows


def networks(lines: list[Line]) -> list[str]:
    """What the network between machines and the choice of batch norm change, at 512 GPUs."""
    own, gpus, kinds = projected.own(lines), projected.GPUS[-1], (projected.GATHERED, projected.SUMMED, projected.OWN)
    rows = header(
        "between machines", "network", "photos a GPU", "norm over all, gathered", "summed instead", "own norm"
    )
    for card in projected.CARDS:
        for name in projected.NETWORKS:
            for photos in (projected.OF_A_GPU, projected.OF_ALL / gpus):
                hows = [projected.How(card=card, norm=norm) for norm in kinds]
                shares = (f"{projected.trained(name, gpus, own, photos, how).efficiency:.1%}" for how in hows)
                rows.append(row_of(card, name, f"{photos:.0f}", *shares))
    return rows


def others(lines: list[Line]) -> list[str]:
    """The formulas beside what others have measured on GPUs."""
    own = projected.own(lines)
    rows = header("measured by others", "theirs", "the model's", "source")
    large = projected.cluster(24, "4 x 200 Gbit/s").all_reduce(133_169_160)
    rows.append(row_of("133 MB all-reduced by 24 A100 in three machines", "2.67 ms", _ms(large), f"{NCCL}/issues/119"))
    model = f"{_published(own):.1%}"
    rows.append(row_of("ResNet-50 on 8 A100 beside one, TF32", f"{7248 / 8 / 938:.1%}", model, NVIDIA))
    rows.append(
        row_of("the same in mixed precision", f"{16621 / 8 / 2470:.1%}", model, f"{NVIDIA}; JPEGs decoded on CPUs")
    )
    rows.append(
        row_of("ResNet-50 on 256 GPUs beside 8", "about 90%", f"{_goyal(own):.1%}", "arXiv 1706.02677; other GPUs")
    )
    return rows


def _published(own: projected.Own) -> float:
    """Efficiency on one machine, each GPU with a batch norm of its own."""
    return projected.trained("ResNet-50", 8, own, 256, projected.How(norm=projected.OWN)).efficiency


def _goyal(own: projected.Own) -> float:
    few, many = (projected.trained("ResNet-50", n, own, 32, projected.How(norm=projected.OWN)) for n in (8, 256))
    return many.efficiency / few.efficiency


def scores(lines: list[Line]) -> list[str]:
    """Collections scored."""
    own = projected.own(lines)
    rows = header(
        "photos", "network", "GPUs", "hours", "machine-hours", "photos/s", "read, GB/s", "first limit", "next"
    )
    for photos in COLLECTIONS:
        for name in projected.NETWORKS:
            for gpus in projected.GPUS:
                found = projected.scoring(name, photos, gpus // GPUS_OF_A_MACHINE, own)
                rate = min(found.rates.values())
                further = sorted(found.rates, key=lambda part: found.rates[part])[1]
                told = (f"{found.hours:,.1f}", f"{found.machine_hours:,.0f}", f"{rate:,.0f}")
                rows.append(
                    row_of(
                        f"{photos:.0e}".replace("e+", "e"),
                        name,
                        gpus,
                        *told,
                        f"{rate * figure('a photo') / 1e9:.1f}",
                        found.limit,
                        further,
                    )
                )
    return rows


def processors(_: list[Line]) -> list[str]:
    """Collections scored without GPUs, at the rates that benchmarks/inference.py has measured with decoding."""
    rows = header(
        "network", "photos/s on two cores", *(f"{n:.0e} photos, core-hours".replace("e+", "e") for n in COLLECTIONS)
    )
    lines = [json.loads(line) for line in INFERENCE.read_text().splitlines()]
    for name, network in (("ten minutes, 96 px, four views", "fast"), ("ResNet-18, 224 px", "plain")):
        rates = [line["rate"] for line in lines if (line["network"], line["contender"]) == (network, "plusx")]
        rate = statistics.median(rates)
        hours = (f"{CORES * photos / rate / 3600:,.0f}" for photos in COLLECTIONS)
        rows.append(row_of(name, f"{rate:.0f}", *hours))
    return rows


def limits(lines: list[Line]) -> list[str]:
    """Where each limit bites, by itself, one after another."""
    rows = header("limit", "bites from", "because")
    return rows + [row_of(*limit) for limit in bounds.all_of(projected.own(lines))]


def sources(_: list[Line]) -> list[str]:
    """Where the figures of others come from."""
    return header("assumed", "value", "source") + [
        row_of(n, f"{f.value:,.4g} {f.unit}", f.source) for n, f in FIGURES.items()
    ]


def _hours(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:,.1f} min"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


TABLES: dict[str, Callable[[list[Line]], list[str]]] = {
    "answer": answer,
    "fitted": fitted,
    "compared": compared,
    "messages": messages,
    "training": training,
    "networks": networks,
    "others": others,
    "processors": processors,
    "scores": scores,
    "limits": limits,
    "sources": sources,
}
