"""What training costs on several processes, and a model of it: its constants, and how far it is from the truth.

    python benchmarks/scaling.py all --out benchmarks/results/scaling.jsonl      # or fit, check, netns by themselves

`fit` measures what the model's constants are fitted on: steps of single processes, messages among two and eight,
decoding, checkpoints. `check` measures training steps of several processes, and other messages. `netns` does both over
a wire between network namespaces, with a delay and a bandwidth (Linux, root; left out with a sentence elsewhere). FILE
gets a line for each, and what was foretold is printed beside what was measured. `python benchmarks/report.py` makes the
tables of docs/scaling.md of the lines. Six minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from at_scale import tables, tasks, wire
from at_scale.group import measured

Line = dict[str, Any]
PARTS = ("fit", "check", "netns")
DECODED = 60  # photos
WRITTEN = 7  # checkpoints
SIDES, QUALITY, GRAIN = (500, 375), 90, 24  # of a drawn JPEG that is about as large as one of ImageNet


def machine() -> dict[str, Any]:
    """Processor, cores and versions; every process has one thread."""
    import torch

    from plusx.training.environment import record

    return {**record(torch.device("cpu"), fast_math=False), "cores": len(os.sched_getaffinity(0)), "threads": 1}


def lines_of(session: tasks.Session, share: float = 1.0) -> Iterator[Line]:
    """A line for each size and step that the session measures, in a `share` of its time."""
    told = {name: getattr(session, name) for name in ("role", "machines", "delay", "bandwidth")}
    asked = [{**task, "seconds": share * task["seconds"]} for task in session.tasks]
    if session.machines == 1:
        found = measured(asked, session.workers)
    else:
        with wire.Wire(session.machines, session.delay, session.bandwidth) as between:
            found = measured(asked, session.workers, between.spaces, wire.ADDRESS.format(1))
    for task in found:
        common = {**told, "do": task["do"], "workers": task["workers"]}
        if "sizes" in task:
            yield from ({**common, "bytes": int(size), **what} for size, what in task["sizes"].items())
        else:
            yield {**common, **task}


def decoding() -> Line:
    """Seconds of a core for one photo, from bytes to 224 px."""
    from plusx.images.preprocess import Preprocess

    look, photo = Preprocess(resize=256, crop=224), drawn_jpeg()
    times = timed(lambda: look.from_bytes(photo), DECODED)
    return {"role": "fit", "do": "decode", "bytes": len(photo), "seconds": statistics.median(times), "rounds": DECODED}


def drawn_jpeg() -> bytes:
    """A JPEG of slopes and grain."""
    import numpy as np
    from PIL import Image

    width, height = SIDES
    grain = np.random.default_rng(0).normal(0, GRAIN, (height, width, 3))
    slopes = np.linspace(40, 200, width)[None, :, None] + np.linspace(0, 50, height)[:, None, None]
    pixels = Image.fromarray(np.clip(slopes + grain, 0, 255).astype(np.uint8))
    file = io.BytesIO()
    pixels.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def writing() -> Iterator[Line]:
    """Seconds of writing a checkpoint, by its bytes."""
    import torch
    from at_scale.worker import CLASSES, NETWORKS

    from plusx.models.registry import create_model
    from plusx.training import checkpoint
    from plusx.training.step import State

    for name, network in NETWORKS.items():
        model = create_model(classes=CLASSES, **network)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        state = State(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), None)
        with tempfile.TemporaryDirectory() as folder:
            size, times = 0, []
            for _ in range(WRITTEN):
                state.step += 1
                started = time.perf_counter()
                path = checkpoint.save(Path(folder), state, {})
                times.append(time.perf_counter() - started)
                size = sum(file.stat().st_size for file in path.iterdir())
        yield {"role": "fit", "do": "checkpoint", "network": name, "bytes": size, "seconds": statistics.median(times)}


def facts() -> Iterator[Line]:
    """What a network sends in a step, at a thousand classes."""
    from at_scale.worker import Training

    for name in ("resnet18", "resnet50"):
        training = Training({"network": name, "size": 32, "batch": 2, "norms": False}, classes=1000)
        training.step()
        told = {key: value for key, value in training.facts().items() if key != "backward"}
        yield {"role": "fit", "do": "facts", "network": name, **told}


def timed(work: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each of `rounds` runs."""
    work()
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return found


def found_by(part: str, share: float = 1.0) -> Iterator[Line]:
    """The lines of a part, as they are measured."""
    if part == "fit":
        yield decoding()
        yield from writing()
        yield from facts()
    if part == "netns" and (reason := wire.refused()):
        print(reason, file=sys.stderr)
        return
    sessions = {"fit": (tasks.fitting,), "check": (tasks.checking,), "netns": (tasks.fitting_wire, tasks.checking_wire)}
    for these in sessions[part]:
        for session in these():
            yield from lines_of(session, share)


def main() -> None:
    """Measure, add the lines to FILE, print model and measurement side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("all", *PARTS))
    parser.add_argument("--out", type=Path, required=True, help="gets the lines; those of the same part are replaced")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the time of each measurement; small ones are rough"
    )
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and namespaces are cleaned away
    parts = PARTS if wanted.part == "all" else (wanted.part,)
    kept = [line for line in read(wanted.out) if line["part"] not in parts]
    here = machine()
    for part in parts:
        for line in found_by(part, wanted.share):
            kept.append({"part": part, **line, "machine": here})
            print(json.dumps(line), flush=True)
            wanted.out.write_text("".join(json.dumps(line) + "\n" for line in kept))
    if any(line["part"] == "fit" for line in kept):
        print("\n".join([*tables.compared(kept), "", *tables.messages(kept)]))
    else:
        print("Nothing can be foretold before `fit` has measured.", file=sys.stderr)


def read(path: Path) -> list[Line]:
    """The lines of a file, none where there is none."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
