"""How near a training step comes to what this machine can do: `plusx bench` for what the recipes train.

    python benchmarks/limits.py --out benchmarks/results/limits.jsonl

In every round of `plusx bench` matrix products, copies, the network's convolutions alone and the training step are
timed one after another; shares are of the matrix products of the same round. One line per case goes to FILE; the table
is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from table import row_of

CASES: dict[str, tuple[str, ...]] = {
    "small": ("--set=scale=small",),
    "medium": ("--set=scale=medium", "--set=sizes=[[0.9, 0.8], [0.1, 1.0]]"),
    "large": ("--set=scale=large", "--set=sizes=[[0.9, 0.83], [0.1, 1.0]]"),
    "huge": ("--set=scale=huge", "--set=sizes=[]"),
    "plain ResNet-18": ("--model=resnet18", "--size=128"),
}


def measure(name: str, precision: str, rounds: int) -> dict[str, Any]:
    """The figures of one case, by the command in a process of its own."""
    command = [sys.executable, "-m", "plusx", "bench", *CASES[name], precision, f"--rounds={rounds}", "--json", "-q"]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {"case": name, **found}


def table(lines: list[dict[str, Any]]) -> list[str]:
    """A Markdown table, one row per case and precision."""
    parts = tuple(lines[0]["seconds"]) if lines else ()
    head = ("what", "px, photos a step", "precision", "GFLOP, MB a step", "images/s", "matrix products, GFLOP/s")
    shares = ("convolutions alone", "whole step", "of the copy rate")
    rows = [row_of(*head, *shares, *parts, "rounds"), row_of(*["---"] * (len(head) + len(shares) + len(parts) + 1))]
    return rows + [_row(line) for line in lines]


def _row(line: dict[str, Any]) -> str:
    cost, step = line["cost"], line["step_seconds"]
    return row_of(
        f"{line['case']} (`{line['network']}`)",
        f"{line['size']}, {line['batch_size']}",
        line["precision"],
        f"{cost['flops'] / 1e9:.0f}, {cost['bytes'] / 1e6:,.0f}",
        f"{line['images_per_second']:.0f}",
        f"{line['matmul'] / 1e9:.0f}",
        *(f"{share:.0%}" for share in (line["convolution_share"], line["share"], cost["bytes"] / step / line["copy"])),
        *(f"{seconds / step:.1%}" for seconds in line["seconds"].values()),
        line["rounds"],
    )


def main() -> None:
    """Measure every case, write the lines, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"], help="bf16 needs a machine that has it")
    parser.add_argument("--rounds", type=int, default=15)
    wanted = parser.parse_args()
    flags = [f"--set=precision={precision}" for precision in wanted.precisions]
    lines = [measure(name, flag, wanted.rounds) for name in wanted.cases for flag in flags]
    wanted.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print("\n".join(table(lines)))


if __name__ == "__main__":
    main()
