"""Whether a training gives the same weights every time, and what another number of threads changes.

    python benchmarks/repeat.py WORK --runs 100 --minutes 4

One tiny training on drawn photos, from the same settings, so often in this process, or until the minutes are over; then
with 1 thread and twice with 2, in processes of their own. Prints a JSON line for each question, and one for the
control: two trainings with as many threads.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from plusx.data.drawn import write_set
from plusx.verbs import decoding, labelled
from plusx.verbs.session import Session, prepared_device
from plusx.verbs.settle import at_scale, budgeted, wished
from plusx.verbs.train import train_split
from plusx.verbs.wish import Wish

FLAGS: dict[str, Any] = {"model": "resnet20", "epochs": 4, "batch_size": 16, "size": 32, "device": "cpu"}
SETS = ("width=0.25", "workers=0", "checkpoint_every=1000")
PHOTOS = {"train": 60}  # a class; a tenth of them validates, another tests


@contextmanager
def trainings(data: Path, seed: int = 0) -> Iterator[Callable[[Path], Path]]:
    """What trains from the start into a folder, as often as it is called, and returns the run. Photos are decoded once;
    pages, calibration and score of novelty, which come after the weights, are left out as in a fold of `plusx check`.
    """
    wish = Wish(flags=FLAGS | {"seed": seed}, sets=SETS)
    begun, config = time.monotonic(), wished(wish)
    device = prepared_device(config)
    photos = labelled.look([str(data)], config, ())
    config = at_scale(budgeted(config, device), wish, device, len(photos.rows("train")), begun)
    session = Session((str(data),), config, device, begun, lambda _: None, bare=True)
    pixels = decoding.decode(session, photos, "", None)
    with closing(pixels.store), closing(decoding.parted(session, photos, pixels)) as decoded:

        def trained(out: Path) -> Path:
            shutil.rmtree(out, ignore_errors=True)
            return train_split(session, photos, decoded, replace(wish, out=out)).run

        yield trained


def one(data: Path, out: Path, seed: int = 0) -> Path:
    """A training; its run folder."""
    with trainings(data, seed) as trained:
        return trained(out)


def weights(run: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Every tensor of the model file of a run."""
    from safetensors.numpy import load_file

    return load_file(run / "model.safetensors")


def digest(run: Path) -> str:
    """SHA-256 of the names, shapes and bytes of all weights of a run."""
    found = hashlib.sha256()
    for name, array in sorted(weights(run).items()):
        found.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    return found.hexdigest()


def repeated(data: Path, work: Path, runs: int, minutes: float) -> dict[str, Any]:
    """The training `runs` times, or as often as the minutes allow: how often, and how many different weights."""
    end, digests, steps = time.monotonic() + 60 * minutes, list[str](), 0
    with trainings(data) as trained:
        while len(digests) < runs and (not digests or time.monotonic() < end):
            run = trained(work / "repeated")
            digests.append(digest(run))
            steps = json.loads((run / "metrics.json").read_bytes())["steps"]
    return {"n": len(digests), "asked": runs, "steps": steps, "different": len(set(digests)), "sha256": digests[0]}


def with_threads(data: Path, out: Path, threads: int) -> Path:
    """The training in a process of its own, with so many threads; its run folder."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, __file__, "--here", str(data), str(out)], check=True, env=environment)
    return out


def apart(one_run: Path, other: Path) -> dict[str, Any]:
    """How far two runs are from each other: weights, and what they answer to the validation photos."""
    first, second = weights(one_run), weights(other)
    differences = {name: _largest(first[name], second[name]) for name in first}
    largest = max(differences, key=lambda name: differences[name])
    answers, others = _validation(one_run), _validation(other)
    assert answers.keys() == others.keys(), "runs of one split"
    recorded = [json.loads((run / "environment.json").read_bytes())["threads"] for run in (one_run, other)]
    return {
        "threads": recorded,
        "equal": digest(one_run) == digest(other),
        "largest_difference": differences[largest],
        "of": largest,
        "where_the_largest_is": float(np.abs(first[largest]).max()),
        "photos": len(answers),
        "other_answers": sum(answers[name] != others[name] for name in answers),
    }


def _largest(one_array: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(np.abs(one_array.astype(np.float64) - other.astype(np.float64)).max(initial=0.0))


def _validation(run: Path) -> dict[str, str]:
    """The likeliest class of every validation photo, by name."""
    with (run / "validation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    classes = [name for name in rows[0] if name.startswith("p:")]
    return {row["path"]: max(classes, key=lambda name: float(row[name])) for row in rows}


def drawn_photos(work: Path) -> Path:
    """The photos, drawn once."""
    write_set(work / "photos", PHOTOS, size=48)
    return work / "photos" / "train"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=4.0)
    wanted = parser.parse_args()
    wanted.work.mkdir(parents=True, exist_ok=True)
    data = drawn_photos(wanted.work)
    print(json.dumps({"repeated": repeated(data, wanted.work, wanted.runs, wanted.minutes)}), flush=True)
    one_thread, two, again = (
        with_threads(data, wanted.work / f"threads-{number}", threads) for number, threads in enumerate((1, 2, 2))
    )
    print(json.dumps({"other number of threads": apart(one_thread, two)}), flush=True)
    print(json.dumps({"as many threads": apart(two, again)}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--here"]:
        one(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
