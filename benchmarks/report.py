"""Write docs/benchmarks.md, and the tables of docs/scaling.md, from the lines that are left in benchmarks/results/.

    python benchmarks/report.py            # or with --check: only say whether the page is up to date

A benchmark writes one JSON line per figure as it measures it; whoever wants the figure in the page copies the file
to benchmarks/results/ under the benchmark's name. Nothing in the page is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu
import growth
import inference
import limits
import peers
import scoring
import startup
import time_to_accuracy
from at_scale import page as scaling
from serving import tables as serving

Lines = list[dict[str, Any]]
RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `python benchmarks/report.py` from the lines in `benchmarks/results/`. Each command prints the same table.
"""


@dataclass(frozen=True)
class Report:
    """One section: its title, what it says, the command that measures it, and how its lines become a table."""

    name: str
    title: str
    text: str
    command: str
    table: Callable[[Lines], list[str]]

    def section(self) -> str:
        """The section, or nothing where nothing was measured yet."""
        path = RESULTS / f"{self.name}.jsonl"
        if not path.exists():
            return ""
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        body = "\n".join(self.table(lines))
        return f"\n## {self.title}\n\n{self.text}\n\n    {self.command}\n\n{machines(lines)}\n\n{body}\n"


def machines(lines: Lines) -> str:
    """The machines and versions of all lines, each said once."""
    found = dict.fromkeys(_machine(line["machine"]) for line in lines if "machine" in line)
    return " ".join(f"Measured on {machine}." for machine in found)


def _machine(m: dict[str, Any]) -> str:
    versions = f"plusx {m['plusx']}, PyTorch {m['torch']}, Python {m['python']}"
    return f"{m['processor']} ({m['cores']} cores, {m['threads']} threads, device {m['device']}), {versions}"


REPORTS = (
    Report(
        "gpu",
        "On a GPU",
        "The same photos, one in eight locked away for testing; warm trainings start from decoded photos in a process "
        'that has trained before. "±" is the standard deviation between runs.',
        "python benchmarks/gpu.py 'shards/*.tar' OUT --minutes 9",
        gpu.table,
    ),
    Report(
        "time_to_accuracy",
        "Time to accuracy",
        "Kaggle's Dogs vs Cats at 160 px, from nothing, cold cache, decoding included; one photo in eight locked away "
        'for testing, by content, and nothing chosen on it. "±" is the standard deviation between seeds.',
        "python benchmarks/time_to_accuracy.py 'dogs-vs-cats/*.tar' WORK --times 45s 60s 90s 3m 5m 10m 60m "
        "--seeds 0 1 2",
        time_to_accuracy.table,
    ),
    Report(
        "limits",
        "Close to the limit",
        "A training step on noise beside the rate of matrix products and copies of the same round, medians over "
        'rounds. "Convolutions alone" are forward and backward of all of a network\'s convolutions at their shapes; '
        "bytes are what all operations read and write, caches left aside; the last columns are where a step's time "
        "goes.",
        "python benchmarks/limits.py --out benchmarks/results/limits.jsonl",
        limits.table,
    ),
    Report(
        "growth",
        "Growth",
        "What a photo costs when there are more of them: distinct tiny pictures in tars of ten thousand, each stage in "
        "a process of its own after what it builds on: median, fastest and slowest of n rounds, or the only one; the "
        "peak is that of the whole process, the listing and the hashes it works on included. Below, where it was "
        "measured: a training from its command to its first batch with no cache to decode into, from such tars and of "
        "shards with an index of so many photos (simulated: a thousand real ones repeat); memory there is the most "
        "that was added to what imports had taken, without that of files, which the operating system can take back.",
        "python benchmarks/growth.py WORK --photos 1000 10000 100000 1000000",
        growth.table,
    ),
    Report(
        "startup",
        "Start",
        "Seconds of a whole process, median and quartiles, started in turn with what it is compared with.",
        "python benchmarks/startup.py MODEL PHOTO --rounds 15 --out benchmarks/results/startup.jsonl",
        startup.table,
    ),
    Report(
        "peers",
        "Beside what one would pick instead",
        "The same photos of Kaggle's Dogs vs Cats at 160 px, the same cores and minutes, nothing pretrained; each with "
        "its documented defaults and with its best sensible settings, none of them tuned on these photos. A process "
        "has the minutes given, imports and decoding included; schedules are gone through once in that time. "
        "The others' validation does not count, that of plusx does. One evaluator counts the accuracy, from the "
        "probabilities each wrote for the photos that were locked away, one in eight; the times to an accuracy are by "
        "each one's own validation, after each epoch.",
        "python benchmarks/peers.py 'dogs-vs-cats/*.tar' WORK ENVS --minutes 5 --seeds 0",
        peers.table,
    ),
    Report(
        "inference",
        "Inference",
        "`Classifier.predict_many` from JPEG files of 160 px to probabilities, decoding and the start of decoding "
        "processes included, beside other ways to run the same network on the same photos and cores; every process has "
        "loaded its network and warmed up. `plusx` is as users get it; the others have the best batch, number of "
        "DataLoader workers and decoder of a short trial. `fast` is the network of ten minutes here, at 96 px and "
        "answering by four views, `plain` a ResNet-18 at 224 px with one. Rates are medians over rounds, the share of "
        "plusx's rate is that within one round, with its least and greatest; answers are compared with those of "
        "PyTorch in float32. ONNX Runtime 1.32.0, OpenVINO 2026.4.1.",
        "python benchmarks/inference.py PHOTOS WORK --env ENV --models fast=MODEL plain=MODEL",
        inference.table,
    ),
    Report(
        "scoring",
        "Scoring",
        "`plusx predict --parquet` by the local engine and by Ray with one and with more actors, each a process of its "
        "own for half of the shards and then for all of them: medians over rounds. What the second takes more is what "
        "photos cost, the rest of the first is the start (interpreter, Ray, model). Where the table says so, a worker "
        "was killed with a block in hand. Every row is compared with that of the local engine, bit by bit.",
        "python benchmarks/scoring.py MODEL SHARD SHARD SHARD SHARD --actors 1 2 "
        "--out benchmarks/results/scoring.jsonl",
        scoring.table,
    ),
    Report(
        "serve",
        "Serving",
        "`plusx serve` on the cores that the client shares, JPEGs of photos over HTTP on connections that are kept. "
        "Arrivals are Poisson's and wait for nothing; a latency counts from when its request was due. The ideal queue "
        "has the same arrivals, one server that is both cores, first come first served, batches of what waits up to "
        "its largest, and times that the bare loop took for so many photos, decoding included: nothing else costs it "
        "anything. A p99 has a binomial interval, a ratio one from blocks of neighbouring requests that are drawn "
        'again. "none" is a request without an answer, or an end of an interval that so few requests do not have. '
        "LitServe batches up to 8 photos that come within 5 ms; `plain` is a FastAPI handler without any of that.",
        "python benchmarks/serve.py all --model resnet18 --photos PHOTOS --out benchmarks/results/serve.jsonl "
        "--rivals-python ENV/bin/python",
        serving.table,
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with --check say whether they are what the lines make; 1 where one is not."""
    pages = {PAGE: HEAD + "".join(report.section() for report in REPORTS)}
    pages[scaling.PAGE] = scaling.written(scaling.PAGE.read_text())
    stale = [path for path, page in pages.items() if not path.exists() or path.read_text() != page]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.name} is stale; run `make docs`", file=sys.stderr)
        return int(bool(stale))
    for path in stale:
        path.write_text(pages[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
