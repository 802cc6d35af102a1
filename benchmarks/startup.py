"""How long a fresh process takes to say something, beside the least it could take.

    python benchmarks/startup.py MODEL PHOTO --rounds 15

`plusx --help` beside a program of one command made with cyclopts, the library that reads the command line, and
`plusx predict MODEL PHOTO` beside `python -c "import torch"`, once as it is and once without the end of the
interpreter, which takes long with PyTorch loaded and which plusx leaves out too. All are started in turn, with files
the operating system has read before. With `--out FILE` the figures are written to it, a line each; then the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from table import row_of

BARE = """from cyclopts import App

app = App(name="bare", help="One command.", help_format="plaintext")


@app.command
def check(data: str, *, quiet: bool = False) -> int:
    "Look at a folder."
    return 0


app()
"""
LIMITS = {"help": 1.3, "predict": 1.25, "predict, ends at once": 1.25}
IMPORT = "import torch"
IMPORT_ALONE = "import os, torch; os._exit(0)"


def pairs(model: str, photo: str, bare: Path) -> dict[str, tuple[list[str], list[str]]]:
    """By name: the command of plusx, and what it is compared with."""
    python, plusx = sys.executable, [sys.executable, "-m", "plusx"]
    predict = [*plusx, "predict", model, photo]
    return {
        "help": ([*plusx, "--help"], [python, str(bare), "--help"]),
        "predict": (predict, [python, "-c", IMPORT]),
        "predict, ends at once": (predict, [python, "-c", IMPORT_ALONE]),
    }


def seconds_of(command: list[str]) -> float:
    """Wall clock of one process, from its start to its end."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def alternately(ours: list[str], theirs: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of both in every round, after one that does not count; who is first changes."""
    found: dict[str, list[float]] = {"plusx": [], "bare": []}
    for number in range(rounds + 1):
        turn = [("plusx", ours), ("bare", theirs)]
        for name, command in reversed(turn) if number % 2 else turn:
            found[name].append(seconds_of(command))
    return {name: seconds[1:] for name, seconds in found.items()}


def table(lines: list[dict[str, Any]]) -> list[str]:
    """A Markdown table: medians with quartiles, and the ratio of the medians."""
    names = {
        "help": ("`plusx --help`", "one command of cyclopts"),
        "predict": ("`plusx predict MODEL PHOTO`", f'`python -c "{IMPORT}"`'),
        "predict, ends at once": ("`plusx predict MODEL PHOTO`", f'`python -c "{IMPORT_ALONE}"`'),
    }
    rows = [row_of("command", "seconds", "beside", "seconds", "ratio", "wanted", "rounds"), row_of(*["---"] * 7)]
    for line in lines:
        ours, theirs = names[line["what"]]
        ratio = statistics.median(line["plusx"]) / statistics.median(line["bare"])
        cells = (ours, _spread(line["plusx"]), theirs, _spread(line["bare"]), f"{ratio:.2f}")
        rows.append(row_of(*cells, f"at most {LIMITS[line['what']]}", len(line["plusx"])))
    return rows


def _spread(seconds: list[float]) -> str:
    low, middle, high = statistics.quantiles(seconds, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Measure the pairs, then print the table."""
    from growth import machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("photo")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder, "bare.py")
        bare.write_text(BARE)
        for what, (ours, theirs) in pairs(wanted.model, wanted.photo, bare).items():
            found = alternately(ours, theirs, wanted.rounds)
            lines.append({"what": what, **found, "machine": machine()})
    if wanted.out:
        wanted.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print("\n".join(table(lines)))


if __name__ == "__main__":
    main()
