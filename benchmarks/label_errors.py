"""How many of the publicly known bad labels of Dogs vs Cats `check --labels` ranks among its first.

    python benchmarks/label_errors.py DATA --out FOLDER [--time 60m] [--folds 5] [--first 200]

DATA are Kaggle's training photos (or some of them) under their own names, such as tar shards with cat.0.jpg. The ten
below are in public lists of photos to remove: a dog under "cat", people, both animals at once. An interrupted check
goes on with the same command. Prints one JSON line: what was asked, the known ones among the photos, and their ranks.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
from pathlib import Path

import plusx
from plusx.data.source import scan
from plusx.training.events import Notice

KNOWN = (
    *("cat.4085", "cat.7377", "dog.12376", "cat.1450", "cat.5418"),
    *("cat.8456", "dog.4367", "dog.8736", "dog.9517", "dog.1895"),
)


def kaggle_name(path: str) -> str:
    """cat.4085 of train-0.tar!/train/cat.4085.jpg; "" where a photo is called otherwise."""
    found = re.search(r"((?:cat|dog)\.\d+)\.jpg$", path)
    return found[1] if found else ""


def say(event: object) -> None:
    """The folds as they come."""
    if isinstance(event, Notice):
        print(event.text, flush=True)


def main() -> None:
    """Check the labels, and look for the known ones in the ranking."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--time", default="60m")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--first", type=int, default=200)
    asked = parser.parse_args()
    started = time.monotonic()
    report = plusx.check_labels(asked.data, out=asked.out, folds=asked.folds, time=asked.time, on_event=say)
    seconds = time.monotonic() - started
    names = {kaggle_name(photo.name) for photo in scan(asked.data).photos}
    ranks = {kaggle_name(suspect.path): rank for rank, suspect in enumerate(report.suspects, start=1)}
    there = [name for name in KNOWN if name in names]
    hits = [name for name in there if ranks.get(name, asked.first + 1) <= asked.first]
    print("\n".join(report.lines()))
    print(
        json.dumps(
            {
                "plusx": plusx.__version__,
                "machine": platform.processor() or platform.machine(),
                "time": asked.time,
                "folds": asked.folds,
                "seconds": round(seconds, 1),
                "photos": report.n,
                "accuracy": report.right / report.n,
                "suspects": report.found,
                "doubtful": report.doubtful,
                "estimated": round(report.estimated, 1),
                "known": len(there),
                f"in_first_{asked.first}": len(hits),
                "ranks": {name: ranks.get(name) for name in there},
            }
        )
    )


if __name__ == "__main__":
    main()
