"""What limits the training of the small networks of CIFAR-10, on one thread and on two.

    python benchmarks/cifar_speed.py > cifar-speed.md   # about ten minutes on a quiet machine; --out keeps the lines

Every case is a process of its own with its number of threads. In each round matrix products, copies, the network's
convolutions alone and the whole step are timed one after another, as `plusx bench` does; medians are told. Beside that:
where the time of a step goes by kind of operation (PyTorch's profiler, own time on the calling thread), what a step
costs besides its photos (a step of one photo, less its share of a whole one), in a second table how fast 3x3
convolutions of few channels are, and in a third what two trainings side by side on one thread each do in the place of
one on two threads: the same seconds for all, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import torch
from table import row_of
from torch import nn

from plusx.bench import DTYPES, Ceilings, Clock, convolutions, cost_of, timed_step
from plusx.config import Config
from plusx.recipes import resolve
from plusx.training import environment
from plusx.training.step import autocast, train_step
from plusx.verbs.rehearsal import noise_batches, start

SHAPES = ((32, 1.0, 128), (16, 0.5, 64))  # px, width, photos a step: the full mode of the lab and its quick one
PACED = 5.0  # seconds for which steps are counted, and TURNS such times
TURNS = 3
CHANNELS = (8, 16, 32, 64, 128)
KINDS = {
    "convolution": ("convolution", "conv2d", "mkldnn", "reorder"),
    "batch norm": ("batch_norm",),
    "ReLU": ("relu", "clamp_min", "threshold"),
    "addition": ("aten::add",),
    "casts and copies": ("aten::copy_", "aten::to", "aten::contiguous", "aten::clone"),
}
CPU = torch.device("cpu")
WARM_UP = 3


def config_of(case: dict[str, Any]) -> Config:
    """The recipe `cifar` for one case."""
    sets = [f"{name}={case[name]}" for name in ("width", "precision")]
    config = resolve({"recipe": "cifar", "model": case["model"], "size": case["size"]}, sets=sets, environment={})
    return config.model_copy(update={"batch_size": case["photos"]})


class Step:
    """A training step of one case on noise, ready to be timed."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.config = config_of(case)
        self.batches = noise_batches(self.config, self.config.size, CPU)
        self.state, self.settings = start(self.config, self.batches, CPU)

    def __call__(self) -> None:
        """One step."""
        train_step(self.state, self.batches.batch(self.state.step), self.settings)

    def parts(self, clock: Clock) -> dict[str, float]:
        """Seconds of its parts."""
        return timed_step(self.state, self.batches, self.settings, clock)


def measure(case: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Every figure of one case; seconds, operations and bytes a second."""
    environment.prepare(CPU, case["threads"])
    step, alone = Step(case), Step(case | {"photos": 1})
    with closing(step.batches), closing(alone.batches):
        return {
            "case": case,
            "machine": environment.record(CPU, fast_math=False),
            "rounds": rounds,
            **timed(case, step, alone, rounds),
            "operations": operations(step),
            "kinds": profiled(step, rounds),
            "channels": {n: by_channels(n, case, Clock(CPU)) for n in CHANNELS},
        }


def timed(case: dict[str, Any], step: Step, alone: Step, rounds: int) -> dict[str, Any]:
    """Medians over rounds of the machine's rates, the step and its convolutions; `alone` is a step of one photo."""
    clock, ceilings = Clock(CPU), Ceilings(CPU, case["precision"])
    with autocast(CPU, case["precision"]):
        layers = convolutions(step.state.model, step.batches.batch(0).images, DTYPES[case["precision"]])
    cost, found = cost_of(step), []
    for _ in range(WARM_UP + rounds):
        seconds = sum(step.parts(clock).values())
        by_layer = [clock.seconds(layer.work) for layer in layers]
        found.append((ceilings.flops(), ceilings.bytes(), seconds, by_layer, clock.seconds(alone)))
    matmul, copy, seconds, by_layer, one = zip(*found[WARM_UP:], strict=True)
    whole, convolved = median(seconds), [median(times) for times in zip(*by_layer, strict=True)]
    return {
        "flops": cost.flops,
        "bytes": cost.bytes,
        "matmul": median(matmul),
        "copy": median(copy),
        "step_seconds": whole,
        "convolution_seconds": sum(convolved),
        "convolution_flops": sum(layer.flops for layer in layers),
        "layers": len(layers),
        "overhead_seconds": max(0.0, median(one) - whole / case["photos"]),
        "stages": stages(step.state.model, layers, convolved),
    }


def operations(step: Step) -> int:
    """How many operations PyTorch is called for in a step."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        step()
    return sum(event.count for event in seen.key_averages() if event.key.startswith("aten::"))


def profiled(step: Step, rounds: int) -> dict[str, float]:
    """Share of a step's own time by kind of operation; what is left is the optimizer, autograd and Python."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        for _ in range(rounds):
            step()
    events = seen.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    shares = dict.fromkeys(KINDS, 0.0)
    for event in events:
        kind = next((kind for kind, names in KINDS.items() if _is(event.key, names)), None)
        if kind is not None:
            shares[kind] += event.self_cpu_time_total / total
    return shares | {"other": 1 - sum(shares.values())}


def _is(operation: str, names: tuple[str, ...]) -> bool:
    """Whether an operation is one of those named; those with :: whole, so that addmm and an update are no addition."""
    return any(operation == name if "::" in name else name in operation for name in names)


def stages(model: nn.Module, layers: list[Any], seconds: list[float]) -> dict[str, float]:
    """Operations a second of the convolutions by their number of output channels."""
    totals: dict[str, list[float]] = {}
    for layer, taken in zip(layers, seconds, strict=True):
        convolution = model.get_submodule(layer.name)
        assert isinstance(convolution, nn.Conv2d)
        total = totals.setdefault(str(convolution.out_channels), [0.0, 0.0])
        total[0], total[1] = total[0] + layer.flops, total[1] + taken
    return {channels: flops / taken for channels, (flops, taken) in totals.items()}


def by_channels(channels: int, case: dict[str, Any], clock: Clock) -> float:
    """Operations a second of a 3x3 convolution, forward and backward, of 128 maps of 16 px with as many channels."""
    shape = (case["photos"], channels, 16, 16)
    maps = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    layer = nn.Sequential(nn.Identity(), nn.Conv2d(channels, channels, 3, padding=1, bias=False))
    layer = layer.to(memory_format=torch.channels_last)
    (head,) = convolutions(layer, maps, DTYPES[case["precision"]])
    backwards = cost_of(head.work).flops  # of the first layer: to its weights alone
    return backwards / clock.median(head.work, 9)


def in_its_own_process(case: dict[str, Any], rounds: int) -> dict[str, Any]:
    """The figures of one case, with as many threads as it says."""
    command = [sys.executable, __file__, "--rounds", str(rounds), "--case", json.dumps(case)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=_threads(case))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _threads(case: dict[str, Any]) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(case["threads"])}


def pace(case: dict[str, Any]) -> float:
    """Photos a second over PACED seconds of steps."""
    environment.prepare(CPU, case["threads"])
    step = Step(case)
    with closing(step.batches):
        for _ in range(WARM_UP):
            step()
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < PACED:
            step()
            done += 1
        return float(done * case["photos"] / (time.perf_counter() - started))


def side_by_side(case: dict[str, Any]) -> tuple[float, float]:
    """Photos a second of one training on two threads, and of two on one thread each; medians over turns."""
    alone, together = [], []
    for _ in range(TURNS):
        alone.append(sum(_paces(case | {"threads": 2}, 1)))
        together.append(sum(_paces(case | {"threads": 1}, 2)))
    return median(alone), median(together)


def _paces(case: dict[str, Any], count: int) -> list[float]:
    command = [sys.executable, __file__, "--pace", json.dumps(case)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_threads(case)) for _ in range(count)]
    return [float(process.communicate()[0]) for process in processes]


def table(lines: list[dict[str, Any]]) -> list[str]:
    """Two Markdown tables: the steps, and convolutions by their channels."""
    head = ("network", "px", "precision", "threads", "images/s", "ms a step", "matrix products, GFLOP/s", "whole step")
    shares = ("convolutions alone", "of the copy rate", "overhead", "us a layer", "operations", *KINDS, "other")
    names = (*head, *shares)
    each = (f"{n} channels" for n in CHANNELS)
    channels = ("precision", "threads", "matrix products, GFLOP/s", *each, "in the network")
    return [
        *(row_of(*names), row_of(*["---"] * len(names)), *map(_step_row, lines)),
        *("", row_of("network", "px", *channels), row_of(*["---"] * (len(channels) + 2)), *map(_channels_row, lines)),
    ]


def _named(line: dict[str, Any]) -> tuple[str, int]:
    case = line["case"]
    return case["model"] + ("" if case["width"] == 1 else f" x {case['width']:g}"), case["size"]


def _step_row(line: dict[str, Any]) -> str:
    case, step, matmul = line["case"], line["step_seconds"], line["matmul"]
    shares = (
        line["flops"] / step / matmul,
        line["convolution_flops"] / line["convolution_seconds"] / matmul,
        line["bytes"] / step / line["copy"],
        line["overhead_seconds"] / step,
    )
    return row_of(
        *(*_named(line), case["precision"], case["threads"], f"{case['photos'] / step:,.0f}", f"{step * 1e3:.1f}"),
        f"{matmul / 1e9:,.0f}",
        *(f"{share:.0%}" for share in shares),
        f"{line['overhead_seconds'] / line['layers'] * 1e6:.0f}",
        f"{line['operations']:,}",
        *(f"{share:.0%}" for share in line["kinds"].values()),
    )


def _channels_row(line: dict[str, Any]) -> str:
    matmul, case = line["matmul"], line["case"]
    inside = ", ".join(f"{channels}: {rate / matmul:.0%}" for channels, rate in line["stages"].items())
    rates = (f"{rate / matmul:.0%}" for rate in line["channels"].values())
    return row_of(*_named(line), case["precision"], case["threads"], f"{matmul / 1e9:,.0f}", *rates, inside)


def main() -> None:
    """Measure every case, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet20", "resnet56"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="where the lines go, as JSON")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--pace", type=json.loads, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.case or wanted.pace:
        print(json.dumps(measure(wanted.case, wanted.rounds) if wanted.case else pace(wanted.pace)))
        return
    cases = [
        {"model": model, "size": size, "width": width, "precision": precision, "threads": threads, "photos": photos}
        for model in wanted.models
        for size, width, photos in SHAPES
        for precision in wanted.precisions
        for threads in wanted.threads
    ]
    lines = []
    for case in cases:
        print(f"{len(lines)} of {len(cases)}: {case}", file=sys.stderr)
        lines.append(in_its_own_process(case, wanted.rounds))
        if wanted.out:
            wanted.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print("\n".join([*table(lines), "", *_beside(wanted.models)]))


def _beside(models: list[str]) -> list[str]:
    names = ("network", "px", "photos a step", "one on two threads, images/s", "two on one thread each", "ratio")
    rows = [row_of(*names), row_of(*["---"] * len(names))]
    for model in models:
        for size, width, photos in SHAPES:
            case = {"model": model, "size": size, "width": width, "precision": "fp32", "photos": photos}
            alone, together = side_by_side(case)
            cells = (*_named({"case": case}), photos, f"{alone:,.0f}", f"{together:,.0f}", f"{together / alone:.2f}")
            rows.append(row_of(*cells))
    return rows


if __name__ == "__main__":
    main()
